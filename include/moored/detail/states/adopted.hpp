// moored/detail/states/adopted.hpp: keeping a state that another binding made.
//
// keep_thread() inside a callback, and `moored run`, keep the states of threads whose code is not
// ours. That code may join the thread with the GIL held, which is harmless as long as the end of a
// thread does not wait for the GIL; thread_end.hpp says how such a state is freed.
#pragma once

#include <pthread.h>

#include <atomic>
#include <climits>
#include <new>
#include <optional>
#include <utility>

#include "kept.hpp"
#include "reaper.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// What this thread has adopted.
MOORED_CONSTINIT inline thread_local adoption* this_adoption = nullptr;

/// Ends the thread's side of it.
[[nodiscard]] inline adoption* take_adoption() noexcept;

/// The pthread key that holds this thread's adoption, so that its end is noticed; empty when the
/// process had no key left, or no memory for it.
///
/// An ending thread destroys thread_locals first, then goes through its keys in up to four rounds,
/// and everywhere there other code (a copy of moored in another extension, GLib) may enter Python
/// once more. So the state is handed over late. CPython's own key was emptied in the first round,
/// so that no code on this thread finds the state any more. The very last round is for what looks
/// after the thread itself: allocators, sanitizers. No Python is called here.
[[nodiscard]] inline std::optional<pthread_key_t> adoption_slot() noexcept;

/// This thread keeps nothing any more; the state that it kept, made or adopted, is left to Python.
inline void forget_state(thread_record& me, bool shows) noexcept {
  adoption* const its = take_adoption();
  if (its != nullptr) the_keepers.hold_no_more(its->listed);
  forget_kept_state(me, shows);
  if (its != nullptr) its->drop();
}

/// The thread's keeping ends, and the state goes the way of thread_end.hpp: what it had adopted.
/// The thread is counted in for the state. Null when there is nothing, or nothing can be undone:
/// the thread ended from within Python, or the gate is closing.
[[nodiscard]] inline adoption* begin_ending(thread_record& me) noexcept {
  adoption* const its = this_adoption;
  if (its == nullptr || is_attached(me)) return nullptr;
  its->counted_in = the_gate.enter(its->born_in);
  if (its->counted_in == nullptr) return nullptr;
  (void)take_adoption();
  me.keep_nothing();  // the list keeps its entry until the state is cleared
  me.keep_no_more(keeping::ended);
  return its;
}

inline void on_thread_end(void* value) noexcept {
  auto* const its = static_cast<adoption*>(value);
  thread_record& me = this_thread;
  if (its->rounds == 0 && begin_ending(me) == nullptr) {
    forget_state(me, true);
    return me.keep_no_more(keeping::ended);
  }
  if (++its->rounds < PTHREAD_DESTRUCTOR_ITERATIONS - 1 &&
      pthread_setspecific(*adoption_slot(), its) == 0)
    return;
  if constexpr (cpython::has_gil) {
    the_reaper.take(*its);
  } else {
    free_without_gil(*its);
  }
}

/// What begin_ending() gave is ended in the last key round after all. Until then code of this
/// thread's may still find the state. False when that is not possible.
[[nodiscard]] inline bool put_off_ending(adoption& its) noexcept {
  its.rounds = 1;
  return pthread_setspecific(*adoption_slot(), &its) == 0;
}

inline std::optional<pthread_key_t> adoption_slot() noexcept {
  static const std::optional<pthread_key_t> slot = []() -> std::optional<pthread_key_t> {
    pthread_key_t made = 0;
    stay_loaded();
    if (pthread_key_create(&made, on_thread_end) != 0) return std::nullopt;
    const int failed = pthread_atfork(nullptr, nullptr, [] {
      the_ended.after_fork();
      the_reaper.after_fork();
      if (adoption* const its = take_adoption()) its->drop();
    });
    if (failed == 0) {
      the_gate.end_own_threads.store(
          [](const deadline& due) noexcept { the_reaper.wait_for_end(due); });
      return made;
    }
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

/// Other code clears the dict of an adopted state.
inline void on_state_cleared(PyObject* capsule) noexcept {
  auto* const its = static_cast<adoption*>(PyCapsule_GetPointer(capsule, adoption_key));
  if (its == nullptr) return PyErr_Clear();
  if (!its->released) {
    its->cleared = true;
    the_keepers.hold_no_more(its->listed);
    if (this_adoption == its) forget_state(this_thread, false);
    if (the_ended.forget(*its)) finish_adoption(*its, false);
  }
  its->drop();
}

/// os.fork() is about to fork this process: no thread of ours is to be there, and nothing that was
/// left behind. Attached; lets go of the GIL when the reaper waits for it.
inline PyObject* end_reaper_before_fork(PyObject*, PyObject*) {
  constexpr std::chrono::milliseconds longest{50};
  the_reaper.clear_left();
  if (the_reaper.is_there()) {
    PyThreadState* const me = PyEval_SaveThread();
    the_reaper.wait_for_end(deadline(longest));
    PyEval_RestoreThread(me);
  }
  Py_RETURN_NONE;
}

/// Has Python call that, once in each epoch. Attached to the main interpreter; leaves no exception.
/// Without memory for it, a fork may meet the reaper's thread. Not noexcept: a late thread may be
/// unwound in the import, see versions.hpp.
inline void prepare_for_forks(epoch now) {
  static std::atomic<epoch> prepared{0};
  if (prepared.exchange(now, std::memory_order_relaxed) == now) return;
  static PyMethodDef method = {"moored_before_fork", end_reaper_before_fork, METH_NOARGS,
                               "Wait for the native thread that frees thread states."};
  PyObject* const module = PyImport_ImportModule("posix");
  PyObject* const enroll =
      module != nullptr ? PyObject_GetAttrString(module, "register_at_fork") : nullptr;
  PyObject* const names = PyDict_New();
  PyObject* const none = PyTuple_New(0);
  PyObject* const callback = PyCFunction_New(&method, nullptr);
  PyObject* done = nullptr;
  if (enroll != nullptr && names != nullptr && none != nullptr && callback != nullptr &&
      PyDict_SetItemString(names, "before", callback) == 0)
    done = PyObject_Call(enroll, none, names);
  if (done == nullptr) PyErr_Clear();
  for (PyObject* const one : {done, callback, none, names, enroll, module}) Py_XDECREF(one);
}

/// True when this thread keeps a state, made or adopted, in the epoch that is open now.
[[nodiscard]] inline bool keeps_state(const thread_record& me) noexcept {
  return me.kept != nullptr && me.kept_in == the_gate.now();
}

inline void release_adopted_state(thread_record& me) noexcept;

/// Releases the thread's state, made or adopted; a made one with the attachment that stands on it.
inline void release_kept_state(thread_record& me) noexcept {
  if (this_adoption != nullptr) {
    release_adopted_state(me);
  } else {
    release_made_state(me, false);
  }
}

/// keep_thread() on a thread that keeps its state already. False when the limit has it released:
/// now, or with the attachment that it is in.
[[nodiscard]] inline bool keep_on(thread_record& me) noexcept {
  if (me.counted_in == nullptr) {
    come_back(me);
    if (me.leaves() == departure::over_limit) {
      release_kept_state(me);
      return false;
    }
    me.listed->rest(the_gate.clock());
  }
  if (me.leaves() == departure::over_limit) return false;
  me.leave_with_attachment(departure::none);
  return true;
}

/// Keeps the state by which another binding has attached this thread. Caller: attached.
///
/// False on a state that PyGILState does not know, or of a subinterpreter; when the gate is
/// closing, the thread is ending, or memory is short. No exception is left. Called again it does
/// nothing. Not noexcept, as gate::open.
[[nodiscard]] inline bool adopt_attached_state() {
  thread_record& me = this_thread;
  if (me.is_ending() || me.keeps() == keeping::stale || me.is_lent()) return false;
  PyThreadState* const state = cpython::this_thread_state();
  if (state == nullptr || state != cpython::current()) return false;
  if (PyThreadState_GetInterpreter(state) != PyInterpreterState_Main()) return false;
  const auto slot = adoption_slot();
  if (!slot) return false;
  if (!the_gate.open()) {
    PyErr_Clear();
    return false;
  }
  const epoch now = the_gate.now();
  if (!is_open(now)) return false;
  if (me.kept != nullptr && me.kept_in == now) return keep_on(me);
  if (me.kept != nullptr) forget_state(me, true);
  if (me.keeps() != keeping::nothing) return false;
  if (!cpython::has_gil && !cpython::gilstate_slot::find()) return false;  // see free_without_gil()
  PyObject* const locals = PyThreadState_GetDict();
  if (locals == nullptr) return false;
  if (PyDict_GetItemString(locals, adoption_key) != nullptr)
    return true;  // by another copy of moored
  auto* const its = new (std::nothrow) adoption;
  if (its == nullptr) return false;
  its->state = state;
  its->born_in = now;
  its->thread = pthread_self();
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
  cpython::state_contents::ensure(state);  // not released: this is the keeping
  this_adoption = its;
  start_keeping(me, keeping::adopted, state, now);
  its->listed = me.listed;
  the_keepers.hold_at_forks(its->listed, state);
  the_gate.adopted.fetch_add(1, std::memory_order_relaxed);
  cpython::state_contents::find(state);
  (void)cpython::dead_state::find();
  if constexpr (cpython::has_gil) {
    prepare_for_forks(now);
    the_reaper.clear_left();
  }
  return true;
}

/// Gives an adopted state back to the binding that made it, on its own thread, attached or not.
inline void release_adopted_state(thread_record& me) noexcept {
  adoption* const its = this_adoption;
  const bool was_attached = is_attached(me);
  if (was_attached && cpython::current() != its->state) return;  // visiting: not now
  attendance* present = nullptr;
  if (!was_attached) {
    const bool counts_in = me.counted_in == nullptr;
    if (counts_in) present = the_gate.enter(its->born_in);
    if (counts_in ? present == nullptr : the_gate.is_over(its->born_in, true))
      return forget_state(me, true);
    if (its->cleared) {
      forget_state(me, false);
      if (present != nullptr) the_gate.leave_unused(*present);
      return;
    }
    cpython::restore(its->state);
  }
  its->released = true;
  (void)take_adoption();
  the_keepers.hold_no_more(its->listed);
  count_if_over_limit(me);
  stop_keeping(me);
  if (PyObject* const locals = PyThreadState_GetDict()) {
    if (PyDict_DelItemString(locals, adoption_key) != 0) PyErr_Clear();
  }
  its->drop();
  if (!was_attached) cpython::drop_locals_before_last_release(adoption_key);
  cpython::release(was_attached ? PyGILState_LOCKED : PyGILState_UNLOCKED);
  the_gate.freed.fetch_add(1, std::memory_order_relaxed);
  if (present != nullptr) the_gate.leave_unused(*present);
}

}  // namespace detail
MOORED_NAMESPACE_END
