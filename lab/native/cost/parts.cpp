// The parts that a temporary thread state is made of, and the wholes.
#include "parts.hpp"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "entries.hpp"

namespace moored::lab {
namespace {

constexpr std::size_t chunk_bytes = 16 * 1024;  // CPython's first data-stack chunk, from 3.11 on

// Keeps the compiler from leaving out an allocation that is never read.
void keep(void* pointer) {
  asm volatile("" : : "g"(pointer) : "memory");
}

// Two sets and two gets: what one Ensure and Release do with CPython's thread-specific key.
[[nodiscard]] operation tls_of_pthread() {
  const std::shared_ptr<pthread_key_t> key(new pthread_key_t{}, [](pthread_key_t* made) {
    pthread_key_delete(*made);
    delete made;
  });
  if (pthread_key_create(key.get(), nullptr) != 0) throw std::bad_alloc();
  return {.key = "tls_pthread", .repeat = [key](std::size_t times) {
            for (; times != 0; --times) {
              keep(pthread_getspecific(*key));
              pthread_setspecific(*key, key.get());
              keep(pthread_getspecific(*key));
              pthread_setspecific(*key, nullptr);
            }
          }};
}

[[nodiscard]] operation tls_of_python() {
  const std::shared_ptr<Py_tss_t> key(PyThread_tss_alloc(), PyThread_tss_free);
  if (!key || PyThread_tss_create(key.get()) != 0) throw std::bad_alloc();
  return {.key = "tls_python", .repeat = [key](std::size_t times) {
            for (; times != 0; --times) {
              keep(PyThread_tss_get(key.get()));
              PyThread_tss_set(key.get(), key.get());
              keep(PyThread_tss_get(key.get()));
              PyThread_tss_set(key.get(), nullptr);
            }
          }};
}

[[nodiscard]] operation memory_of_a_state() {
  return {.key = "malloc", .repeat = repeated([size = state_bytes()] {
                             void* const state = std::calloc(1, size);
                             keep(state);
                             std::free(state);
                           })};
}

[[nodiscard]] operation thread_id_call() {
  return {.key = "gettid", .repeat = repeated([] { syscall(SYS_gettid); })};
}

[[nodiscard]] operation stack_bounds() {
  return {.key = "stack_bounds", .repeat = repeated([] {
                                   pthread_attr_t attributes;
                                   void* address = nullptr;
                                   std::size_t size = 0;
                                   if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
                                   pthread_attr_getstack(&attributes, &address, &size);
                                   pthread_attr_destroy(&attributes);
                                   keep(address);
                                 })};
}

[[nodiscard]] operation state_new_and_delete() {
  return with_gil_held({.key = "state", .repeat = [](std::size_t times) {
                          PyInterpreterState* const here = PyInterpreterState_Get();
                          for (; times != 0; --times) {
                            PyThreadState* const state = PyThreadState_New(here);
                            PyThreadState_Clear(state);
                            PyThreadState_Delete(state);
                          }
                        }});
}

[[nodiscard]] operation chunk(std::string key, bool touched) {
  return {.key = std::move(key), .repeat = repeated([touched] {
                                   void* const pages =
                                       mmap(nullptr, chunk_bytes, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                                   if (pages == MAP_FAILED) throw std::bad_alloc();
                                   if (touched) *static_cast<volatile char*>(pages) = 1;
                                   munmap(pages, chunk_bytes);
                                 })};
}

[[nodiscard]] operation gil() {
  return with_kept_state({.key = "gil", .repeat = [](std::size_t times) {
                            PyThreadState* const mine = PyGILState_GetThisThreadState();
                            for (; times != 0; --times) {
                              PyEval_RestoreThread(mine);
                              PyEval_SaveThread();
                            }
                          }});
}

[[nodiscard]] operation ensure_alone(std::string key) {
  return {.key = std::move(key),
          .repeat = repeated([] { PyGILState_Release(PyGILState_Ensure()); })};
}

[[nodiscard]] operation call(std::string key, PyObject* callback) {
  return with_gil_held({.key = std::move(key), .repeat = repeated([=] { call_python(callback); })});
}

}  // namespace

std::size_t state_bytes() {
  return sizeof(PyThreadState);
}

std::vector<operation> parts(PyObject* empty, PyObject* uses_locals) {
  return {tls_of_pthread(),
          tls_of_python(),
          memory_of_a_state(),
          thread_id_call(),
          stack_bounds(),
          state_new_and_delete(),
          chunk("chunk_mapped", false),
          chunk("chunk_touched", true),
          gil(),
          with_gil_held(ensure_alone("ensure_nested")),
          call("call", empty),
          call("call_locals", uses_locals),
          ensure_alone("temporary_no_call"),
          ensure_and_call("temporary", empty),
          ensure_and_call("temporary_locals", uses_locals),
          attach_and_call("kept", strategy::kept, empty),
          attach_and_call("kept_locals", strategy::kept, uses_locals)};
}

}  // namespace moored::lab
