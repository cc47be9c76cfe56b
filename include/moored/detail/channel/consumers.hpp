// moored/detail/channel/consumers.hpp: the consumers that wait for a channel, each told of every
// event that came after it last looked, and of the close.
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
/// takes, and a sender looks at it after it has queued, both under the channel's lock in between:
/// so an event is either taken or told.
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
  /// Not locked.
  told tell(const call& all) noexcept {
    told came = told::already;
    if (all.sleeping) {
      sleepers_.ring();
      came = told::all;
    }
    if (all.own) came = std::max(came, own_.notify());
    if (all.subscribed != nullptr)
      for (const auto& one : *all.subscribed) came = std::max(came, one->notify());
    if (came == told::refused) ask_again();
    return came;
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

  // The list is never changed: a sender may be telling those that are in it. It is replaced by one
  // that was made without the lock.

  using shared_list = std::shared_ptr<const list>;

  /// Those that there are, or null. Locked.
  [[nodiscard]] const shared_list& subscribed() const noexcept { return subscribed_; }
  /// Throws std::bad_alloc and std::system_error. Not locked.
  [[nodiscard]] shared_list with_another(const shared_list& now) {
    list more = copy_of(now);
    more.push_back(std::make_shared<wakeup>(&attention_));
    return std::make_shared<const list>(std::move(more));
  }
  /// Throws std::bad_alloc. Not locked.
  [[nodiscard]] static shared_list without(const shared_list& now, int fd) {
    list fewer = copy_of(now);
    fewer.erase(std::remove_if(fewer.begin(), fewer.end(),
                               [fd](const auto& one) { return one->fd() == fd; }),
                fewer.end());
    return std::make_shared<const list>(std::move(fewer));
  }
  /// False when the list is another one by now. Locked.
  [[nodiscard]] bool replace(const shared_list& now, shared_list& next) noexcept {
    if (subscribed_ != now) return false;
    subscribed_.swap(next);
    ask_again();
    return true;
  }
  /// The subscription with this descriptor, or null.
  [[nodiscard]] static std::shared_ptr<wakeup> find(const shared_list& all, int fd) noexcept {
    if (all == nullptr || fd < 0) return nullptr;
    for (const auto& one : *all)
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
  [[nodiscard]] static list copy_of(const std::shared_ptr<const list>& now) {
    return now == nullptr ? list() : *now;
  }

  std::atomic<bool> attention_{true};
  sleepers sleepers_;
  std::size_t sleeping_ = 0;  // locked
  shared_list subscribed_;    // locked
  wakeup own_;
};

}  // namespace detail
MOORED_NAMESPACE_END
