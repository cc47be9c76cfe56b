// hooks.cpp: the functions that take the place of CPython's in other people's references.
//
// Each does what the real one does, and sees to it that a thread which came without a state keeps
// the one that it gets. The real function may end the thread by unwinding it when the
// interpreter is going away (detail/cpython/versions.hpp): no frame from which it is called is noexcept or has anything to
// destroy.
#include "weak_python.hpp"

#include <moored/detail/states/adopted.hpp>
#include <moored/install.hpp>

#include <pthread.h>
#include <unistd.h>

#include "process.hpp"
#include "thread_tally.hpp"

#define MOORED_EXPORT [[gnu::visibility("default")]]

// Where the real functions are. Memory that starts as zero: the audit library writes here before
// this library is relocated. A process without the audit library calls no hook.
extern "C" {
#define MOORED_REAL(f)                                             \
  MOORED_EXPORT extern decltype(&f) MOORED_REAL_NAME(f); \
  MOORED_CONSTINIT decltype(&f) MOORED_REAL_NAME(f) = nullptr
MOORED_REAL(PyGILState_Ensure);
MOORED_REAL(PyGILState_GetThisThreadState);
#if MOORED_HAS_INTERPRETER_GUARDS
MOORED_REAL(PyThreadState_Ensure);
MOORED_REAL(PyThreadState_EnsureFromView);
#endif
}

namespace moored::run {

namespace {

using moored::detail::this_thread;

[[nodiscard]] bool keeps_state() noexcept {
  return moored::detail::keeps_state(this_thread);
}

/// True when there is a state to be kept: this thread has none yet, and in this process states are
/// kept, as far as that is known before the GIL is held.
[[nodiscard]] bool comes_without_state() noexcept {
  const keeping decided = this_process().decided();
  if (decided == keeping::undecided && PyGILState_GetThisThreadState == nullptr)
    this_process().decide();
  if (PyGILState_GetThisThreadState == nullptr ||
      (decided != keeping::on && decided != keeping::undecided))
    return false;
  return cpython::this_thread_state() == nullptr;
}

/// Caller: attached, by the PyGILState_Ensure of a thread that came without a state.
void keep_what_was_made() {
  if (!this_thread_seen) {
    this_thread_seen = true;
    this_process().threads_seen.fetch_add(1, std::memory_order_relaxed);
  }
  if (this_process().decide() != keeping::on) return;
  (void)install();  // from 3.12 on a second Py_Initialize has put Python's own allocator back
  if (moored::detail::adopt_attached_state() && keeps_state()) start_tally();
}

/// Gives a thread that came without a state one that it keeps, and leaves it detached.
///
/// The thread may hold the GIL all the same, by a state that PyGILState does not know. From 3.12 on
/// that can be seen. Before, whoever asks here is about to make a state and to wait for the GIL
/// anyway.
void make_state_in_advance() {
#if MOORED_CURRENT_IS_PER_THREAD
  if (cpython::current() != nullptr) return;
#endif
  if (this_thread.keeps() != moored::detail::keeping::nothing) return;
  const cpython::interpreter_guard guard;
  if (!guard) return;
  const PyGILState_STATE token = PyGILState_Ensure();
  keep_what_was_made();
  PyGILState_Release(token);
}

/// A native thread that calls when Python is gone crashes in the real function, up to 3.14. Fast
/// calls would make that more likely than it is without moored. So it gets what CPython does to
/// those that come a moment earlier: its end, or a wait for ever. Whoever is attached (the
/// finalising thread itself) goes on.
void stop_if_python_is_gone() {
  const moored::detail::epoch now = moored::detail::the_gate.now();
  if (now == 0 || moored::detail::is_open(now) || Py_IsInitialized() != 0) return;
  if (moored::detail::is_attached(this_thread)) return;
#if PY_VERSION_HEX < MOORED_FIRST_HANGING_VERSION
  pthread_exit(nullptr);
#else
  for (;;) pause();
#endif
}

/// Before a call that attaches: counts it, or makes what it will find.
void prepare_attach() {
  if (keeps_state()) {
    if (!moored::detail::is_attached(this_thread)) count_served();
  } else if (comes_without_state()) {
    make_state_in_advance();
  }
}

}  // namespace

extern "C" {

MOORED_EXPORT PyGILState_STATE MOORED_HOOK_NAME(PyGILState_Ensure)() {
  const auto real = MOORED_REAL_NAME(PyGILState_Ensure);
  if (MOORED_LIKELY(keeps_state())) {
    const PyGILState_STATE token = real();
    if (token == PyGILState_UNLOCKED) count_served();
    return token;
  }
  stop_if_python_is_gone();
  if (!comes_without_state()) return real();
  const PyGILState_STATE token = real();
  keep_what_was_made();
  return token;
}

/// Only for those who make a state of their own when the answer is null: pybind11.
MOORED_EXPORT PyThreadState* MOORED_HOOK_NAME(PyGILState_GetThisThreadState)() {
  prepare_attach();
  return MOORED_REAL_NAME(PyGILState_GetThisThreadState)();
}

#if MOORED_HAS_INTERPRETER_GUARDS
// A state that these make dies with their Release, whoever else counts on it. One that is there
// before they only use.
MOORED_EXPORT PyThreadStateToken* MOORED_HOOK_NAME(PyThreadState_Ensure)(
    PyInterpreterGuard* guard) {
  prepare_attach();
  return MOORED_REAL_NAME(PyThreadState_Ensure)(guard);
}

MOORED_EXPORT PyThreadStateToken* MOORED_HOOK_NAME(PyThreadState_EnsureFromView)(
    PyInterpreterView* view) {
  prepare_attach();
  return MOORED_REAL_NAME(PyThreadState_EnsureFromView)(view);
}
#endif

}  // extern "C"

}  // namespace moored::run
