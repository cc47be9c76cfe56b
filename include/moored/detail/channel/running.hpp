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

inline std::size_t channel_core::fits(stint& its, outlasting<batch_handler>& done) noexcept {
  if (its.is_new && its.what == runs_for::senders) ++stats_.entries;
  its.is_new = false;
  const bool is_others = !has_turn_for(its.what);
  if (queued() == 0 || is_others || runner_.now() == turn::awaited) {
    const bool is_left = queued() != 0 && is_others && its.what <= runs_for::main;
    end_turn(done);
    its.came = is_left ? ran::elsewhere : ran::empty;
    return 0;
  }
  const std::chrono::nanoseconds rest = options_.hold - (its.now - its.begin);
  if (rest <= std::chrono::nanoseconds(0) && its.now != its.begin) {
    if (its.what == runs_for::senders)
      runner_.offer();
    else
      end_turn(done);
    its.came = ran::hold_over;
    return 0;
  }
  return pace_.fits(rest);
}

inline bool channel_core::goes_on(stint& its, std::size_t events, bool fine) {
  const auto after = clock::now();
  pace_.learn(events, after - its.now);
  its.now = after;
  if (fine) return true;
  const bool reports = its.what != runs_for::main && its.what != runs_for::caller;
  if (reports) {
    reference about;
    {
      const locked lock(mutex_);
      about = reference::borrow(handler_.python.get());
    }
    // After Ctrl-C, which main is to get, each further batch would be interrupted by it.
    if (!report(about.get()) || its.what == runs_for::farewell) return true;
  }
  outlasting<batch_handler> done;
  const locked lock(mutex_);
  end_turn(done);
  its.came = reports ? ran::elsewhere : ran::error;
  return false;
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
