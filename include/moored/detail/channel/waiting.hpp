// moored/detail/channel/waiting.hpp: the consumers' side: loops that listen, subscriptions, and
// threads that wait.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>

#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// A waiting thread looks again after so long, whatever it was told.
inline constexpr std::chrono::seconds second_look{1};

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

inline channel_core::waited channel_core::wait(deadline& due) noexcept {
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
      if (due.over()) return waited::timed_out;
      since = consumers_.begin_sleep();
    }
    const std::chrono::nanoseconds limit =
        std::min<std::chrono::nanoseconds>(due.rest().value_or(second_look), second_look);
    const sleepers::woken by = consumers_.sleep(since, limit);
    if (by == sleepers::woken::time_over) due.slept(limit);
    const locked lock(mutex_);
    consumers_.end_sleep();
    if (by == sleepers::woken::signal && queued() == 0 && !refuses()) return waited::signal;
  }
}

}  // namespace detail
MOORED_NAMESPACE_END
