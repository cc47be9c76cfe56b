// moored/detail/cpython/calls.hpp: CPython's calls, each with what the caller must hold and what it
// answers on every version.
#pragma once

#include <Python.h>

#include <optional>

#include "current_word.hpp"
#include "late_threads.hpp"
#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// The thread state that is attached, or null. Any thread.
///
/// Up to 3.11 the answer is for the whole process (the thread that holds the GIL), from 3.12 on for
/// this thread.
[[nodiscard]] MOORED_ALWAYS_INLINE PyThreadState* current() noexcept {
  return the_current_word.read();
}

/// This thread's state in the eyes of PyGILState, attached or not; null if it has none. Any thread.
[[nodiscard]] inline PyThreadState* this_thread_state() noexcept {
  return PyGILState_GetThisThreadState();
}

/// True from the moment that Py_FinalizeEx passed the atexit callbacks. Any thread. Racy before
/// 3.15: a hint, no guard.
[[nodiscard]] inline bool is_finalizing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

/// True between the end of Py_Initialize and the start of the end. Any thread.
[[nodiscard]] inline bool is_running() noexcept {
  return Py_IsInitialized() != 0 && !is_finalizing();
}

/// PyThreadState_New: a state of `interpreter`, or null without memory. Any thread, attached or
/// not. With tracemalloc on it waits for the GIL, and a late thread is stopped there.
[[nodiscard]] inline PyThreadState* make_state(PyInterpreterState* interpreter) noexcept {
  return detail::stop_if_too_late([interpreter]() -> PyThreadState* {
#if MOORED_CRASHES_WITHOUT_MEMORY_FOR_A_STATE
    // 3.11 goes on with the null that it gets, and crashes. So it is asked only after the same
    // memory could be had.
    void* const room = PyMem_RawCalloc(1, sizeof(PyThreadState));
    if (room == nullptr) return nullptr;
    PyMem_RawFree(room);
#endif
    return PyThreadState_New(interpreter);
  });
}

/// PyGILState_Ensure, or nothing when there is no memory for the state of a thread that has none,
/// where PyGILState_Ensure itself ends the process. One PyGILState_Release takes it back.
///
/// `make` is to make the state: PyThreadState_New gives a thread's first state the binding and the
/// count that PyGILState_Ensure gives it.
template <class Make>
[[nodiscard]] std::optional<PyGILState_STATE> try_ensure(Make make) noexcept {
  if (this_thread_state() == nullptr) {
    PyThreadState* const made = make();
    if (made == nullptr) return std::nullopt;
    restore(made);
    return PyGILState_UNLOCKED;
  }
  return ensure();
}
[[nodiscard]] inline std::optional<PyGILState_STATE> try_ensure() noexcept {
  return try_ensure([] { return make_state(PyInterpreterState_Main()); });
}

/// The exception that is set, as an object that the caller owns; none is set afterwards. Attached.
[[nodiscard]] inline PyObject* take_exception() noexcept {
#if MOORED_HAS_RAISED_EXCEPTION
  return PyErr_GetRaisedException();
#else
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace != nullptr) PyException_SetTraceback(value, trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return value;
#endif
}

/// Sets an exception that take_exception() gave; takes the reference. Attached.
inline void set_exception(PyObject* exception) noexcept {
#if MOORED_HAS_RAISED_EXCEPTION
  PyErr_SetRaisedException(exception);
#else
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(exception))), exception,
                PyException_GetTraceback(exception));
#endif
}

/// True when an exception is set in `state`, by which the caller is attached: to find that state
/// takes PyErr_Occurred longer than to look.
[[nodiscard]] inline bool has_exception(const PyThreadState& state) noexcept {
#if MOORED_HAS_RAISED_EXCEPTION
  return state.current_exception != nullptr;
#else
  return state.curexc_type != nullptr;
#endif
}
/// The same, where the state may be unknown: null. Attached.
[[nodiscard]] inline bool has_exception(const PyThreadState* known) noexcept {
  return known != nullptr ? has_exception(*known) : PyErr_Occurred() != nullptr;
}

/// Hands the exception that is set to sys.unraisablehook; none is set afterwards. Attached.
inline void report_exception() noexcept {
  detail::stop_if_too_late([] { PyErr_WriteUnraisable(nullptr); });
}

/// Finalises what a state's dict holds, but for what is under the key `except`: that finalises
/// nothing, and a copy of moored that keeps the state needs it. Attached; leaves no exception.
inline void drop_locals(PyObject* locals, const char* except) noexcept {
  PyObject* const stays = Py_XNewRef(PyDict_GetItemString(locals, except));
  detail::stop_if_too_late([locals] { PyDict_Clear(locals); });
  if (stays != nullptr && PyDict_SetItemString(locals, except, stays) != 0) PyErr_Clear();
  Py_XDECREF(stays);
}

/// Up to early 3.12, a finaliser that enters Python while PyGILState_Release clears the state has
/// the state deleted twice (gh-119753). Dropping the thread's locals first, while the state is
/// still counted, leaves nothing to finalise.
inline void drop_locals_before_last_release([[maybe_unused]] const char* except) noexcept {
#if MOORED_RELEASE_DELETES_TWICE
  if (PyObject* const locals = PyThreadState_GetDict()) drop_locals(locals, except);
#endif
}

/// Keeps the main interpreter from finalising while it lives, on 3.15 and later (PEP 788);
/// elsewhere an empty promise. Tests false when the interpreter cannot be entered any more, or
/// there is no memory for the guard. Any thread, attached or not.
class interpreter_guard {
 public:
#if MOORED_HAS_INTERPRETER_GUARDS
  interpreter_guard() noexcept {
    if (PyInterpreterView* const view = PyInterpreterView_FromMain()) {
      guard_ = PyInterpreterGuard_FromView(view);
      PyInterpreterView_Close(view);
    }
  }
  ~interpreter_guard() {
    if (guard_ != nullptr) PyInterpreterGuard_Close(guard_);
  }
  [[nodiscard]] explicit operator bool() const noexcept {
    return guard_ != nullptr;
  }
#else
  interpreter_guard() noexcept = default;
  ~interpreter_guard() = default;
  [[nodiscard]] explicit operator bool() const noexcept {
    return is_running();
  }
#endif
  interpreter_guard(const interpreter_guard&) = delete;
  interpreter_guard& operator=(const interpreter_guard&) = delete;

 private:
#if MOORED_HAS_INTERPRETER_GUARDS
  PyInterpreterGuard* guard_ = nullptr;
#endif
};

}  // namespace cpython
MOORED_NAMESPACE_END
