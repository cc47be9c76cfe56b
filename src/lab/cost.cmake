# The measuring core of `moored lab cost` and `moored bench attach`, and the library that `moored lab spin` preloads.
nanobind_add_module(_cost NB_STATIC NOMINSIZE NB_SUPPRESS_WARNINGS
  ${CMAKE_CURRENT_LIST_DIR}/cost_module.cpp ${CMAKE_CURRENT_LIST_DIR}/cost_batch.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cost_entries.cpp ${CMAKE_CURRENT_LIST_DIR}/cost_memory.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cost_parts.cpp)
target_compile_definitions(_cost PRIVATE MOORED_INITIAL_EXEC_TLS)
target_link_libraries(_cost PRIVATE moored::moored moored_warnings Threads::Threads)
install(TARGETS _cost LIBRARY DESTINATION .)

add_library(moored_spin MODULE ${CMAKE_CURRENT_LIST_DIR}/spin.c)
set_target_properties(moored_spin PROPERTIES C_STANDARD 11 C_VISIBILITY_PRESET default)
target_link_libraries(moored_spin PRIVATE moored_warnings Threads::Threads ${CMAKE_DL_LIBS})
install(TARGETS moored_spin LIBRARY DESTINATION lab/lib)
