// moored/study/shared_states.hpp: running on a state that is not this thread's own: the shared
// state and the borrowed state.
//
// Both come from the 2011 report and are kept for study. What the callback sees is another
// thread's: threading.local, contextvars, sys._current_frames and PyThreadState_SetAsyncExc go by
// the state, not by the thread. Use them only for callbacks that do not care;
// docs/measure/strategies.md lists what is safe with which version.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <utility>

#include "../detail/states/slot_check.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// A state that threads use one at a time.
struct turns {
  /// Held by the thread that is using the state, while it runs Python: the one lock of moored's
  /// that is. It is never waited for with the GIL held, and its holder has no need of another lock.
  std::mutex turn;
  PyThreadState* state = nullptr;  ///< Guarded by `turn`. Null: there is none to be had now.
  epoch born_in = 0;               ///< Guarded by `turn`. Shared only.
};

inline turns the_shared;
inline turns the_borrowed;

/// In a forked child the thread that held a turn did not come along, and CPython has freed the
/// states.
inline void forget_turns_after_fork() noexcept {
  for (turns* const one : {&the_shared, &the_borrowed}) {
    if (this_thread.shared != nullptr && this_thread.shared == one->state) continue;
    new (&one->turn) std::mutex;
    one->state = nullptr;
    if (one == &the_shared) the_gate.forgotten.fetch_add(the_gate.shared.exchange(0));
  }
}

/// False when the process could not register what its forked children need.
[[nodiscard]] inline bool watches_forks() noexcept {
  static std::atomic<bool> registered{false};
  if (registered.load(std::memory_order_acquire)) return true;
  if (pthread_atfork(nullptr, nullptr, forget_turns_after_fork) != 0) return false;
  registered.store(true, std::memory_order_release);  // twice by two threads: it does no harm
  return true;
}

/// Makes the shared state; `turn` is held, the GIL is not, and the gate is passed.
///
/// It is born on a thread that ends at once, so that no living thread's PyGILState slot is bound to
/// it: the first user would otherwise find it there later, by a plain Ensure, while another thread
/// is using it.
inline void make_shared_state(epoch now) noexcept {
  PyThreadState* made = nullptr;
  (void)on_a_thread_of_its_own([&made, now] {
    made = the_gate.make_state(now);
    if (made == nullptr) return;
    cpython::restore(made);
    cpython::gilstate_slot::unbind_and_detach(made);
  });
  if (made != nullptr) the_gate.made.fetch_add(1, std::memory_order_relaxed);
  the_gate.forgotten.fetch_add(the_gate.shared.exchange(made != nullptr ? 1 : 0));
  the_shared.state = made;
  the_shared.born_in = now;
}

/// Attaches this thread, which has no state of its own, by the state of `from`. The gate is passed.
/// Leaves `turn` held on success.
[[nodiscard]] inline refusal start_sharing(thread_record& me, turns& from, epoch now) noexcept {
  if constexpr (!cpython::has_gil) return refusal::unsupported;
  if (const refusal why = against_shown_states(now); why != refusal::none) return why;
  if (!watches_forks()) return refusal::no_memory;
  std::unique_lock<std::mutex> turn(from.turn);
  if (&from == &the_shared && (from.state == nullptr || from.born_in != now))
    make_shared_state(now);
  PyThreadState* const state = from.state;
  if (state == nullptr)
    return &from == &the_shared ? the_gate.why_no_state(now) : refusal::not_idle;

  MOORED_CONSTINIT static thread_local cpython::stack_bounds here;
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
  me.share(state);
  (void)turn.release();
  return refusal::none;
}

/// Detaches the thread again, and lets the next one have the state.
inline void stop_sharing(thread_record& me) noexcept {
  PyThreadState* const state = me.shared;
  me.share_no_more();
  turns& from = state == the_shared.state ? the_shared : the_borrowed;
  // The shared state's next user sets bounds of its own; an owner that takes its state back does
  // not.
  if (&from == &the_borrowed) cpython::stack_protection::reset(state);
  cpython::gilstate_slot::unbind_and_detach(state);
  cpython::gilstate_slot::show(nullptr);
  from.turn.unlock();
}

}  // namespace detail

/// Lets go of the GIL for a scope, and lends this thread's state to `strategy::borrowed` for as
/// long.
///
/// For a thread that is about to wait in the OS. Its end waits for a borrower that is inside. The
/// caller is attached, and must not attach again, nor call Python, within the scope. One thread at
/// a time lends; a second one only detaches.
class MOORED_PUBLIC_TYPE lending {
 public:
  MOORED_HIDDEN lending() noexcept {
    state_ = PyThreadState_Get();
    detail::this_thread.lend();
    cpython::gilstate_slot::unbind_and_detach(state_);
    const std::lock_guard<std::mutex> turn(detail::the_borrowed.turn);
    lends_ = detail::the_borrowed.state == nullptr;
    if (lends_) detail::the_borrowed.state = state_;
  }
  MOORED_HIDDEN ~lending() {
    if (lends_) {
      const std::lock_guard<std::mutex> turn(detail::the_borrowed.turn);
      detail::the_borrowed.state = nullptr;
    }
    cpython::restore(state_);
    detail::this_thread.lend_no_more();
  }
  lending(const lending&) = delete;
  lending& operator=(const lending&) = delete;

 private:
  PyThreadState* state_;
  bool lends_ = false;
};

MOORED_NAMESPACE_END
