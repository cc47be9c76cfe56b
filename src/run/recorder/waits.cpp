// waits.cpp: see waits.hpp.
#include "../preload/weak_python.hpp"

#include "waits.hpp"

#include <moored/detail/cpython/gil_view.hpp>

#include <pthread.h>
#include <time.h>

#include "clock.hpp"
#include "looking.hpp"
#include "rows.hpp"
#include "watched_function.hpp"

namespace moored::run::recorder {

namespace {

int recorded_wait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* due);
constinit watched_function waits("pthread_cond_timedwait", &recorded_wait);

/// CPython goes on with a wait that has timed out sooner than that: some 20 us of the processor's
/// counter, or 60 us of the kernel's clock.
constexpr std::uint64_t gap_ticks = 60'000;

/// The interpreter's pthread_cond_timedwait: a GIL's mutex is held. May be cancelled.
int recorded_wait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* due) {
  using holder = moored::cpython::gil_view::holder;
  auto* const next = waits.next();
  thread_row* const row = this_row();
  if (row == nullptr) return next(condition, mutex, due);
  if (moored::cpython::gil_view::learn_from(condition))
    MOORED_MUST_LOOK.store(true, std::memory_order_relaxed);
  const bool is_main = moored::cpython::gil_view::look() == holder::main;
  const std::uint64_t begun = ticks();
  const int result = next(condition, mutex, due);
  if (this_threads_row != row) return result;  // the child of a fork
  const std::uint64_t ended = ticks();
  const std::uint64_t took = ended - begun;
  open_calls& mine = open_of(*row);
  const bool goes_on = begun - mine.last_wait_ended < gap_ticks;
  mine.this_wait = goes_on ? mine.this_wait + took : took;
  mine.last_wait_ended = ended;
  if (!goes_on) add(row->waits, 1);
  add(row->counted.wait, took);
  if (is_main) add(row->counted.wait_for_main, took);
  raise(row->counted.longest_wait, mine.this_wait);
  return result;
}

}  // namespace

void watch_waits(capture_header& header) noexcept {
  if (waits.watch()) header.waits_are_seen.store(1, std::memory_order_relaxed);
}

void unwatch_waits() noexcept {
  waits.unwatch();
}

void look_for_holders(capture_header& header) noexcept {
  using holder = moored::cpython::gil_view::holder;
  if (header.holders_are_seen.load(std::memory_order_relaxed) != 0) return;
  moored::cpython::gil_view::find();
  if (moored::cpython::gil_view::look() != holder::unknown) header.holders_are_seen.store(1);
}

}  // namespace moored::run::recorder
