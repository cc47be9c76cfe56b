# Defines moored::c: moored.h with C linkage, compiled in the user's own build, because it has to fit
# the Python that the user builds for: the one that was found before, if any. Expects
# moored_c_source, and in moored_wants_python REQUIRED, or QUIET to do without moored::c where
# there is no Python. A project in C gets C++ enabled.
if(TARGET moored::c)
  return()
endif()

get_property(moored_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if(NOT "CXX" IN_LIST moored_languages)
  enable_language(CXX)
endif()
if(NOT Python_INCLUDE_DIRS AND Python3_INCLUDE_DIRS)
  set(Python_INCLUDE_DIRS ${Python3_INCLUDE_DIRS})
endif()
if(NOT Python_INCLUDE_DIRS)
  find_package(Python 3.10 ${moored_wants_python} COMPONENTS Interpreter Development.Module)
endif()
if(NOT Python_INCLUDE_DIRS)
  message(STATUS "moored: no moored::c, for there are no headers of Python 3.10 or later")
  return()
endif()

add_library(moored_c STATIC EXCLUDE_FROM_ALL ${moored_c_source})
add_library(moored::c ALIAS moored_c)
set_target_properties(moored_c PROPERTIES
  POSITION_INDEPENDENT_CODE ON
  CXX_VISIBILITY_PRESET hidden)
target_include_directories(moored_c PRIVATE ${Python_INCLUDE_DIRS})
target_link_libraries(moored_c PUBLIC moored::moored)
