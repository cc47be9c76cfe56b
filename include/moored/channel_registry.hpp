// moored/channel_registry.hpp: all channels of this copy of moored, for what concerns them all: the
// end of Python, forks, and interrupts that main does not see.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "channel_core.hpp"

namespace moored::inline v0::detail {

/// Who waits for Python without being inside, and must hear that it ends.
class waits_for_python {
 public:
  virtual ~waits_for_python() = default;
  virtual void python_ends() noexcept = 0;
};

class channel_registry {
 public:
  /// Never destroyed: channels in static storage may end after it. Made when the program or the
  /// library is loaded (see below), or by a channel in static storage: a fork in the middle of it
  /// would leave the child waiting for ever.
  [[nodiscard]] static channel_registry& the() {
    static auto* const only = new channel_registry;
    return *only;
  }

  void add(const std::shared_ptr<channel_core>& channel) {
    const std::lock_guard lock(mutex_);
    std::erase_if(channels_, [](const auto& known) { return known.expired(); });
    channels_.push_back(channel);
  }

  void add(const std::shared_ptr<waits_for_python>& waiter) {
    const std::lock_guard lock(mutex_);
    std::erase_if(waiters_, [](const auto& known) { return known.expired(); });
    waiters_.push_back(waiter);
  }

  /// Makes sure that the gate is open, so that there will be a farewell, and that adaptive channels
  /// can see the GIL. Attached. Leaves no exception.
  void meet_python() noexcept {
    if (!the_gate.open()) PyErr_Clear();
    const life now = the_gate.now();
    if (met_.exchange(now) != now) cpython::gil_view::find();
  }

  /// Main may have gone to sleep, or into a long call, before it saw a pending call. A thread of
  /// moored's looks after some ms, and lives while there is anything to look after.
  void watch_over(channel_core& channel) noexcept;

 private:
  channel_registry() {
    the_gate.before_closing.store([]() noexcept { the().farewell(); });
    pthread_atfork([] { the().before_fork(); }, [] { the().after_fork(false); },
                   [] { the().after_fork(true); });
  }

  [[nodiscard]] std::vector<std::shared_ptr<channel_core>> alive() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<channel_core>> all;
    for (const auto& known : channels_)
      if (auto channel = known.lock()) all.push_back(std::move(channel));
    return all;
  }

  void farewell() noexcept {
    std::vector<std::weak_ptr<waits_for_python>> waiters;
    {
      const std::lock_guard lock(mutex_);
      waiters.swap(waiters_);
    }
    for (const auto& known : waiters)
      if (const auto waiter = known.lock()) waiter->python_ends();
    for (const auto& channel : alive()) channel->farewell();
  }

  void before_fork() {
    mutex_.lock();
    for (const auto& known : channels_)
      if (auto channel = known.lock()) forking_.push_back(std::move(channel));
    for (const auto& channel : forking_) channel->before_fork();
  }
  void after_fork(bool child) {
    for (const auto& channel : forking_) {
      if (child) {
        channel->after_fork_in_child();
      } else {
        channel->after_fork_in_parent();
      }
    }
    if (child) {
      watched_.clear();
      watching_ = false;
    }
    mutex_.unlock();
    forking_.clear();  // not under the lock: the last of a channel may be here
  }

  void watch() noexcept;

  std::mutex mutex_;
  std::vector<std::weak_ptr<channel_core>> channels_;
  std::vector<std::shared_ptr<channel_core>> forking_;
  std::vector<std::weak_ptr<channel_core>> watched_;
  std::vector<std::weak_ptr<waits_for_python>> waiters_;
  bool watching_ = false;
  std::atomic<life> met_{0};
};

[[maybe_unused]] inline const channel_registry& made_when_loaded = channel_registry::the();

inline void watch_over(channel_core& channel) noexcept {
  channel_registry::the().watch_over(channel);
}

inline void channel_registry::watch_over(channel_core& channel) noexcept {
  const std::weak_ptr<channel_core> wanted = channel.weak_from_this();
  const auto is_it = [&](const std::weak_ptr<channel_core>& known) {
    return !known.owner_before(wanted) && !wanted.owner_before(known);
  };
  const std::lock_guard lock(mutex_);
  if (std::ranges::none_of(watched_, is_it)) watched_.push_back(wanted);
  if (watching_) return;
  try {
    std::thread([this] { watch(); }).detach();
    watching_ = true;
  } catch (const std::system_error&) {
    // No thread to be had: the next send tries again, and main still sees its pending call.
  }
}

inline void channel_registry::watch() noexcept {
  constexpr std::chrono::milliseconds patience{5};  // CPython's switch interval
  constexpr int quiet_rounds = 200;                 // a second
  std::vector<std::shared_ptr<channel_core>> watched;
  std::vector<std::shared_ptr<channel_core>> late;
  for (int quiet = 0;;) {
    std::this_thread::sleep_for(patience);
    // What was on its way at the last look and still is.
    for (const auto& channel : late)
      if (channel->is_interrupting()) channel->enter_instead_of_main();
    late.clear();
    {
      const std::lock_guard lock(mutex_);
      if (quiet == quiet_rounds) {
        watched_.clear();
        watching_ = false;
        return;
      }
      for (const auto& known : watched_)
        if (auto channel = known.lock()) watched.push_back(std::move(channel));
    }
    // Not under the lock: the last of a channel may be here, and its end may wait for the GIL.
    for (auto& channel : watched)
      if (channel->is_interrupting()) late.push_back(std::move(channel));
    watched.clear();
    quiet = late.empty() ? quiet + 1 : 0;
  }
}

}  // namespace moored::inline v0::detail
