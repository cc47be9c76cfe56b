// calls.cpp: what the hooks record of a call into Python (recorder.hpp).
#include "../preload/weak_python.hpp"

#include <moored/detail/cpython/calls.hpp>
#include <moored/detail/cpython/entries.hpp>

#include "callers.hpp"
#include "clock.hpp"
#include "looking.hpp"
#include "recorder.hpp"
#include "rows.hpp"
#include "waits.hpp"
#include "wakes.hpp"

namespace moored::run::recorder {

namespace {

/// Once each time that there may be something. Attached, to whichever interpreter.
[[gnu::noinline]] void look() noexcept {
  if (PyInterpreterState_Get() != PyInterpreterState_Main() || !MOORED_MUST_LOOK.exchange(false))
    return;
  was_entered.store(true, std::memory_order_relaxed);
  look_for_holders(the_capture.load(std::memory_order_relaxed)->header);
  watch_wakes();
}

}  // namespace

arrival begin(const void* caller, const void* frame) noexcept {
  thread_row* const row = this_row();
  if (row == nullptr) return {};
  // Before a call was in, Python is not gone but to come.
  if (was_entered.load(std::memory_order_relaxed) && Py_IsInitialized != nullptr &&
      Py_IsInitialized() == 0)
    add(the_capture.load(std::memory_order_relaxed)->header.late_attaches, 1);
  slot_row* const slot = slot_of(*row, key_of(caller, frame), caller, frame);
  return {slot, ticks(), row->counted.wait.load(std::memory_order_relaxed),
          row->counted.wait_for_main.load(std::memory_order_relaxed)};
}

void entered(const arrival& how, bool made) noexcept {
  const std::uint64_t now = ticks();
  thread_row* const row = this_threads_row;
  if (row == nullptr || how.begun == 0) return;
  auto* const slot = static_cast<slot_row*>(how.slot);
  if (__builtin_expect(static_cast<long>(MOORED_MUST_LOOK.load(std::memory_order_relaxed)), 0))
    look();
  open_calls& mine = open_of(*row);
  if (mine.depth < open_calls::most) {
    mine.slot[mine.depth] = slot;
    mine.since[mine.depth] = now;
    mine.waited[mine.depth] = row->counted.wait.load(std::memory_order_relaxed);
    mine.made[mine.depth] = made;
  }
  ++mine.depth;
  add(row->counted.calls, 1);
  add(row->counted.attach, now - how.begun);
  if (made) {
    add(row->counted.states, 1);
    row->is_foreign.store(1, std::memory_order_relaxed);
  }
  if (slot == nullptr) {
    add(row->calls_without_site, 1);
    return;
  }
  add(slot->counted.calls, 1);
  if (made) add(slot->counted.states, 1);
  add(slot->counted.attach, now - how.begun);
  const std::uint64_t waited = row->counted.wait.load(std::memory_order_relaxed) - how.waited;
  if (waited == 0) return;
  add(slot->counted.wait, waited);
  add(slot->counted.wait_for_main,
      row->counted.wait_for_main.load(std::memory_order_relaxed) - how.waited_for_main);
  raise(slot->counted.longest_wait, waited);
}

void entered_again() noexcept {
  thread_row* const row = this_threads_row;
  if (row == nullptr) return;
  open_calls& mine = open_of(*row);
  if (mine.depth < open_calls::most) {
    mine.since[mine.depth] = 0;
    mine.made[mine.depth] = false;
  }
  ++mine.depth;
}

void state_ends(PyThreadState* state) noexcept {
  thread_row* const row = this_threads_row;
  if (row == nullptr || !moored::cpython::has_locals(state)) return;
  add(row->counted.states_with_locals, 1);
  if (slot_row* const slot = open_of(*row).innermost()) add(slot->counted.states_with_locals, 1);
}

departure releasing() noexcept {
  namespace cpython = moored::cpython;
  constexpr Py_ssize_t of_the_call = 1;  // others keep the state
  if (thread_row* const row = this_threads_row) {
    const open_calls& mine = open_of(*row);
    if (mine.depth != 0 && mine.depth <= open_calls::most && mine.made[mine.depth - 1]) {
      PyThreadState* const state = cpython::current();
      if (cpython::can_read_entries(state) && cpython::entries(state) == of_the_call)
        state_ends(state);
    }
  }
  return leaving();
}

departure leaving() noexcept {
  thread_row* const row = this_threads_row;
  if (row == nullptr) return {};
  open_calls& mine = open_of(*row);
  if (mine.depth == 0) return {};
  --mine.depth;
  if (mine.depth >= open_calls::most || mine.since[mine.depth] == 0) return {};
  const std::uint64_t now = ticks();
  // Not while it waited for the GIL itself: Python lets others have it in between.
  const std::uint64_t waited =
      row->counted.wait.load(std::memory_order_relaxed) - mine.waited[mine.depth];
  const std::uint64_t inside = now - mine.since[mine.depth];
  const std::uint64_t held = inside > waited ? inside - waited : 0;
  add(row->counted.hold, held);
  raise(row->counted.longest_hold, held);
  slot_row* const slot = mine.slot[mine.depth];
  if (slot != nullptr) {
    add(slot->counted.hold, held);
    raise(slot->counted.longest_hold, held);
  }
  return {slot, row, now};
}

void left(const departure& how) noexcept {
  if (how.begun == 0 || this_threads_row != how.row) return;
  const std::uint64_t took = ticks() - how.begun;
  add(this_threads_row->counted.detach, took);
  if (how.slot != nullptr) add(static_cast<slot_row*>(how.slot)->counted.detach, took);
}

void state_was_made() noexcept {
  thread_row* const row = this_threads_row;
  if (row == nullptr) return;
  const open_calls& mine = open_of(*row);
  add(row->counted.states, 1);
  row->is_foreign.store(1, std::memory_order_relaxed);
  if (slot_row* const slot = mine.innermost()) add(slot->counted.states, 1);
}

}  // namespace moored::run::recorder
