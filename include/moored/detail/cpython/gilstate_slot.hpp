// moored/detail/cpython/gilstate_slot.hpp: where PyGILState looks for a thread's state, and the end
// of states whose threads have ended.
#pragma once

#include <Python.h>

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>

#include <atomic>
#include <optional>

#include "calls.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// Where PyGILState_Ensure looks for this thread's state.
///
/// A thread that runs on a state which is not its own (shared, borrowed) must show that state here,
/// or a nested PyGILState_Ensure of any other binding makes a second state and waits for the GIL
/// that the thread itself holds: a deadlock up to 3.12, a fatal error later. CPython has no call
/// for it.
///
/// Up to 3.14 the slot is a pthread key. Its number is private, so it is found by its effect: on a
/// thread that has just got its first state, exactly one key holds that state, and emptying that
/// key makes PyGILState forget it. If the search does not end in exactly that, the strategies that
/// need the slot are refused.
///
/// From 3.15 on it is a thread_local of libpython that only CPython writes: it binds a state to the
/// thread that attaches it, unless the state is still bound elsewhere. `unbind_and_detach` takes
/// that binding away, by public calls alone.
class gilstate_slot {
 public:
  /// What is shown is the state that was attached last, and cannot be chosen.
  static constexpr bool goes_by_attaching = MOORED_GILSTATE_IS_THREAD_LOCAL;
#if MOORED_GILSTATE_IS_THREAD_LOCAL
  [[nodiscard]] static bool find() noexcept {
    return true;
  }
  static void show(PyThreadState*) noexcept {}

  /// Detaches `state`, which is attached, so that the next thread that attaches it is bound to it.
  /// A throw-away state takes the binding and dies with it.
  static void unbind_and_detach(PyThreadState* state) noexcept {
    PyThreadState* const throw_away = PyThreadState_New(PyThreadState_GetInterpreter(state));
    if (throw_away == nullptr) {  // no memory: the binding stays, the state is still let go
      PyEval_SaveThread();
      return;
    }
    PyThreadState_Swap(throw_away);
    PyThreadState_Clear(throw_away);
    PyThreadState_DeleteCurrent();
  }
#else
  /// Finds the slot; false when it cannot be found. Caller: attached by PyGILState_Ensure, on a
  /// thread that had no state before.
  [[nodiscard]] static bool find() noexcept {
    PyThreadState* const mine = this_thread_state();
    std::optional<pthread_key_t> only;
    for (pthread_key_t key = 0; key < PTHREAD_KEYS_MAX; ++key) {
      if (pthread_getspecific(key) != mine) continue;
      if (only) return false;
      only = key;
    }
    if (!only || pthread_setspecific(*only, nullptr) != 0) return false;
    const bool was_it = this_thread_state() == nullptr;
    if (pthread_setspecific(*only, mine) != 0 || !was_it) return false;
    key_.store(*only, std::memory_order_relaxed);
    return true;
  }

  /// Puts `state`, or nothing, into this thread's slot. Any thread, after find().
  static void show(PyThreadState* state) noexcept {
    pthread_setspecific(key_.load(std::memory_order_relaxed), state);
  }

  static void unbind_and_detach(PyThreadState*) noexcept {
    PyEval_SaveThread();
  }

 private:
  static inline std::atomic<pthread_key_t> key_{0};
#endif
};

/// Deleting, from another thread, the state of a thread that has ended.
///
/// CPython documents that it can be done, without the GIL. But builds with assertions assert from
/// 3.12 on that a state is deleted on the thread whose PyGILState slot it is in, and an extension
/// cannot tell such a build from its headers. So it is put into the slot. On 3.15, where that is
/// not possible, a debug build keeps the state until the interpreter ends.
class dead_state {
 public:
  /// Whether states can be deleted. Caller: attached by PyGILState_Ensure, on a thread that had no
  /// state before. Looks until it has found how, then knows.
  [[nodiscard]] static bool find() noexcept {
    if (ready_.load(std::memory_order_acquire)) return true;
    if constexpr (gilstate_slot::goes_by_attaching) {
      if (dlsym(RTLD_DEFAULT, "_Py_NegativeRefcount") != nullptr) return false;
    } else if (deletes_by_slot && !gilstate_slot::find()) {
      return false;
    }
    ready_.store(true, std::memory_order_release);
    return true;
  }
  /// Caller: not attached, on a thread that has no state, or has this one. It has been cleared.
  static void remove(PyThreadState* state) noexcept {
    if constexpr (deletes_by_slot) {
      if (ready_.load(std::memory_order_acquire)) gilstate_slot::show(state);
    }
    PyThreadState_Delete(state);
  }

 private:
  static inline std::atomic<bool> ready_{false};
};

}  // namespace cpython
MOORED_NAMESPACE_END
