// moored/detail/cpython/entries.hpp: what is on a thread state, and what was left on it.
//
// CPython has no calls for that. Its structs have fields, which are private, and which each version
// has in another place: this file alone reads them, in a library that was compiled for the version
// that runs, and where something depends on them only after a look at what CPython does to them.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>

#include "calls.hpp"
#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// How many have entered by the state and not left: Ensures, scopes of pybind11, which counts in
/// the same field, and one for each that keeps it. Attached to its interpreter.
[[nodiscard]] inline Py_ssize_t entries(const PyThreadState* state) noexcept {
#if MOORED_HAS_INTERPRETER_GUARDS
  return state->gilstate_counter + state->ensure.counter;
#else
  return state->gilstate_counter;
#endif
}

/// True when entries() reads what CPython counts: looked at once, by one more Ensure. Attached by
/// `state`, which PyGILState knows for this thread, and which may be at 0: then a Release would
/// delete it, so that what the Ensure has counted is taken back as pybind11 does it.
[[nodiscard]] inline bool can_read_entries(PyThreadState* state) noexcept {
  enum class answer : std::uint8_t { unknown, yes, no };
  MOORED_CONSTINIT static std::atomic<answer> found{answer::unknown};
  answer known = found.load(std::memory_order_relaxed);
  if (MOORED_UNLIKELY(known == answer::unknown)) {
    const Py_ssize_t before = entries(state);
    (void)PyGILState_Ensure();
    known = before >= 0 && entries(state) == before + 1 ? answer::yes : answer::no;
    // Where the field is another one, the state is counted once too often, and is not freed.
    if (known == answer::yes) --state->gilstate_counter;
    found.store(known, std::memory_order_relaxed);
  }
  return known == answer::yes;
}

/// True when an exception is noted as being handled (sys.exc_info()). Attached by the state,
/// outside of every frame: then native code has left it there, by PyErr_SetExcInfo. A hint: it is
/// dropped by that same call, which does no harm where there is none.
[[nodiscard]] inline bool handles_exception(const PyThreadState* state) noexcept {
  const PyObject* const handled = state->exc_info->exc_value;
  return handled != nullptr && handled != Py_None;
}

/// True when another thread has sent an exception by PyThreadState_SetAsyncExc that was not raised
/// yet. Attached by the state. A hint: what depends on it asks CPython to drop one, if there is
/// one.
[[nodiscard]] inline bool is_sent_an_exception(const PyThreadState* state) noexcept {
  return __atomic_load_n(&state->async_exc, __ATOMIC_RELAXED) != nullptr;
}
/// Drops it. On the state's own thread, attached by it.
inline void drop_sent_exception() noexcept {
  (void)PyThreadState_SetAsyncExc(PyThread_get_thread_ident(), nullptr);
}

/// True when the state has what its end takes along: a threading.local that was used, or another
/// thing in its dict, or a context variable. Attached by the state; runs no Python.
///
/// The first time, the field of the dict is compared with what CPython says; false where it is
/// another one.
[[nodiscard]] inline bool has_locals(PyThreadState* state) noexcept {
  enum class answer : std::uint8_t { unknown, yes, no };
  MOORED_CONSTINIT static std::atomic<answer> found{answer::unknown};
  answer known = found.load(std::memory_order_relaxed);
  if (MOORED_UNLIKELY(known == answer::unknown)) {
    known = PyThreadState_GetDict() == state->dict ? answer::yes : answer::no;
    found.store(known, std::memory_order_relaxed);
  }
  if (known == answer::no) return false;
#if MOORED_HAS_LOCAL_SENTINEL
  if (state->threading_local_key != nullptr) return true;  // made at a thread's first use of one
#endif
  if (state->dict != nullptr && PyDict_Size(state->dict) > 0) return true;
  // A call that copies its context leaves an empty one behind.
  return state->context != nullptr && PyContext_CheckExact(state->context) &&
         PyObject_Size(state->context) > 0;
}

/// Drops the exception that is set on another thread's state. That state is detached; the caller is
/// attached to the same interpreter, which has a GIL, and has_exception() was seen to agree with
/// CPython on that state. Finalisers run, on the calling thread.
inline void drop_exception_of(PyThreadState* idle) {
#if MOORED_HAS_RAISED_EXCEPTION
  Py_CLEAR(idle->current_exception);
#else
  PyObject* const type = idle->curexc_type;
  PyObject* const value = idle->curexc_value;
  PyObject* const trace = idle->curexc_traceback;
  idle->curexc_type = idle->curexc_value = idle->curexc_traceback = nullptr;
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
#endif
}

}  // namespace cpython
MOORED_NAMESPACE_END
