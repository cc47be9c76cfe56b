// moored/detail/channel/running.hpp: one turn of the handler: how it begins, how long it lasts, and
// what is left at its end.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

inline channel_core::left channel_core::deliver(bool reports) {
  const std::shared_ptr<channel_core> alive = shared_from_this();  // the handler may drop the last
  const attachment attached = try_attach(interpreter::main());
  if (!attached) return left::nothing;
  {
    const locked lock(mutex_);
    if (runner_.is_running() || life_ == life::ended) return left::nothing;
    runner_.take();
  }
  const exception_apart callers(reports);
  switch (run(reports ? runs_for::reporter : runs_for::caller)) {
    case ran::empty:
      break;
    case ran::hold_over:
      return left::something;
    case ran::elsewhere:
      hand_on();
      break;
    case ran::error:
      hand_on();
      return left::error;
  }
  return left::nothing;
}

inline bool channel_core::has_turn_for(runs_for what) const noexcept {
  if (!handler_ || life_ == life::ended) return false;
  if (what == runs_for::senders)
    return options_.by == delivery::enter || options_.by == delivery::adaptive;
  if (what == runs_for::main)
    return options_.by == delivery::interrupt || options_.by == delivery::adaptive;
  return true;
}

inline channel_core::ran channel_core::run(runs_for what) {
  using std::chrono::nanoseconds;
  const bool reports = what != runs_for::main && what != runs_for::caller;
  const auto begin = clock::now();
  auto now = begin;
  for (;;) {
    std::size_t fits = 0;
    {
      outlasting<batch_handler> done;
      const locked lock(mutex_);
      const bool is_others = !has_turn_for(what);
      if (queued() == 0 || is_others || runner_.now() == turn::awaited) {
        const bool is_left = queued() != 0 && is_others && what <= runs_for::main;
        end_turn(done);
        return is_left ? ran::elsewhere : ran::empty;
      }
      const nanoseconds rest = options_.hold - (now - begin);
      if (rest <= nanoseconds(0) && now != begin) {
        if (what == runs_for::senders)
          runner_.offer();
        else
          end_turn(done);
        return ran::hold_over;
      }
      fits = pace_.fits(rest);
    }
    const batch_end batch = run_batch(fits);
    const auto after = clock::now();
    pace_.learn(batch.events, after - now);
    now = after;
    if (batch.fine) continue;
    bool goes_on = reports;
    if (reports) {
      reference about;
      {
        const locked lock(mutex_);
        about = reference::borrow(handler_.python.get());
      }
      // After Ctrl-C, which main is to get, each further batch would be interrupted by it.
      goes_on = !report(about.get()) || what == runs_for::farewell;
    }
    if (goes_on) continue;
    outlasting<batch_handler> done;
    const locked lock(mutex_);
    end_turn(done);
    return reports ? ran::elsewhere : ran::error;
  }
}

inline void channel_core::end_turn(outlasting<batch_handler>& done) noexcept {
  if (runner_.now() == turn::awaited) turns_.notify_all();
  runner_.end();
  if (blocked_ != 0) room_.notify_all();
  let_go_if_done(done);
}

/// Tells of what a runner has left. Threads of the program enter with the next event; until then a
/// thread of moored's watches over it, for this one has something else to do.
inline void channel_core::hand_on() noexcept {
  bool by_threads = false;
  {
    const locked lock(mutex_);
    if (queued() == 0) return;
    by_threads = is_run_by_threads();
  }
  if (!by_threads || !watch_over(*this)) tell();
}

}  // namespace detail
MOORED_NAMESPACE_END
