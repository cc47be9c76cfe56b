// moored/detail/states/slot_check.hpp: whether a thread may run on a state that is not PyGILState's
// for it: a subinterpreter's, or another thread's.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <utility>

#include "../cpython/gilstate_slot.hpp"
#include "../cpython/stack_protection.hpp"
#include "../gate/closing.hpp"
#include "../own_thread.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Runs `work` on a thread that ends with it; false when there is no thread to be had. Not
/// attached: `work` may wait for the GIL.
template <class Work>
[[nodiscard]] bool on_a_thread_of_its_own(Work work) noexcept {
  expect_no_lock();
  try {
    start_own_thread(std::move(work)).join();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

enum class slot_found : std::uint8_t { unknown, yes, no };
MOORED_CONSTINIT inline std::atomic<slot_found> the_slot{slot_found::unknown};

/// Why a state that PyGILState does not know cannot be shown to it; none: it can. Not attached,
/// counted in.
///
/// Found out on a thread of its own, because the slot can only be found on a thread that has just
/// got its first state. By the first that asks, perhaps by several at once: a static of this
/// function would make a forked child wait for ever for a thread that did not come along.
[[nodiscard]] inline refusal against_shown_states(epoch current) noexcept {
  slot_found now = the_slot.load(std::memory_order_acquire);
  if (now == slot_found::unknown) {
    bool looked = false;
    bool found = false;
    const bool ran = on_a_thread_of_its_own([&] {
      const auto token = the_gate.try_ensure(current);
      if (!token) return;
      looked = true;
      found = cpython::gilstate_slot::find();
      cpython::release(*token);
    });
    if (!ran || !looked) return the_gate.why_no_state(current);  // the next that asks looks again
    const slot_found answer =
        found && cpython::stack_protection::find() ? slot_found::yes : slot_found::no;
    if (the_slot.compare_exchange_strong(now, answer)) now = answer;
  }
  return now == slot_found::yes ? refusal::none : refusal::unsupported;
}

}  // namespace detail
MOORED_NAMESPACE_END
