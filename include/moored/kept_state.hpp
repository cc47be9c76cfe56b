// moored/kept_state.hpp: one thread's kept state: birth, reuse, retirement at thread exit, and who
// else counts on it.
//
// A state is kept by one PyGILState_Ensure that is not released. Every other binding on the thread
// then finds the same state, and nobody's Release can bring its count to zero. Two extensions that
// each carry a moored of their own, or moored and cffi, meet in that count: the last one to let go
// frees the state.
#pragma once

#include "interpreter.hpp"

namespace moored::inline v0::detail {

/// The state belongs to a life that is over. CPython has freed it, or will: it is never touched
/// again.
inline void forget_kept_state(thread_record& me) noexcept {
  me.kept = nullptr;
  me.kept_in = me.fast = 0;
  me.stale = cpython::old_state_haunts_next_life;
  the_gate.forgotten.fetch_add(1, std::memory_order_relaxed);
  the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
}

inline void let_go_of_kept_state(thread_record& me, bool thread_is_ending) noexcept;

/// Lets the state go when its thread ends. A C++ thread_local, because glibc runs those before it
/// clears pthread keys: in the destructor of a pthread key CPython may already have lost the state,
/// and PyGILState_Release is fatal.
struct retirement {
  retirement() noexcept = default;
  retirement(const retirement&) = delete;
  retirement& operator=(const retirement&) = delete;
  ~retirement() {
    thread_record& me = this_thread;
    me.retired =
        true;  // thread_locals destroyed after this one may still attach, by a temporary state
    if (me.kept != nullptr) let_go_of_kept_state(me, true);
  }
  void arm() const noexcept {
  }  // the first use of a thread_local on a thread is what registers its destructor
};

inline thread_local retirement this_threads_retirement;

/// Writes down that this thread keeps `state`; the Ensure that counts for it has been made.
inline void note_kept_state(thread_record& me, PyThreadState* state, life now,
                            bool made_here) noexcept {
  this_threads_retirement.arm();
  me.kept = state;
  me.kept_in = now;
  // Only a state that moored made is sure to live as long as the thread: one that Python made dies
  // with Python's own bookkeeping, before thread_locals are destroyed. Those are reached through
  // PyGILState, which knows.
  me.fast = made_here ? now : 0;
  the_gate.kept.fetch_add(1, std::memory_order_relaxed);
}

/// Makes the state of a thread that has none, keeps it, and leaves the thread attached. Counted in
/// at the gate.
inline void make_kept_state(thread_record& me, life now) noexcept {
  (void)PyGILState_Ensure();  // not released: this is the keeping
  the_gate.made.fetch_add(1, std::memory_order_relaxed);
  note_kept_state(me, cpython::this_thread_state(), now, true);
}

/// Takes back the Ensure of a kept state which is attached; the thread is detached afterwards.
inline void release_kept_state(bool made_here) noexcept {
  if (made_here) cpython::drop_locals_before_last_release();
  PyGILState_Release(PyGILState_UNLOCKED);
  if (made_here) the_gate.freed.fetch_add(1, std::memory_order_relaxed);
  the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
}

inline void let_go_of_kept_state(thread_record& me, bool thread_is_ending) noexcept {
  PyThreadState* const state = me.kept;
  const bool made_here = me.fast != 0;
  if (made_here && me.inside && !thread_is_ending) {
    me.letting_go = true;  // the attachment that stands on this state lets it go at its end
    return;
  }
  if (me.is_attached()) {
    if (thread_is_ending)
      return forget_kept_state(me);  // ended from within Python: nothing can be undone any more
    me.kept = nullptr;
    me.kept_in = me.fast = 0;
    // Whoever attached this thread has a count of his own; his Release frees the state.
    PyGILState_Release(PyGILState_LOCKED);
    if (made_here) the_gate.freed.fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
    return;
  }
  if (!me.inside && !the_gate.enter(me.kept_in)) return forget_kept_state(me);
  if (cpython::this_thread_state() == state) {
    me.kept = nullptr;
    me.kept_in = me.fast = 0;
    PyEval_RestoreThread(state);
    release_kept_state(made_here);
  } else {
    forget_kept_state(me);  // Python made the state, and ended it before us
    me.stale = false;
  }
  if (!me.inside) the_gate.leave_unused();
}

}  // namespace moored::inline v0::detail
