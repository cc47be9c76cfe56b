// building.hpp: what CPython's allocators, structs and symbols let others do.
#pragma once

#include "ways.hpp"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstddef>

namespace {

PyObjectArenaAllocator below{};
std::atomic<long> chunks_made{0}, chunks_freed{0};
PyObject* counter_in_python = nullptr;

void* count_allocation(void*, std::size_t size) {
  if (size == moored::cpython::data_stack_chunk_bytes) ++chunks_made;
  return below.alloc(below.ctx, size);
}

void count_free(void*, void* block, std::size_t size) {
  if (size == moored::cpython::data_stack_chunk_bytes) ++chunks_freed;
  below.free(below.ctx, block, size);
}

PyObject* stats_of_chunks(PyObject*, PyObject*) {
  PyObject_GetArenaAllocator(&below);
  PyObjectArenaAllocator counting{below.ctx, count_allocation, count_free};
  PyObject_SetArenaAllocator(&counting);
  Py_RETURN_NONE;
}

PyObject* chunks(PyObject*, PyObject*) {
  return Py_BuildValue("ll", chunks_made.load(), chunks_made.load() - chunks_freed.load());
}

void* allocate_and_call_python(void*, std::size_t size) {
  call(counter_in_python);
  return below.alloc(below.ctx, size);
}

/// An arena allocator that tells Python of each allocation.
PyObject* call_python_at_each_arena(PyObject*, PyObject* callable) {
  counter_in_python = Py_NewRef(callable);
  PyObject_GetArenaAllocator(&below);
  PyObjectArenaAllocator telling{below.ctx, allocate_and_call_python, below.free};
  PyObject_SetArenaAllocator(&telling);
  Py_RETURN_NONE;
}

PyObject* install(PyObject*, PyObject*) {
  return PyBool_FromLong(moored::install() != moored::cache_status::nothing_to_gain);
}

PyObject* cache_hits(PyObject*, PyObject*) {
  return PyLong_FromUnsignedLongLong(moored::stats_of_chunks().hits);
}

// A template, so that a field which this version does not have is no error.
template <class State>
std::string fields_of(const State*) {
  std::string text = "gilstate_counter ";
  if constexpr (requires(State state) { state.gilstate_counter; }) {
    text += "is at byte " + std::to_string(offsetof(State, gilstate_counter));
  } else {
    text += "does not exist";
  }
  if constexpr (requires(State state) { state._status; }) return text + ", _status exists";
  return text + ", _status does not exist";
}

PyObject* private_fields(PyObject*, PyObject*) {
  const std::string text = fields_of(static_cast<PyThreadState*>(nullptr));
  return PyUnicode_FromString(text.c_str());
}

/// Writes into this extension's own reference to PyGILState_Ensure, as a simple hook would.
PyObject* patch_own_reference(PyObject*, PyObject*) {
  Dl_info where{};
  dladdr(reinterpret_cast<void*>(&patch_own_reference), &where);
  const auto* const map = static_cast<const link_map*>(dlopen(where.dli_fname, RTLD_LAZY));
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  const ElfW(Rela)* references = nullptr;
  std::size_t bytes = 0;
  for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym)*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_STRTAB) names = reinterpret_cast<const char*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_RELA)
      references = reinterpret_cast<const ElfW(Rela)*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_RELASZ) bytes = entry->d_un.d_val;
  }
  for (std::size_t i = 0; i < bytes / sizeof *references; ++i) {
    const char* const name = names + symbols[ELF64_R_SYM(references[i].r_info)].st_name;
    if (name != std::string_view("PyGILState_Ensure")) continue;
    say("its slot is found");
    auto* const slot = reinterpret_cast<void* volatile*>(map->l_addr + references[i].r_offset);
    *slot = *slot;
    say("its slot is written");
  }
  Py_RETURN_NONE;
}

}  // namespace
