// moored/detail/channel/exceptions.hpp: what becomes of exceptions around a handler.
#pragma once

#include <Python.h>

#include <cxxabi.h>

#include <csignal>
#include <exception>
#include <new>

#include "../cpython/calls.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// For a scope the exception that the caller has set is set apart: a sender may be in the middle of
/// handling one. Attached, or `attached` is false and it does nothing.
class exception_apart {
 public:
  explicit exception_apart(bool attached) noexcept
      : apart_(attached && PyErr_Occurred() != nullptr ? cpython::take_exception() : nullptr) {}
  ~exception_apart() {
    if (apart_ != nullptr) cpython::set_exception(apart_);
  }
  exception_apart(const exception_apart&) = delete;
  exception_apart& operator=(const exception_apart&) = delete;

 private:
  PyObject* apart_;
};

/// Within a catch (...): sets a Python exception, unless one is set, for the C++ exception that was
/// caught. One that is no C++ exception goes on: the thread is being unwound. Attached.
inline void set_exception_for_caught() {
  cpython::stop_if_unwound();
  if (abi::__cxa_current_exception_type() == nullptr) throw;
  if (PyErr_Occurred() != nullptr) return;
  try {
    throw;
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "native code threw what is no std::exception");
  }
}

/// Takes the exception that is set for Ctrl-C, and has it raised in main: true. False
/// when it is another one, or Python does not handle SIGINT. Attached.
[[nodiscard]] inline bool hand_interrupt_to_main() noexcept {
  if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) return false;
  const PyOS_sighandler_t handler = PyOS_getsig(SIGINT);
  if (handler == SIG_DFL || handler == SIG_IGN || handler == SIG_ERR) return false;
  PyErr_Clear();
  PyErr_SetInterrupt();
  return true;
}

/// Hands the exception that is set to sys.unraisablehook; or to main, if it was Ctrl-C: true.
/// Attached.
inline bool report(PyObject* about) noexcept {
  if (hand_interrupt_to_main()) return true;
  cpython::detail::stop_if_too_late([about] { PyErr_WriteUnraisable(about); });
  return false;
}

}  // namespace detail
MOORED_NAMESPACE_END
