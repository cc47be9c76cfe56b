// moored/detail/cpython/late_threads.hpp: waiting for the GIL, and running code that does, when the
// interpreter may be going away.
//
// See versions.hpp for what CPython does to a thread that comes too late.
#pragma once

#include <Python.h>

#include <cxxabi.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "../lock.hpp"
#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// Threads that stop_this_thread() has stopped.
MOORED_CONSTINIT inline std::atomic<std::uint64_t> stopped_threads{0};

/// For a thread that shutdown has given up on, and that can neither go on in Python nor back into
/// native code that counts on having been there.
[[noreturn]] inline void stop_this_thread() noexcept {
  stopped_threads.fetch_add(1, std::memory_order_relaxed);
  for (;;) pause();
}

/// To be called when shutdown goes on although native threads are inside. Attached.
///
/// Up to 3.10 CPython frees the main interpreter under those that still wait for its GIL. Once the
/// interpreter is finalising each of them is unwound, but only when it next looks, which it does
/// once in a switch interval. So the end is held up, where the interpreter's dict is cleared, until
/// ten intervals have gone by without another thread being stopped.
inline void end_after_late_threads() noexcept {
#if MOORED_FREES_MAIN_UNDER_LATE_THREADS
  constexpr const char* name = "moored.late_threads";
  PyObject* const dict = PyInterpreterState_GetDict(PyInterpreterState_Main());
  PyObject* const last = PyCapsule_New(&stopped_threads, name, [](PyObject*) {
    constexpr unsigned long longest_us = 1'000'000;
    const auto quiet =
        static_cast<useconds_t>(std::min(10 * _PyEval_GetSwitchInterval(), longest_us));
    std::uint64_t before = 0;
    do {
      before = stopped_threads.load(std::memory_order_relaxed);
      usleep(quiet);
    } while (before != stopped_threads.load(std::memory_order_relaxed));
  });
  if (dict == nullptr || last == nullptr || PyDict_SetItemString(dict, name, last) != 0)
    PyErr_Clear();
  Py_XDECREF(last);
#endif
}

namespace detail {

/// Runs `wait`, which waits for the GIL. Unwinding ends the process at the first noexcept frame or
/// destructor; such a thread is stopped for ever instead, as later patches of 3.13, and 3.14,
/// do themselves.
template <class Wait>
MOORED_ALWAYS_INLINE auto stop_if_too_late(Wait wait) noexcept {
  if constexpr (!unwinds_late_threads) {
    return wait();
  } else {
    try {
      return wait();
    } catch (...) {  // not left: glibc ends the process when it is, but for rethrowing
      stop_this_thread();
    }
  }
}

}  // namespace detail

/// Within a catch (...): stops the thread if what was caught is that unwinding, which has no C++
/// type.
inline void stop_if_unwound() noexcept {
  if (unwinds_late_threads && abi::__cxa_current_exception_type() == nullptr) stop_this_thread();
}

/// PyEval_RestoreThread, which may wait for the GIL. Does not return to a thread that is too late.
MOORED_ALWAYS_INLINE void restore(PyThreadState* state) noexcept {
  detail::stop_if_too_late([state] { PyEval_RestoreThread(state); });
}
/// PyGILState_Ensure, likewise.
[[nodiscard]] inline PyGILState_STATE ensure() noexcept {
  return detail::stop_if_too_late([] { return PyGILState_Ensure(); });
}

// These run finalisers: Python code that may let go of the GIL, and then waits for it. Not for the
// frames of other people's code, which CPython unwinds as it does without moored.

/// PyGILState_Release, which clears the state that it is the last to release. Attached.
inline void release(PyGILState_STATE token) noexcept {
  detail::stop_if_too_late([token] { PyGILState_Release(token); });
}
/// PyThreadState_Clear. Attached to the interpreter of the state.
inline void clear(PyThreadState* state) noexcept {
  detail::stop_if_too_late([state] { PyThreadState_Clear(state); });
}
/// Py_XDECREF. Attached.
inline void drop(PyObject* object) noexcept {
  detail::stop_if_too_late([object] { Py_XDECREF(object); });
}

}  // namespace cpython
MOORED_NAMESPACE_END
