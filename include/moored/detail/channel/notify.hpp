// moored/detail/channel/notify.hpp: the consumers that wait for a channel, each told of every event
// that came after it last looked, and of the close.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "../lock.hpp"
#include "wakeup.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// The consumers of one channel: plain threads in wait(), which sleep; subscriptions, each with a
/// descriptor of its own; and the channel's own descriptor, which is for the one loop that runs the
/// handler.
///
/// Each descriptor knows whether it has been told: it is readable. One flag, `attention`, says that
/// some consumer has not been told; it is all that a sender looks at. A consumer sets it before it
/// takes, and a sender looks at it after it has queued, both under the channel's lock in between: so
/// an event is either taken or told.
class consumers {
 public:
  using list = std::vector<std::shared_ptr<wakeup>>;

  /// Throws std::system_error.
  consumers() : own_(&attention_) {}
  consumers(const consumers&) = delete;
  consumers& operator=(const consumers&) = delete;

  [[nodiscard]] wakeup& own() noexcept { return own_; }
  /// True when a consumer may have to be told of what is queued. Locked.
  [[nodiscard]] bool any_untold() const noexcept {
    return attention_.load(std::memory_order_acquire);
  }
  /// All of them are to be asked again at the next event. Any thread.
  void ask_again() noexcept { attention_.store(true, std::memory_order_release); }

  /// What a sender takes along under the lock in order to tell without it.
  struct call {
    std::shared_ptr<const list> subscribed;
    bool sleeping = false;
    bool own = false;

    [[nodiscard]] explicit operator bool() const noexcept {
      return subscribed != nullptr || sleeping || own;
    }
  };
  /// Locked. `own`: the channel's own descriptor is to be told, too.
  [[nodiscard]] call look(bool own) noexcept {
    attention_.store(false, std::memory_order_relaxed);
    return {subscribed_, sleeping_ != 0, own};
  }
  /// False when the OS refused to tell one of them; the next sender tries again. Not locked.
  bool tell(const call& whom) noexcept {
    bool told = true;
    if (whom.sleeping) sleepers_.ring();
    if (whom.own) told = own_.notify();
    if (whom.subscribed != nullptr)
      for (const auto& one : *whom.subscribed) told = one->notify() && told;
    if (!told) ask_again();
    return told;
  }

  // Plain threads.

  /// Locked, and nothing is queued.
  [[nodiscard]] sleepers::ticket begin_sleep() noexcept {
    ++sleeping_;
    ask_again();
    return sleepers_.now();
  }
  /// Not locked.
  [[nodiscard]] sleepers::woken sleep(sleepers::ticket since,
                                      std::chrono::nanoseconds limit) noexcept {
    return sleepers_.sleep(since, limit);
  }
  /// Locked.
  void end_sleep() noexcept { --sleeping_; }

  // Subscriptions.

  /// The descriptors of `now` and one more, which is readable. Throws std::bad_alloc and
  /// std::system_error. Not locked.
  [[nodiscard]] std::shared_ptr<const list> with_another(const std::shared_ptr<const list>& now) {
    auto more = now == nullptr ? std::make_shared<list>() : std::make_shared<list>(*now);
    more->push_back(std::make_shared<wakeup>(&attention_));
    return more;
  }
  /// Those that there are. Locked.
  [[nodiscard]] const std::shared_ptr<const list>& subscribed() const noexcept {
    return subscribed_;
  }
  /// Locked. `old` is to be destroyed without the lock.
  void replace(std::shared_ptr<const list>& next) noexcept {
    subscribed_.swap(next);
    ask_again();
  }
  /// The subscription with this descriptor, or null. Locked.
  [[nodiscard]] std::shared_ptr<wakeup> find(int fd) const noexcept {
    if (subscribed_ == nullptr || fd < 0) return nullptr;
    for (const auto& one : *subscribed_)
      if (one->fd() == fd) return one;
    return nullptr;
  }

  /// In the child of a fork, whose only thread waits for nothing.
  void after_fork_in_child() noexcept {
    sleeping_ = 0;
    own_.renew();
    if (subscribed_ == nullptr) return;
    for (const auto& one : *subscribed_) one->renew();
  }

 private:
  std::atomic<bool> attention_{true};
  sleepers sleepers_;
  std::size_t sleeping_ = 0;                // locked
  std::shared_ptr<const list> subscribed_;  // locked; null: none
  wakeup own_;
};

}  // namespace detail
MOORED_NAMESPACE_END
