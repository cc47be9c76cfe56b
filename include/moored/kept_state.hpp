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

/// Where an adopted state is marked, in its dict; see adopted_state.hpp.
inline constexpr const char* adoption_key = "moored.adoption";

/// The thread has begun to keep a state, which makes others idle too long perhaps.
inline void start_keeping(thread_record& me, PyThreadState* state, life now) noexcept {
  the_keepers.remove(me.listed);
  me.kept = state;
  me.kept_in = now;
  me.listed = the_keepers.add(now);
  if (!me.inside) me.listed->rest(the_gate.clock());
  the_gate.kept.fetch_add(1, std::memory_order_relaxed);
}

/// The thread is about to use the state that it keeps.
inline void come_back(thread_record& me) noexcept {
  if (me.listed->come_back()) [[unlikely]]
    me.letting_go = departure::over_limit;
}

/// It keeps nothing any more.
inline void stop_keeping(thread_record& me) noexcept {
  the_keepers.remove(me.listed);
  me.listed = &unlisted;
  me.kept = nullptr;
  me.kept_in = me.fast = 0;
  me.letting_go = departure::none;
}

/// The state belongs to a life that is over. CPython has freed it, or will: it is never touched
/// again.
inline void forget_kept_state(thread_record& me) noexcept {
  stop_keeping(me);
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
    // thread_locals destroyed after this one may still attach, by a temporary state
    me.retired = true;
    if (me.fast != 0) let_go_of_kept_state(me, true);
  }
  // The first use of a thread_local on a thread is what registers its destructor.
  void arm() const noexcept {}
};

inline thread_local retirement this_threads_retirement;

/// Makes the state of a thread that has none, keeps it, and leaves the thread attached. Counted in
/// at the gate. False when there is no memory for it, or shutdown has given up on the thread.
[[nodiscard]] inline bool make_kept_state(thread_record& me, life now) noexcept {
  if (!the_gate.try_ensure(now)) return false;  // not released: this is the keeping
  this_threads_retirement.arm();
  start_keeping(me, cpython::this_thread_state(), now);
  me.fast = now;
  the_gate.made.fetch_add(1, std::memory_order_relaxed);
  return true;
}

inline void count_if_over_limit(const thread_record& me) noexcept {
  if (me.letting_go == departure::over_limit)
    the_gate.over_limit.fetch_add(1, std::memory_order_relaxed);
}

/// Takes back the Ensure of this thread's own state, which is attached. `token` is what the thread
/// is to be afterwards: unlocked, or attached by somebody who has a count of his own.
inline void release_kept_state(thread_record& me, PyGILState_STATE token) noexcept {
  count_if_over_limit(me);
  stop_keeping(me);
  if (token == PyGILState_UNLOCKED) cpython::drop_locals_before_last_release(adoption_key);
  PyGILState_Release(token);
  the_gate.freed.fetch_add(1, std::memory_order_relaxed);
  the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
}

inline void let_go_of_kept_state(thread_record& me, bool thread_is_ending) noexcept {
  if (me.inside && !thread_is_ending) {
    // The attachment that stands on this state lets it go at its end.
    if (me.letting_go == departure::none) me.letting_go = departure::asked;
    return;
  }
  if (me.is_attached()) {
    // Ended from within Python: nothing can be undone any more.
    if (thread_is_ending) return forget_kept_state(me);
    return release_kept_state(me, PyGILState_LOCKED);
  }
  if (!me.inside && !the_gate.enter(me.kept_in)) return forget_kept_state(me);
  if (cpython::this_thread_state() == me.kept) {
    cpython::restore(me.kept);
    release_kept_state(me, PyGILState_UNLOCKED);
  } else {
    forget_kept_state(me);  // Python made the state, and ended it before us
    me.stale = false;
  }
  if (!me.inside) the_gate.leave_unused();
}

}  // namespace moored::inline v0::detail
