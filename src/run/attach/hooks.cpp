// hooks.cpp: see hooks.hpp.
//
// This library's own references lead to the real functions. Any thread calls these, at any time;
// the real function may never return, so no frame from which it is called has anything to destroy.
#include "../preload/weak_python.hpp"

#include "hooks.hpp"

#include <moored/detail/cpython/calls.hpp>

#include <atomic>

#include "../recorder/recorder.hpp"

namespace moored::run::attach {

namespace {

[[nodiscard]] bool is_recorded() noexcept {
  return __builtin_expect(static_cast<long>(recorder::is_on.load(std::memory_order_relaxed)), 1) !=
         0;
}

/// True for a thread for which the next call makes a state.
[[nodiscard]] bool has_no_state() noexcept {
  return cpython::this_thread_state() == nullptr;
}

PyGILState_STATE ensure() {
  if (!is_recorded()) return PyGILState_Ensure();
  const bool makes = has_no_state();
  const recorder::arrival how =
      recorder::begin(__builtin_return_address(0), __builtin_frame_address(0));
  const PyGILState_STATE token = PyGILState_Ensure();
  if (token == PyGILState_UNLOCKED) recorder::entered(how, makes);
  return token;
}

void release(PyGILState_STATE token) {
  const bool ends = token == PyGILState_UNLOCKED && is_recorded();
  const recorder::departure how = ends ? recorder::releasing() : recorder::departure{};
  PyGILState_Release(token);
  if (how.begun != 0) recorder::left(how);
}

#if MOORED_HAS_INTERPRETER_GUARDS
/// Records what `real` does, for the hook that was called from `caller` and has that frame.
template <class Real>
PyThreadStateToken* attach_by(Real real, const void* caller, const void* frame) {
  if (!is_recorded()) return real();
  const bool makes = has_no_state(), was_in = cpython::current() != nullptr;
  const recorder::arrival how = recorder::begin(caller, frame);
  PyThreadStateToken* const token = real();
  if (token != nullptr && was_in) recorder::entered_again();
  if (token != nullptr && !was_in) recorder::entered(how, makes);
  return token;
}

PyThreadStateToken* ensure_state(PyInterpreterGuard* guard) {
  return attach_by([guard] { return PyThreadState_Ensure(guard); }, __builtin_return_address(0),
                   __builtin_frame_address(0));
}

PyThreadStateToken* ensure_state_from_view(PyInterpreterView* view) {
  return attach_by([view] { return PyThreadState_EnsureFromView(view); },
                   __builtin_return_address(0), __builtin_frame_address(0));
}

void release_state(PyThreadStateToken* token) {
  const recorder::departure how = is_recorded() ? recorder::releasing() : recorder::departure{};
  PyThreadState_Release(token);
  if (how.begun != 0) recorder::left(how);
}
#endif

// What pybind11 calls for a thread without a state: it makes one, attaches it, and deletes it.

void acquire_thread(PyThreadState* state) {
  if (!is_recorded()) return PyEval_AcquireThread(state);
  const recorder::arrival how =
      recorder::begin(__builtin_return_address(0), __builtin_frame_address(0));
  PyEval_AcquireThread(state);
  recorder::entered(how, false);
}

PyThreadState* save_thread() {
  if (is_recorded()) (void)recorder::leaving();
  return PyEval_SaveThread();
}

void clear(PyThreadState* state) {
  if (is_recorded() && state == cpython::current()) recorder::state_ends(state);
  PyThreadState_Clear(state);
}

void delete_current() {
  recorder::departure how{};
  if (is_recorded()) {
    recorder::state_was_made();
    how = recorder::leaving();
  }
  PyThreadState_DeleteCurrent();
  if (how.begun != 0) recorder::left(how);
}

template <class Function>
[[nodiscard]] void* address(Function* of) noexcept {
  return reinterpret_cast<void*>(of);
}

}  // namespace

replacements hooks() noexcept {
  static const replacement all[] = {
    {"PyGILState_Ensure", address(&PyGILState_Ensure), address(&ensure), false},
    {"PyGILState_Release", address(&PyGILState_Release), address(&release), false},
#if MOORED_HAS_INTERPRETER_GUARDS
    {"PyThreadState_Ensure", address(&PyThreadState_Ensure), address(&ensure_state), false},
    {"PyThreadState_EnsureFromView", address(&PyThreadState_EnsureFromView),
     address(&ensure_state_from_view), false},
    {"PyThreadState_Release", address(&PyThreadState_Release), address(&release_state), false},
#endif
    {"PyEval_AcquireThread", address(&PyEval_AcquireThread), address(&acquire_thread), true},
    {"PyEval_SaveThread", address(&PyEval_SaveThread), address(&save_thread), true},
    {"PyThreadState_Clear", address(&PyThreadState_Clear), address(&clear), true},
    {"PyThreadState_DeleteCurrent", address(&PyThreadState_DeleteCurrent), address(&delete_current),
     true},
  };
  return {all, sizeof all / sizeof *all};
}

}  // namespace moored::run::attach
