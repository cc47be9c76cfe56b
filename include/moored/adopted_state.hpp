// moored/adopted_state.hpp: keeping a state that somebody else's binding made, and the reaper that
// frees it when its thread has ended.
//
// keep_thread() inside a callback, and `moored run`, keep the states of threads whose code is not
// ours. Whoever wrote that code may join the thread with the GIL held, which is harmless as long as
// the end of a thread does not want the GIL. So an adopted state is not freed by its own thread:
// the thread hands it to the reaper, a native thread that exists only while there is something to
// free.
//
// Without a GIL nobody else may clear a state (cpython::has_gil), and there is no GIL to wait for:
// there the thread frees it.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "kept_state.hpp"

namespace moored::inline v0::detail {

/// One adopted state. Shared by the thread that keeps it (then by the reaper) and by a capsule in
/// the state's dict; the last of the two deletes it.
///
/// The capsule marks the state as adopted, so that only one of several copies of moored in a
/// process adopts it. And it is told when somebody else clears the state: Python at the end of its
/// own thread or of the interpreter, cffi for the threads that cffi keeps. From then on the state
/// is not ours to touch.
struct adoption {
  PyThreadState* state;
  life born_in;
  bool released = false;             ///< We clear the state ourselves. The GIL guards it.
  std::atomic<bool> cleared{false};  ///< Somebody else did.
  int rounds = 0;  ///< Of pthread-key destructors that its ending thread has gone through.
  adoption* next = nullptr;
  std::atomic<int> owners{2};

  void drop() noexcept {
    if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

/// What this thread has adopted.
inline constinit thread_local adoption* this_adoption = nullptr;

/// Ends the thread's side of it.
[[nodiscard]] inline adoption* take_adoption() noexcept;

/// Frees the states of threads that have ended.
///
/// Its members are never destroyed: the thread may still be waiting when the process ends.
class reaper {
 public:
  /// Called by a thread in its last moments, counted in at the gate. The count goes with the state.
  void take(adoption* dead) noexcept {
    dead->next = dead_.load(std::memory_order_relaxed);
    while (!dead_.compare_exchange_weak(dead->next, dead, std::memory_order_seq_cst)) {
    }
    if (running_.exchange(true, std::memory_order_seq_cst) || start()) return;
    running_.store(false, std::memory_order_release);
    give_up();
  }

  /// The child of a fork has no reaper, and CPython has freed the states of all other threads.
  void after_fork() noexcept {
    dead_.store(nullptr, std::memory_order_relaxed);
    running_.store(false, std::memory_order_relaxed);
  }

  /// A state of which this is the end: freed, or left to Python.
  static void finish(adoption* dead, bool freed) noexcept {
    (freed ? the_gate.freed : the_gate.forgotten).fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
    dead->drop();
    the_gate.leave_unused();
  }

 private:
  [[nodiscard]] bool start() noexcept {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // The program's signals are not for this thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const auto main = [](void* self) -> void* {
      static_cast<reaper*>(self)->work();
      return nullptr;
    };
    const bool started = pthread_create(&thread, &attributes, main, this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return started;
  }

  // Not noexcept: up to 3.13.0 entering an interpreter that is gone unwinds the thread.
  void work() {
    // A thread that lingers is one more thread at a fork; one that does not is made anew for every
    // thread that ends.
    constexpr int looks = 10;
    for (int idle = 0;;) {
      if (adoption* const batch = dead_.exchange(nullptr, std::memory_order_acq_rel)) {
        free(batch);
        idle = 0;
      } else if (++idle <= looks) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } else {
        // take() adds and then looks whether we run; we say that we do not, and then look again.
        running_.store(false, std::memory_order_seq_cst);
        if (dead_.load(std::memory_order_seq_cst) == nullptr || running_.exchange(true)) return;
        idle = 0;
      }
    }
  }

  /// The states are cleared with a state of the reaper's own attached, so that what their
  /// thread-locals do at their end, entering Python by another binding included, is done on a state
  /// that PyGILState knows. They are deleted without it, which CPython allows: from 3.12 on
  /// deleting a state takes away the PyGILState binding of the thread that does it.
  ///
  /// Without memory for the reaper's own state they are left to Python.
  void free(adoption* batch) {
    const auto token = the_gate.try_ensure(the_gate.now());
    const bool can_delete = token && cpython::dead_state::can_be_deleted();
    for (adoption* dead = batch; dead != nullptr; dead = dead->next) {
      if (dead->cleared || !can_delete) continue;
      dead->released = true;
      PyThreadState_Clear(dead->state);
    }
    if (token) PyGILState_Release(*token);
    while (batch != nullptr) {
      adoption* const dead = batch;
      batch = dead->next;
      if (dead->released) cpython::dead_state::remove(dead->state);
      finish(dead, dead->released);
    }
  }

  /// No thread could be made: the states stay until Python frees them with the interpreter.
  void give_up() noexcept {
    adoption* batch = dead_.exchange(nullptr, std::memory_order_acq_rel);
    while (batch != nullptr) {
      adoption* const dead = batch;
      batch = dead->next;
      finish(dead, false);
    }
  }

  std::atomic<adoption*> dead_{nullptr};
  std::atomic<bool> running_{false};
};

inline constinit reaper the_reaper;

/// What the reaper does elsewhere, on the thread whose state it is. Counted in at the gate.
inline void free_without_gil(adoption* its) noexcept {
  const bool frees = !its->cleared;
  if (frees) {
    its->released = true;
    cpython::gilstate_slot::show(its->state);
    cpython::restore(its->state);
    PyThreadState_Clear(its->state);
    PyThreadState_DeleteCurrent();
  }
  reaper::finish(its, frees);
}

/// The pthread key that holds this thread's adoption, so that its end is noticed; empty when the
/// process had no key left, or no memory for it.
///
/// An ending thread destroys thread_locals first, then goes through its keys in up to four rounds,
/// and everywhere there somebody (a copy of moored in another extension, GLib) may enter Python
/// once more. So the state is handed over late. CPython's own key was emptied in the first round,
/// so that nobody on this thread finds the state any more. The very last round is for those who
/// look after the thread itself: allocators, sanitizers. No Python is called here.
[[nodiscard]] inline std::optional<pthread_key_t> adoption_slot() noexcept;

/// This thread keeps nothing any more; the state that it kept, made or adopted, is left to Python.
inline void forget_state(thread_record& me) noexcept {
  forget_kept_state(me);
  if (adoption* const its = take_adoption()) its->drop();
}

inline void on_thread_end(void* value) noexcept {
  auto* const its = static_cast<adoption*>(value);
  thread_record& me = this_thread;
  if (its->rounds == 0) {
    me.retired = true;
    // Ended from within Python, or closing: nothing can be undone.
    if (me.is_attached() || !the_gate.enter(its->born_in)) return forget_state(me);
    this_adoption = nullptr;
    stop_keeping(me);
  }
  if (++its->rounds < PTHREAD_DESTRUCTOR_ITERATIONS - 1 &&
      pthread_setspecific(*adoption_slot(), its) == 0)
    return;
  if constexpr (cpython::has_gil) {
    the_reaper.take(its);
  } else {
    free_without_gil(its);
  }
}

inline std::optional<pthread_key_t> adoption_slot() noexcept {
  static const std::optional<pthread_key_t> slot = []() -> std::optional<pthread_key_t> {
    pthread_key_t made = 0;
    if (pthread_key_create(&made, on_thread_end) != 0) return std::nullopt;
    const int failed = pthread_atfork(nullptr, nullptr, [] {
      the_reaper.after_fork();
      if (adoption* const its = take_adoption()) its->drop();
    });
    if (failed == 0) return made;
    pthread_key_delete(made);
    return std::nullopt;
  }();
  return slot;
}

inline adoption* take_adoption() noexcept {
  adoption* const its = std::exchange(this_adoption, nullptr);
  if (its != nullptr) pthread_setspecific(*adoption_slot(), nullptr);
  return its;
}

/// Somebody clears the dict of an adopted state.
inline void on_state_cleared(PyObject* capsule) noexcept {
  auto* const its = static_cast<adoption*>(PyCapsule_GetPointer(capsule, adoption_key));
  if (its == nullptr) return PyErr_Clear();
  if (!its->released) {
    its->cleared = true;
    if (this_adoption == its) {
      forget_state(this_thread);
      this_thread.stale = false;
    }
  }
  its->drop();
}

/// True when this thread keeps a state, made or adopted, in the life that is open now.
[[nodiscard]] inline bool keeps_state(const thread_record& me) noexcept {
  return me.kept != nullptr && me.kept_in == the_gate.now();
}

inline void release_adopted_state(thread_record& me) noexcept;

/// Lets go of the thread's state, made or adopted; a made one at the end of the attachment that
/// stands on it.
inline void let_go(thread_record& me) noexcept {
  if (this_adoption != nullptr) {
    release_adopted_state(me);
  } else {
    let_go_of_kept_state(me, false);
  }
}

/// keep_thread() on a thread that keeps its state already. False when the limit has it let go: now,
/// or at the end of the attachment that it is in.
[[nodiscard]] inline bool keep_on(thread_record& me) noexcept {
  if (!me.inside) {
    come_back(me);
    if (me.letting_go == departure::over_limit) {
      let_go(me);
      return false;
    }
    me.listed->rest(the_gate.clock());
  }
  if (me.letting_go == departure::over_limit) return false;
  me.letting_go = departure::none;
  return true;
}

/// Keeps the state by which another binding has attached this thread. Caller: attached.
///
/// False on a state that PyGILState does not know, or of a subinterpreter; when the gate is
/// closing, the thread is ending, or memory is short. No exception is left. Called again it does
/// nothing. Not noexcept, as gate::open.
[[nodiscard]] inline bool adopt_attached_state() {
  thread_record& me = this_thread;
  if (me.retired || me.lending || me.guest != nullptr) return false;
  PyThreadState* const state = cpython::this_thread_state();
  if (state == nullptr || state != cpython::current()) return false;
  if (PyThreadState_GetInterpreter(state) != PyInterpreterState_Main()) return false;
  const auto slot = adoption_slot();
  if (!slot) return false;
  if (!the_gate.open()) {
    PyErr_Clear();
    return false;
  }
  const life now = the_gate.now();
  if (!gate::is_open(now)) return false;
  if (me.kept != nullptr && me.kept_in == now) return keep_on(me);
  if (me.kept != nullptr) forget_state(me);
  if (!cpython::has_gil && !cpython::gilstate_slot::find()) return false;  // see free_without_gil()
  PyObject* const locals = PyThreadState_GetDict();
  if (locals == nullptr) return false;
  if (PyDict_GetItemString(locals, adoption_key) != nullptr)
    return true;  // by another copy of moored
  auto* const its = new (std::nothrow) adoption{.state = state, .born_in = now};
  if (its == nullptr) return false;
  PyObject* const capsule = PyCapsule_New(its, adoption_key, on_state_cleared);
  if (capsule == nullptr) its->drop();
  const bool marked = capsule != nullptr && pthread_setspecific(*slot, its) == 0 &&
                      PyDict_SetItemString(locals, adoption_key, capsule) == 0;
  if (!marked) {
    pthread_setspecific(*slot, nullptr);
    its->released = true;
    Py_XDECREF(capsule);
    its->drop();
    PyErr_Clear();
    return false;
  }
  Py_DECREF(capsule);
  (void)PyGILState_Ensure();  // not released: this is the keeping
  this_adoption = its;
  start_keeping(me, state, now);
  the_gate.adopted.fetch_add(1, std::memory_order_relaxed);
  return true;
}

/// Gives an adopted state back to whoever made it, from its own thread, attached or not.
inline void release_adopted_state(thread_record& me) noexcept {
  adoption* const its = this_adoption;
  const bool was_attached = me.is_attached();
  if (!was_attached) {
    if (!me.inside && !the_gate.enter(its->born_in)) return forget_state(me);
    if (its->cleared) {
      forget_state(me);
      me.stale = false;
      if (!me.inside) the_gate.leave_unused();
      return;
    }
    cpython::restore(its->state);
  }
  its->released = true;
  (void)take_adoption();
  count_if_over_limit(me);
  stop_keeping(me);
  if (PyObject* const locals = PyThreadState_GetDict()) {
    if (PyDict_DelItemString(locals, adoption_key) != 0) PyErr_Clear();
  }
  its->drop();
  if (!was_attached) cpython::drop_locals_before_last_release(adoption_key);
  PyGILState_Release(was_attached ? PyGILState_LOCKED : PyGILState_UNLOCKED);
  the_gate.freed.fetch_add(1, std::memory_order_relaxed);
  the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
  if (!was_attached && !me.inside) the_gate.leave_unused();
}

}  // namespace moored::inline v0::detail
