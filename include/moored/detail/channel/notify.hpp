// moored/detail/channel/notify.hpp: the deliveries: whom a sender tells of what is queued, and how.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

#include "../cpython/gil_view.hpp"
#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// A thread that waited for so long for the GIL met a main thread that is busy.
inline constexpr std::chrono::microseconds long_attach{500};
/// Longer than that is a clock that has jumped.
inline constexpr std::chrono::seconds longest_attach{1};
/// A waiting thread looks again after so long, whatever it was told.
inline constexpr std::chrono::seconds second_look{1};

/// A thread of moored's sees that the channel's handler is run, if that is late; see registry.hpp.
/// False when there is neither memory nor a thread for that.
[[nodiscard]] inline bool watch_over(channel_core& channel) noexcept;

// ---- telling -------------------------------------------------------------------------------------

/// Under a delivery by threads the loop is told only where that delivery says so.
inline bool channel_core::tells_own() const noexcept {
  if (options_.by == delivery::poll) return listening_ && !handler_;
  return options_.by == delivery::wake || !handler_;
}

inline channel_core::duty channel_core::find_duty() noexcept {
  if (!is_run_by_threads()) return duty::none;
  switch (runner_.now()) {
    case turn::free:
      if (options_.by == delivery::enter) {
        runner_.take();
        return duty::enter;
      }
      runner_.call();
      return options_.by == delivery::interrupt ? duty::interrupt : duty::adapt;
    case turn::offered:
      return duty::relieve;
    case turn::called:
    case turn::taken:
    case turn::awaited:
      break;
  }
  return duty::none;
}

inline void channel_core::tell() noexcept {
  const no_cancellation here;
  for (;;) {
    consumers::call untold;
    duty mine = duty::none;
    {
      const locked lock(mutex_);
      if (queued() == 0) return;
      if (consumers_.any_untold()) untold = consumers_.look(tells_own());
      mine = find_duty();
    }
    if (untold) {
      const told came = consumers_.tell(untold);
      count(came);
      if (came == told::refused) nobody_came();
    }
    switch (mine) {
      case duty::none:
        return;
      case duty::enter:
        return enter();
      case duty::interrupt:
        return interrupt();
      case duty::adapt:
        return adapt();
      case duty::relieve:
        if (!relieve()) return;
        break;  // and looks again
    }
  }
}

/// The channel's own descriptor, though the delivery is by threads.
inline void channel_core::tell_own() noexcept {
  const told came = consumers_.own().notify();
  count(came);
  if (came == told::refused) nobody_came();
}

inline void channel_core::nobody_came() noexcept {
  const locked lock(mutex_);
  if (runner_.now() == turn::called) runner_.call_off();
  if (blocked_ != 0) room_.notify_all();
}

// ---- entering ------------------------------------------------------------------------------------

/// A sender attaches and runs the handler for all of them. It has the turn.
inline void channel_core::enter() noexcept {
  const std::shared_ptr<channel_core> alive = shared_from_this();  // the handler may drop the last
  const bool is_nested = is_attached();
  ran came = ran::hold_over;
  while (came == ran::hold_over) {
    const auto asked = clock::now();
    const attachment attached = try_attach(interpreter::main());
    const auto took = clock::now() - asked;
    {
      outlasting<batch_handler> done;
      const locked lock(mutex_);
      if (took > long_attach)
        busy_until_ = asked + 10 * std::min<std::chrono::nanoseconds>(took, longest_attach);
      if (attached) {
        ++stats_.entries;
      } else {
        // Python is shutting down: what is queued is counted at the farewell. Or there was no
        // memory for a state: the next sender tries again.
        end_turn(done);
      }
    }
    if (!attached) return;
    const exception_apart callers(is_nested);
    came = run(runs_for::senders);
    // Long enough. A thread that waits for the GIL gets it now, and the next sender takes over, so
    // that no sender is kept from its own work for ever; while none comes, this one goes on.
    if (came == ran::hold_over && is_nested) const detachment others_turn;
  }
  if (came == ran::elsewhere) hand_on();
}

/// A sender takes over from another one: true when it has waited, and is to look what there is to
/// do. A sender that has the GIL cannot wait for a runner that may want it.
inline bool channel_core::relieve() noexcept {
  if (is_attached()) return false;
  const locked lock(mutex_);
  if (runner_.now() != turn::offered) return true;
  runner_.await();
  while (runner_.now() == turn::awaited) turns_.wait(mutex_);
  return true;
}

// ---- interrupting --------------------------------------------------------------------------------

/// A pending call makes the main thread run the handler. At most one is on its way.
inline void channel_core::interrupt() noexcept {
  {
    const passage inside;  // Py_AddPendingCall looks at an interpreter that must be there
    {
      const locked lock(mutex_);
      if (pending_ != nullptr) return;
      if (inside) {
        pending_ = shared_from_this();
        ++stats_.interrupts;
      }
    }
    if (inside && Py_AddPendingCall(run_interrupt, this) == 0) return;
    // CPython's places are full, for main has not run Python for long; or it is shutting down.
    outlasting<std::shared_ptr<channel_core>> mine;
    const locked lock(mutex_);
    if (pending_ != nullptr) --stats_.interrupts;
    mine.take(pending_);
  }
  nobody_came();
  if (!the_gate.closing()) (void)watch_over(*this);
}

inline int channel_core::run_interrupt(void* self) noexcept {
  std::shared_ptr<channel_core> me;
  bool mine = false;
  {
    auto* const core = static_cast<channel_core*>(self);
    const locked lock(core->mutex_);
    me = std::move(core->pending_);
    if (core->runner_.is_running() || core->life_ == life::ended) return 0;
    mine = core->has_turn_for(runs_for::main);
    if (mine) {
      core->runner_.take();
    } else if (core->runner_.now() == turn::called) {
      core->runner_.call_off();
    }
  }
  int came = 0;
  if (mine && me->run(runs_for::main) == ran::error) {
    // Ctrl-C and sys.exit() in the handler are main's. Of anything else main knows nothing.
    if (PyErr_ExceptionMatches(PyExc_Exception))
      report(nullptr);
    else
      came = -1;
  }
  me->tell();  // of what is left
  return came;
}

// ---- adapting ------------------------------------------------------------------------------------

/// A free GIL is entered at once. Main, if it holds it, is interrupted, and its loop is told as
/// well, because main may go to sleep in this moment and not see a pending call before it wakes.
/// Whatever was called may not come: main sleeps, or the loop has ended. So a thread of moored's
/// watches over it.
///
/// Where it cannot be seen which thread holds the GIL, the last attach tells how long it took.
inline void channel_core::adapt() noexcept {
  using holder = cpython::gil_view::holder;
  const holder now = cpython::gil_view::look();
  const bool interrupts = now == holder::main && cpython::pending_calls_interrupt;
  bool enters = false;
  bool listens = false;
  {
    const locked lock(mutex_);
    if (runner_.now() != turn::called) return;  // another thread was faster
    listens = listening_;
    enters = now == holder::nobody || !(interrupts || listens) ||
             (now == holder::unknown && clock::now() >= busy_until_);
    if (enters) runner_.take();
  }
  if (enters) return enter();
  const std::shared_ptr<channel_core> alive = shared_from_this();
  if (!watch_over(*this)) nobody_came();
  if (interrupts) interrupt();
  if (listens) tell_own();
}

inline bool channel_core::is_late() const noexcept {
  const locked lock(mutex_);
  if (options_.by == delivery::interrupt && pending_ != nullptr) return false;
  return queued() != 0 && is_run_by_threads() && !runner_.is_running();
}

inline void channel_core::look_after() noexcept {
  bool enters = false;
  {
    const locked lock(mutex_);
    if (queued() == 0 || !is_run_by_threads() || runner_.is_running()) return;
    enters = options_.by != delivery::interrupt;
    if (enters)
      runner_.take();
    else if (runner_.now() == turn::called)
      runner_.call_off();
  }
  if (enters) return enter();
  tell();
}

// ---- running -------------------------------------------------------------------------------------

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

inline bool channel_core::has_turn_for(runs_for whom) const noexcept {
  if (!handler_ || life_ == life::ended) return false;
  if (whom == runs_for::senders)
    return options_.by == delivery::enter || options_.by == delivery::adaptive;
  if (whom == runs_for::main)
    return options_.by == delivery::interrupt || options_.by == delivery::adaptive;
  return true;
}

inline channel_core::ran channel_core::run(runs_for whom) {
  using std::chrono::nanoseconds;
  const bool reports = whom != runs_for::main && whom != runs_for::caller;
  const auto begin = clock::now();
  auto now = begin;
  for (;;) {
    std::size_t fits = 0;
    {
      outlasting<batch_handler> done;
      const locked lock(mutex_);
      const bool is_others = !has_turn_for(whom);
      if (queued() == 0 || is_others || runner_.now() == turn::awaited) {
        const bool is_left = queued() != 0 && is_others && whom <= runs_for::main;
        end_turn(done);
        return is_left ? ran::elsewhere : ran::empty;
      }
      const nanoseconds rest = options_.hold - (now - begin);
      if (rest <= nanoseconds(0) && now != begin) {
        if (whom == runs_for::senders)
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
      goes_on = !report(about.get()) || whom == runs_for::farewell;
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

// ---- consumers -----------------------------------------------------------------------------------

inline void channel_core::listen(bool listening) noexcept {
  {
    const locked lock(mutex_);
    listening_ = listening;
    consumers_.ask_again();
    // A loop that was called may be the one that listens no longer.
    if (!listening && runner_.now() == turn::called) runner_.call_off();
  }
  tell();
}

inline int channel_core::subscribe() {
  for (;;) {
    consumers::shared_list now;
    {
      const locked lock(mutex_);
      now = consumers_.subscribed();
    }
    consumers::shared_list next = consumers_.with_another(now);
    const std::shared_ptr<wakeup> mine = next->back();
    bool is_ready = false;
    {
      const locked lock(mutex_);
      if (!consumers_.replace(now, next)) continue;  // another thread was faster
      is_ready = queued() != 0 || refuses();
    }
    if (is_ready) (void)mine->notify();
    return mine->fd();
  }
}

inline void channel_core::acknowledge(int fd) noexcept {
  consumers::shared_list all;
  {
    const locked lock(mutex_);
    all = consumers_.subscribed();
  }
  if (const auto mine = consumers::find(all, fd)) mine->acknowledge();
}

inline void channel_core::unsubscribe(int fd) noexcept {
  consumers::shared_list now;
  for (;;) {
    {
      const locked lock(mutex_);
      now = consumers_.subscribed();
    }
    if (consumers::find(now, fd) == nullptr) return;
    try {
      consumers::shared_list next = consumers::without(now, fd);
      const locked lock(mutex_);
      if (consumers_.replace(now, next)) return;
    } catch (const std::bad_alloc&) {
      return;  // it stays until the channel ends
    }
  }
}

inline channel_core::waited channel_core::wait(deadline& until) noexcept {
  {
    const locked lock(mutex_);
    if (queued() != 0 || refuses()) return waited::ready;
  }
  const detachment others_turn;
  for (;;) {
    sleepers::ticket since{};
    {
      const locked lock(mutex_);
      if (queued() != 0 || refuses()) return waited::ready;
      if (until.over()) return waited::timed_out;
      since = consumers_.begin_sleep();
    }
    const std::chrono::nanoseconds limit =
        std::min<std::chrono::nanoseconds>(until.rest().value_or(second_look), second_look);
    const sleepers::woken by = consumers_.sleep(since, limit);
    if (by == sleepers::woken::time_over) until.slept(limit);
    const locked lock(mutex_);
    consumers_.end_sleep();
    if (by == sleepers::woken::signal && queued() == 0 && !refuses()) return waited::signal;
  }
}

}  // namespace detail
MOORED_NAMESPACE_END
