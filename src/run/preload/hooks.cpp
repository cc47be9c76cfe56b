// hooks.cpp: the functions that take the place of CPython's in other people's references.
//
// Each does what the real one does, and sees to it that a thread which came without a state keeps
// the one that it gets, and that a call finds nothing on it that an earlier one has left: an
// exception that is still set, or one that was sent to the thread while it was idle.
//
// The real function may end the thread by unwinding it when the interpreter is going away
// (detail/cpython/versions.hpp): no frame from which it is called is noexcept or has anything to
// destroy.
#include "weak_python.hpp"

#include <moored/detail/cpython/entries.hpp>
#include <moored/detail/states/adopted.hpp>
#include <moored/install.hpp>

#include <pthread.h>
#include <unistd.h>

#include "../recorder/recorder.hpp"
#include "process.hpp"
#include "thread_stats.hpp"

#define MOORED_EXPORT [[gnu::visibility("default")]]

// Where the real functions are. Memory that starts as zero: the audit library writes here before
// this library is relocated. A process without the audit library calls no hook.
extern "C" {
#define MOORED_REAL(f)                                   \
  MOORED_EXPORT extern decltype(&f) MOORED_REAL_NAME(f); \
  MOORED_CONSTINIT decltype(&f) MOORED_REAL_NAME(f) = nullptr;
MOORED_REAL(PyGILState_Ensure)
MOORED_REAL(PyGILState_Release)
#if MOORED_HAS_INTERPRETER_GUARDS
MOORED_REAL(PyThreadState_Ensure)
MOORED_REAL(PyThreadState_EnsureFromView)
MOORED_REAL(PyThreadState_Release)
#endif
MOORED_FOR_EACH_HOOK_OF_MAKERS(MOORED_REAL)
}

namespace moored::run {

namespace {

using moored::detail::this_thread;

[[nodiscard]] bool keeps_state() noexcept {
  return moored::detail::keeps_state(this_thread);
}

/// This is a foreign thread: under --urgent it asks a busy holder for the GIL from now on.
void become_urgent() noexcept {
  if (MOORED_UNLIKELY(this_process().asked().urgent)) cpython::be_urgent();
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
  if (cpython::this_thread_state() != nullptr) return false;
  become_urgent();
  return true;
}

/// Caller: attached, by the PyGILState_Ensure of a thread that came without a state.
void keep_what_was_made() {
  if (!this_thread_seen) {
    this_thread_seen = true;
    this_process().threads_seen.fetch_add(1, std::memory_order_relaxed);
  }
  if (this_process().decide() != keeping::on) return;
  (void)install();  // from 3.12 on a second Py_Initialize has put Python's own allocator back
  if (moored::detail::adopt_attached_state() && keeps_state()) start_stats();
}

/// A native thread that calls when Python is gone crashes in the real function, up to 3.14. Fast
/// calls would make that more likely than it is without moored. So it gets what CPython does to
/// those that come a moment earlier: its end, or a wait for ever. A thread that is
/// attached (the finalising one itself) goes on.
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

/// How many entries there are on a kept state (cpython::entries) within an outermost call: the one
/// for its being kept, and the call's own, which pybind11 counts after it has attached, and takes
/// back before it detaches.
constexpr Py_ssize_t with_the_call = 2;
constexpr Py_ssize_t without_the_call = 1;

/// Attached. True when it is the kept state that is attached, for so many entries. Seldom asked.
[[nodiscard]] bool is_outermost(Py_ssize_t entries) {
  PyThreadState* const kept = this_thread.kept;
  return cpython::current() == kept && cpython::this_thread_state() == kept &&
         cpython::can_read_entries(kept) && cpython::entries(kept) == entries;
}

/// A call has attached the state that this thread keeps. What was sent to the thread while it was
/// idle hits no call: without moored there would have been no thread state to send it to.
///
/// Only an outermost call is counted. One that comes within another, which has let go of the GIL,
/// would have found that one's state.
void begin_call(Py_ssize_t outermost) {
  PyThreadState* const kept = this_thread.kept;
  if (cpython::can_read_entries(kept) && cpython::entries(kept) == outermost) count_served();
  if (MOORED_UNLIKELY(cpython::is_sent_an_exception(kept)) && is_outermost(outermost))
    cpython::drop_sent_exception();
}

/// A call is about to detach this thread, and nothing else has been looked at. An exception that
/// the outermost call has left set, or left as being handled, dies here with its traceback, as it
/// does when a temporary state is cleared: on its own thread, and silently. The state is still
/// counted, so that a finaliser may enter and leave Python.
void end_call(Py_ssize_t outermost) {
  const PyThreadState* const kept = this_thread.kept;
  if (MOORED_LIKELY(!this_thread.keeps_now() ||
                    !(cpython::has_exception(kept) || cpython::handles_exception(kept))))
    return;
  if (!is_outermost(outermost)) return;
  PyErr_SetExcInfo(nullptr, nullptr, nullptr);
  PyErr_Clear();
}

/// True for a thread for which the next call makes a state.
[[nodiscard]] bool has_no_state() noexcept {
  return PyGILState_GetThisThreadState != nullptr && cpython::this_thread_state() == nullptr;
}

/// The thread is about to let go of the GIL.
recorder::departure let_go() noexcept {
  cpython::settle_urgent_turn();
  if (MOORED_LIKELY(!recorder::is_on.load(std::memory_order_relaxed))) return {};
  return recorder::leaving();
}
/// The same, by a Release.
recorder::departure release() noexcept {
  cpython::settle_urgent_turn();
  if (MOORED_LIKELY(!recorder::is_on.load(std::memory_order_relaxed))) return {};
  return recorder::releasing();
}

#if MOORED_HAS_INTERPRETER_GUARDS
/// Gives a thread that came without a state one that it keeps, and leaves it detached. Not for a
/// thread that is attached by a state which PyGILState does not know.
void make_state_in_advance() {
  if (cpython::current() != nullptr) return;
  if (this_thread.keeps() != moored::detail::keeping::nothing) return;
  const cpython::interpreter_guard guard;
  if (!guard) return;
  const PyGILState_STATE token = PyGILState_Ensure();
  keep_what_was_made();
  PyGILState_Release(token);
}

/// Attaches by `real`, as PyGILState_Ensure's replacement does.
template <class Real>
PyThreadStateToken* attach_unrecorded(Real real) {
  const bool enters = keeps_state() && !moored::detail::is_attached(this_thread);
  if (!keeps_state() && comes_without_state()) make_state_in_advance();
  PyThreadStateToken* const token = real();
  if (enters && token != nullptr) begin_call(with_the_call);
  return token;
}
/// The same, recorded.
template <class Real>
PyThreadStateToken* attach_by(Real real, const void* caller, const void* frame) {
  if (MOORED_UNLIKELY(recorder::is_on.load(std::memory_order_relaxed))) {
    const bool makes = has_no_state(), was_in = cpython::current() != nullptr;
    const recorder::arrival how = recorder::begin(caller, frame);
    PyThreadStateToken* const token = attach_unrecorded(real);
    if (token != nullptr && was_in) recorder::entered_again();
    if (token != nullptr && !was_in) recorder::entered(how, makes);
    return token;
  }
  return attach_unrecorded(real);
}
#endif

/// The state that pybind11 has made for this thread, and in which it counts its scopes, and the
/// entries of others within them, from 0. A state whose maker does not count stays at 1.
MOORED_TLS_MODEL MOORED_CONSTINIT thread_local PyThreadState* scoped = nullptr;
/// The same state, from where pybind11 was about to clear it to where it was about to delete it.
MOORED_TLS_MODEL MOORED_CONSTINIT thread_local PyThreadState* spared = nullptr;

/// Attached by `state`, which pybind11 has not counted in yet.
[[nodiscard]] bool is_made_for_scopes(PyThreadState* state) {
  return this_thread.keeps() == moored::detail::keeping::nothing &&
         this_process().decide() == keeping::on && state == cpython::this_thread_state() &&
         cpython::can_read_entries(state) && cpython::entries(state) == 0;
}

/// At the end of its outermost scope. Since 3.0.2 pybind11 counts the clearing as an entry.
[[nodiscard]] bool is_at_end_of_scopes(const PyThreadState* state) {
  return state != nullptr && state == scoped && state == cpython::current() &&
         cpython::entries(state) <= 1;
}

/// Keeps such a state, of which everything is left but an exception. False when it is not kept.
[[nodiscard]] bool keep_after_scopes() {
  PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  keep_what_was_made();
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  PyErr_SetExcInfo(nullptr, nullptr, nullptr);
  return keeps_state();
}

/// PyGILState_Ensure, and what moored does beside it.
PyGILState_STATE ensure() {
  const auto real = MOORED_REAL_NAME(PyGILState_Ensure);
  if (MOORED_LIKELY(keeps_state())) {
    const PyGILState_STATE token = real();
    if (token == PyGILState_UNLOCKED) begin_call(with_the_call);
    return token;
  }
  stop_if_python_is_gone();
  if (!comes_without_state()) return real();
  const PyGILState_STATE token = real();
  keep_what_was_made();
  return token;
}

}  // namespace

extern "C" {

MOORED_EXPORT PyGILState_STATE MOORED_HOOK_NAME(PyGILState_Ensure)() {
  if (MOORED_LIKELY(!recorder::is_on.load(std::memory_order_relaxed))) return ensure();
  const bool makes = has_no_state();
  const recorder::arrival how =
      recorder::begin(__builtin_return_address(0), __builtin_frame_address(0));
  const PyGILState_STATE token = ensure();
  if (token == PyGILState_UNLOCKED) recorder::entered(how, makes);
  return token;
}

MOORED_EXPORT void MOORED_HOOK_NAME(PyGILState_Release)(PyGILState_STATE token) {
  recorder::departure how{};
  if (token == PyGILState_UNLOCKED) {
    end_call(with_the_call);
    how = release();
  }
  MOORED_REAL_NAME(PyGILState_Release)(token);
  if (MOORED_UNLIKELY(how.begun != 0)) recorder::left(how);
}

#if MOORED_HAS_INTERPRETER_GUARDS
// A state that these make dies with their Release, whatever other code counts on it. One that is
// there before they only use.
MOORED_EXPORT PyThreadStateToken* MOORED_HOOK_NAME(PyThreadState_Ensure)(
    PyInterpreterGuard* guard) {
  return attach_by([guard] { return MOORED_REAL_NAME(PyThreadState_Ensure)(guard); },
                   __builtin_return_address(0), __builtin_frame_address(0));
}

MOORED_EXPORT PyThreadStateToken* MOORED_HOOK_NAME(PyThreadState_EnsureFromView)(
    PyInterpreterView* view) {
  return attach_by([view] { return MOORED_REAL_NAME(PyThreadState_EnsureFromView)(view); },
                   __builtin_return_address(0), __builtin_frame_address(0));
}

MOORED_EXPORT void MOORED_HOOK_NAME(PyThreadState_Release)(PyThreadStateToken* token) {
  end_call(with_the_call);
  const recorder::departure how = release();
  MOORED_REAL_NAME(PyThreadState_Release)(token);
  if (MOORED_UNLIKELY(how.begun != 0)) recorder::left(how);
}
#endif

// pybind11's gil_scoped_acquire asks PyGILState_GetThisThreadState, which always answers at once
// and the truth: others ask the same with a lock held. Where it finds none it makes a state of its
// own, remembers it, counts its scopes in it from 0, and at the end of the outermost one clears it,
// deletes it and forgets it. There the state is spared, and kept. From then on PyGILState knows it,
// and pybind11 only attaches and detaches it.

MOORED_EXPORT void MOORED_HOOK_NAME(PyThreadState_Clear)(PyThreadState* state) {
  spared = nullptr;
  const bool ends = is_at_end_of_scopes(state);
  if (ends) scoped = nullptr;
  if (ends && keep_after_scopes()) {
    spared = state;
    if (recorder::is_on.load(std::memory_order_relaxed)) recorder::state_was_made();
  } else {
    if (recorder::is_on.load(std::memory_order_relaxed) && state == cpython::current())
      recorder::state_ends(state);
    MOORED_REAL_NAME(PyThreadState_Clear)(state);
  }
}

MOORED_EXPORT void MOORED_HOOK_NAME(PyThreadState_DeleteCurrent)() {
  if (spared == nullptr) {
    recorder::departure how{};
    if (recorder::is_on.load(std::memory_order_relaxed)) {
      recorder::state_was_made();
      how = recorder::leaving();
    }
    MOORED_REAL_NAME(PyThreadState_DeleteCurrent)();
    if (MOORED_UNLIKELY(how.begun != 0)) recorder::left(how);
    return;
  }
  spared = nullptr;
  (void)let_go();
  (void)PyEval_SaveThread();
}

MOORED_EXPORT void MOORED_HOOK_NAME(PyEval_AcquireThread)(PyThreadState* state) {
  if (MOORED_UNLIKELY(recorder::is_on.load(std::memory_order_relaxed))) {
    const recorder::arrival how =
        recorder::begin(__builtin_return_address(0), __builtin_frame_address(0));
    MOORED_REAL_NAME(PyEval_AcquireThread)(state);
    recorder::entered(how, false);
  } else {
    MOORED_REAL_NAME(PyEval_AcquireThread)(state);
  }
  if (keeps_state()) {
    if (state == this_thread.kept) begin_call(without_the_call);
  } else if (is_made_for_scopes(state)) {
    become_urgent();
    scoped = state;
  }
}

MOORED_EXPORT PyThreadState* MOORED_HOOK_NAME(PyEval_SaveThread)() {
  end_call(without_the_call);
  (void)let_go();
  return MOORED_REAL_NAME(PyEval_SaveThread)();
}

}  // extern "C"

}  // namespace moored::run
