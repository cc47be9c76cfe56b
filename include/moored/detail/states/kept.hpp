// moored/detail/states/kept.hpp: one thread's kept state: birth, reuse, and its end with the
// thread.
//
// A state is kept by one PyGILState_Ensure that is not released. Every other binding on the thread
// then finds the same state, and no other Release can bring its count to zero. Two extensions that
// each carry a moored of their own, or moored and cffi, meet in that count: the last one to release
// frees the state.
#pragma once

#include <utility>

#include "../gate/closing.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Where an adopted state is marked, in its dict; see adopted.hpp.
inline constexpr const char* adoption_key = "moored.adoption";

/// The thread has a seat at the gate in the epoch `now`, if there is memory for it.
inline void sit(thread_record& me, epoch now) noexcept {
  if (me.seat == nullptr) {
    me.seat = the_gate.take_seat(now);
  } else if (me.counted_in != me.seat) {
    me.seat->opened.store(now, std::memory_order_relaxed);
  }
}
/// The thread ends. One that is still inside by its seat keeps it for good.
inline void get_up(thread_record& me) noexcept {
  if (me.seat == nullptr || me.counted_in == me.seat || me.keeps() == keeping::made) return;
  gate::give_back(*std::exchange(me.seat, nullptr));
}

/// The thread has begun to keep a state, with which the limit may be exceeded.
inline void start_keeping(thread_record& me, keeping what, PyThreadState* state,
                          epoch now) noexcept {
  if (what == keeping::made) sit(me, now);
  me.keep(what, state, now);
  me.listed = the_keepers.add(now, what == keeping::made ? me.seat : nullptr);
  if (me.counted_in == nullptr) me.listed->rest(the_gate.clock());
  the_gate.kept.fetch_add(1, std::memory_order_relaxed);
}

/// The thread is about to use the state that it keeps.
inline void come_back(thread_record& me) noexcept {
  if (MOORED_UNLIKELY(me.listed->come_back())) me.leave_with_attachment(departure::over_limit);
}

/// The thread is no longer counted in.
inline void leave_gate(thread_record& me) noexcept {
  me.leave().leave();
}
/// The same, after an entry that was no attachment.
inline void leave_gate_unused(thread_record& me) noexcept {
  the_gate.leave_unused(me.leave());
}

/// The thread keeps nothing any more; its state is still counted as kept.
inline void hand_over(thread_record& me) noexcept {
  the_keepers.remove(me.listed);
  me.keep_nothing();
}
/// It keeps nothing any more.
inline void stop_keeping(thread_record& me) noexcept {
  hand_over(me);
  the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
}

/// The state is CPython's: its interpreter is gone or going, or other code has deleted it. It is
/// never touched again. `shows`: CPython may still show it to this thread.
inline void forget_kept_state(thread_record& me, bool shows) noexcept {
  stop_keeping(me);
  if (shows && cpython::old_state_haunts_next_epoch) me.keep_no_more(keeping::stale);
  the_gate.forgotten.fetch_add(1, std::memory_order_relaxed);
}

inline void release_made_state(thread_record& me, bool thread_is_ending) noexcept;

/// Releases the state when its thread ends. A C++ thread_local, because glibc runs those before it
/// clears pthread keys: in the destructor of a pthread key CPython may already have lost the state,
/// and PyGILState_Release is fatal.
struct made_state_end {
  made_state_end() noexcept = default;
  made_state_end(const made_state_end&) = delete;
  made_state_end& operator=(const made_state_end&) = delete;
  ~made_state_end() {
    thread_record& me = this_thread;
    if (me.keeps() == keeping::made) release_made_state(me, true);
    // thread_locals destroyed after this one may still attach, by a temporary state
    if (me.kept == nullptr) me.keep_no_more(keeping::ended);
    get_up(me);
  }
  // The first use of a thread_local on a thread is what registers its destructor.
  void arm() const noexcept { stay_loaded(); }
};

inline thread_local made_state_end this_threads_made_state_end;

/// Makes the state of a thread that has none, keeps it, and leaves the thread attached. Counted in
/// at the gate. False when there is no memory for it, or shutdown has given up on the thread.
[[nodiscard]] inline bool make_kept_state(thread_record& me, epoch now) noexcept {
  if (!the_gate.try_ensure(now)) return false;  // not released: this is the keeping
  this_threads_made_state_end.arm();
  start_keeping(me, keeping::made, cpython::this_thread_state(), now);
  the_gate.made.fetch_add(1, std::memory_order_relaxed);
  return true;
}

inline void count_if_over_limit(const thread_record& me) noexcept {
  if (me.leaves() == departure::over_limit)
    the_gate.over_limit.fetch_add(1, std::memory_order_relaxed);
}

/// Takes back the last Ensure of the attached state, whose thread-locals are finalised before.
///
/// PyGILState_Release lets go of the GIL first and frees the state then. An end that waits for no
/// thread may have taken tracemalloc's lock down in between: there the state stays with the thread,
/// and finalization frees it.
inline void release_for_good(PyGILState_STATE token) noexcept {
  if (MOORED_UNLIKELY(the_gate.opened_at_exit())) {
    if (PyObject* const locals = PyThreadState_GetDict())
      cpython::drop_locals(locals, adoption_key);
    the_gate.forgotten.fetch_add(1, std::memory_order_relaxed);
    PyEval_SaveThread();
  } else {
    cpython::drop_locals_before_last_release(adoption_key);
    the_gate.freed.fetch_add(1, std::memory_order_relaxed);
    cpython::release(token);
  }
}

/// Takes back the Ensure of this thread's own state, which is attached. `token` is what the thread
/// is to be afterwards: unlocked, or attached by other code, which has a count of its own.
inline void free_made_state(thread_record& me, PyGILState_STATE token) noexcept {
  count_if_over_limit(me);
  stop_keeping(me);
  if (token == PyGILState_UNLOCKED) return release_for_good(token);
  cpython::release(token);
  the_gate.freed.fetch_add(1, std::memory_order_relaxed);
}

/// Releases the state that moored made for this thread, now, or with the attachment that stands on
/// it.
inline void release_made_state(thread_record& me, bool thread_is_ending) noexcept {
  if (me.where() != presence::outside && !thread_is_ending) {
    if (me.leaves() == departure::none) me.leave_with_attachment(departure::asked);
    return;
  }
  if (is_attached(me)) {
    // Ended from within Python: nothing can be undone any more. In another interpreter the state is
    // not the attached one.
    if (thread_is_ending || cpython::current() != me.kept) return forget_kept_state(me, true);
    return free_made_state(me, PyGILState_LOCKED);
  }
  // An ending thread that is still counted in, within a detachment, is let in by that.
  const bool counts_in = me.counted_in == nullptr;
  attendance* const present = counts_in ? the_gate.enter(me.kept_in) : nullptr;
  if (counts_in ? present == nullptr : the_gate.is_over(me.kept_in, true))
    return forget_kept_state(me, true);
  if (cpython::this_thread_state() == me.kept) {
    cpython::restore(me.kept);
    free_made_state(me, PyGILState_UNLOCKED);
  } else {
    forget_kept_state(me, false);  // Python made the state, and ended it before us
  }
  if (present != nullptr) the_gate.leave_unused(*present);
}

}  // namespace detail
MOORED_NAMESPACE_END
