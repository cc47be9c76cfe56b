// moored/guest_state.hpp: running on a state that is not this thread's own: the side state and the
// borrowed state.
//
// Both come from the 2011 report and are kept for study. What the callback sees is another
// thread's: threading.local, contextvars, sys._current_frames and PyThreadState_SetAsyncExc go by
// the state, not by the thread. Use them only for callbacks that do not care; docs/strategies.md
// lists what is safe with which version.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "interpreter.hpp"

namespace moored::inline v0::detail {

/// A state that threads use one at a time.
struct shared_state {
  std::mutex turn;  ///< Held by the thread that is using it. Never waited for with the GIL held.
  PyThreadState* state = nullptr;  ///< Guarded by `turn`. Null: there is none to be had now.
  life born_in = 0;                ///< Guarded by `turn`. Side only.
};

inline shared_state the_side;
inline shared_state the_loan;

enum class guests : std::uint8_t { unknown, possible, impossible };
inline constinit std::atomic<guests> the_guests{guests::unknown};

/// In a forked child whoever held a turn did not come along, and CPython has freed the states.
inline void forget_guests_after_fork() noexcept {
  for (shared_state* const shared : {&the_side, &the_loan}) {
    if (this_thread.guest != nullptr && this_thread.guest == shared->state) continue;
    new (&shared->turn) std::mutex;
    shared->state = nullptr;
    if (shared == &the_side) the_gate.forgotten.fetch_add(the_gate.side.exchange(0));
  }
}

/// Runs `work` on a thread that ends with it; false when there is no thread to be had.
template <class Work>
[[nodiscard]] bool on_a_thread_of_its_own(Work work) noexcept {
  try {
    std::thread(work).join();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

/// Why a thread may not run on a strange state at all; none: it may.
///
/// Found out on a thread of its own, because the slot can only be found on a thread that has just
/// got its first state. By the first who asks, perhaps by several at once: a static of this
/// function would make a forked child wait for ever for a thread that did not come along.
[[nodiscard]] inline refusal against_guests(life current) noexcept {
  guests now = the_guests.load(std::memory_order_acquire);
  if (now == guests::unknown) {
    bool looked = false;
    bool found = false;
    const bool ran = on_a_thread_of_its_own([&] {
      const auto token = the_gate.try_ensure(current);
      if (!token) return;
      looked = true;
      found = cpython::gilstate_slot::find();
      PyGILState_Release(*token);
    });
    if (!ran || !looked) return the_gate.why_no_state(current);  // the next who asks looks again
    const guests answer =
        found && cpython::stack_protection::find() ? guests::possible : guests::impossible;
    if (the_guests.compare_exchange_strong(now, answer)) {
      now = answer;
      if (pthread_atfork(nullptr, nullptr, forget_guests_after_fork) != 0)
        the_guests = now = guests::impossible;  // a child of a fork could wait for ever
    }
  }
  return now == guests::possible ? refusal::none : refusal::unsupported;
}

/// Makes the side state; `turn` is held, the GIL is not, and the gate is passed.
///
/// It is born on a thread that ends at once, so that no living thread's PyGILState slot is bound to
/// it: the first user would otherwise find it there later, by a plain Ensure, while somebody else
/// is using it.
inline void make_side_state(life now) noexcept {
  PyThreadState* made = nullptr;
  (void)on_a_thread_of_its_own([&made, now] {
    made = the_gate.make_state(now);
    if (made == nullptr) return;
    cpython::restore(made);
    cpython::gilstate_slot::unbind_and_detach(made);
  });
  if (made != nullptr) the_gate.made.fetch_add(1, std::memory_order_relaxed);
  the_gate.forgotten.fetch_add(the_gate.side.exchange(made != nullptr ? 1 : 0));
  the_side.state = made;
  the_side.born_in = now;
}

/// Attaches this thread, which has no state of its own, by `shared`. The gate is passed. Leaves
/// `turn` held on success.
[[nodiscard]] inline refusal become_guest(thread_record& me, shared_state& shared,
                                          life now) noexcept {
  if constexpr (!cpython::has_gil) return refusal::unsupported;
  if (const refusal why = against_guests(now); why != refusal::none) return why;
  std::unique_lock turn(shared.turn);
  if (&shared == &the_side && (shared.state == nullptr || shared.born_in != now))
    make_side_state(now);
  PyThreadState* const state = shared.state;
  if (state == nullptr)
    return &shared == &the_side ? the_gate.why_no_state(now) : refusal::not_idle;

  static constinit thread_local cpython::stack_bounds here;
  if (cpython::stack_protection::needed && here.size == 0) {
    const auto bounds = cpython::this_stack();
    if (!bounds) return refusal::unsupported;
    here = *bounds;
  }
  cpython::gilstate_slot::show(state);
  cpython::restore(state);
  if (!cpython::stack_protection::set(state, here)) {
    cpython::gilstate_slot::unbind_and_detach(state);
    cpython::gilstate_slot::show(nullptr);
    return refusal::unsupported;
  }
  me.guest = state;
  turn.release();
  return refusal::none;
}

inline void stop_being_guest(thread_record& me) noexcept {
  PyThreadState* const state = me.guest;
  me.guest = nullptr;
  shared_state& shared = state == the_side.state ? the_side : the_loan;
  // The side state's next user sets bounds of his own; an owner who takes his state back does not.
  if (&shared == &the_loan) cpython::stack_protection::reset(state);
  cpython::gilstate_slot::unbind_and_detach(state);
  cpython::gilstate_slot::show(nullptr);
  shared.turn.unlock();
}

}  // namespace moored::inline v0::detail

namespace moored::inline v0 {

/// Lets go of the GIL for a scope, and lends this thread's state to `strategy::borrowed` for as
/// long.
///
/// For a thread that is about to wait in the OS. Its end waits for a borrower who is inside. The
/// caller is attached, and must not attach again, nor call Python, within the scope. One thread at
/// a time lends; a second one only detaches.
class lending {
 public:
  lending() noexcept {
    detail::thread_record& me = detail::this_thread;
    state_ = PyThreadState_Get();
    me.lending = true;
    fast_ = std::exchange(me.fast, 0);
    cpython::gilstate_slot::unbind_and_detach(state_);
    const std::lock_guard turn(detail::the_loan.turn);
    lends_ = detail::the_loan.state == nullptr;
    if (lends_) detail::the_loan.state = state_;
  }
  ~lending() {
    if (lends_) {
      const std::lock_guard turn(detail::the_loan.turn);
      detail::the_loan.state = nullptr;
    }
    cpython::restore(state_);
    detail::this_thread.lending = false;
    detail::this_thread.fast = fast_;
  }
  lending(const lending&) = delete;
  lending& operator=(const lending&) = delete;

 private:
  PyThreadState* state_;
  detail::life fast_;
  bool lends_ = false;
};

}  // namespace moored::inline v0
