// moored/detail/channel/notify.hpp: the deliveries: which consumers a sender tells of what is
// queued, and how.
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

// ---- telling ------------------------------------------------------------------------------------

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
  const no_cancellation uncancelled;
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
      if (came == told::refused) was_refused();
    }
    switch (mine) {
      case duty::none:
        return;
      case duty::enter:
        return enter(false);
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
  if (came == told::refused) was_refused();
}

inline void channel_core::was_refused() noexcept {
  const locked lock(mutex_);
  if (runner_.now() == turn::called) runner_.call_off();
  if (blocked_ != 0) room_.notify_all();
}

// ---- entering -----------------------------------------------------------------------------------

/// Gets the GIL from a busy thread at once, where install(urgent) has prepared that.
[[nodiscard]] inline attachment attach_urgently() noexcept {
  const cpython::urgent_scope wish;
  return try_attach(interpreter::main());
}

/// A sender attaches and runs the handler for all of them. It has the turn.
inline void channel_core::enter(bool looks) noexcept {
  const std::shared_ptr<channel_core> alive = shared_from_this();  // the handler may drop the last
  const bool is_nested = is_attached();
  ran came = ran::hold_over;
  while (came == ran::hold_over) {
    const auto asked = looks ? clock::now() : clock::time_point();
    const attachment attached = attach_urgently();
    const auto took = looks ? clock::now() - asked : clock::duration(0);
    if (!attached) {
      // Python is shutting down: what is queued is counted at the farewell. Or there was no memory
      // for a state: the next sender tries again.
      outlasting<batch_handler> done;
      const locked lock(mutex_);
      end_turn(done);
      return;
    }
    if (took > long_attach) {
      const locked lock(mutex_);
      busy_until_ = asked + 10 * std::min<std::chrono::nanoseconds>(took, longest_attach);
    }
    const exception_apart callers(is_nested);
    came = run(runs_for::senders);
    cpython::settle_urgent_turn();
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

// ---- interrupting -------------------------------------------------------------------------------

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
  was_refused();
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

// ---- adapting -----------------------------------------------------------------------------------

/// A free GIL is entered at once. Main, if it holds it, is interrupted, and its loop is told as
/// well, because main may go to sleep in this moment and not see a pending call before it wakes.
/// Whatever was called may not come: main sleeps, or the loop has ended. So a thread of moored's
/// watches over it.
///
/// Where it cannot be seen which thread holds the GIL, the last attach tells how long it took.
/// Where urgent attaches are prepared, a holder that cannot be interrupted is asked for the GIL.
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
    enters = now == holder::none || !(interrupts || listens) ||
             (!interrupts && cpython::the_gil_requests.is_installed()) ||
             (now == holder::unknown && clock::now() >= busy_until_);
    if (enters) runner_.take();
  }
  if (enters) return enter(true);
  const std::shared_ptr<channel_core> alive = shared_from_this();
  if (!watch_over(*this)) was_refused();
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
  if (enters) return enter(true);
  tell();
}

}  // namespace detail
MOORED_NAMESPACE_END
