// moored/detail/channel/registry.hpp: all channels of this copy of moored, for what concerns them
// all: the end of Python, forks, and handlers that are late.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "../cpython/gil_view.hpp"
#include "../own_thread.hpp"
#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// What waits for Python without being inside, and must hear that it ends.
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

  /// Throws std::bad_alloc.
  void add(const std::shared_ptr<channel_core>& channel) {
    stay_loaded();  // for pending calls, and the thread that watches
    bool is_late = false;
    {
      const locked lock(mutex_);
      if (!hook_forks()) throw std::bad_alloc();
      erase_where(channels_, [](const known& one) { return one.channel.expired(); });
      channels_.push_back(known{channel, {}, 0});
      is_late = is_open(said_farewell_in_) && said_farewell_in_ == the_gate.now();
    }
    if (is_late) channel->end_without_python();
  }

  /// False when the end of Python has been told already. Throws std::bad_alloc.
  [[nodiscard]] bool add(const std::shared_ptr<waits_for_python>& waiter) {
    const locked lock(mutex_);
    if (said_farewell_in_ != 0 && same_life(said_farewell_in_, the_gate.now())) return false;
    erase_where(waiters_, [](const auto& waits) { return waits.expired(); });
    waiters_.push_back(waiter);
    return true;
  }

  /// Makes sure that the gate is open, so that there will be a farewell, and that adaptive channels
  /// can see the GIL. Attached. Leaves no exception.
  void meet_python() noexcept {
    if (!the_gate.open()) PyErr_Clear();
    const epoch now = the_gate.now();
    if (met_.exchange(now) != now) cpython::gil_view::find();
  }

  /// Main may have gone to sleep, or into a long call, before it saw a pending call; a loop that
  /// was told may have ended. A thread of moored's looks after some ms, and lives while there is
  /// anything to look after. False when there is neither memory nor a thread for that.
  [[nodiscard]] bool watch_over(channel_core& channel) noexcept;

 private:
  // A fork, the end of Python and the watching thread have no caller that could be told that there
  // is no memory. So all that they need is in here.
  struct known {
    std::weak_ptr<channel_core> channel;
    std::shared_ptr<channel_core> forking;  // its lock is ours through a fork
    epoch farewell_in = 0;                  // it has had the farewell of that one
  };
  struct watched {
    std::weak_ptr<channel_core> channel;
    bool is_late = false;  // it was at the last look
  };

  channel_registry() {
    the_gate.before_closing.store([](deadline* due) noexcept { the().farewell(due); });
    const locked lock(mutex_);
    (void)hook_forks();
  }

  /// False when there is no memory for it.
  [[nodiscard]] bool hook_forks() noexcept MOORED_REQUIRES(mutex_) {
    if (!hooked_) {
      hooked_ = pthread_atfork([] { the().before_fork(); }, [] { the().after_fork_in_parent(); },
                               [] { the().after_fork_in_child(); }) == 0;
    }
    return hooked_;
  }

  /// One that lives and has not had its farewell, which it now gets.
  [[nodiscard]] std::shared_ptr<channel_core> next_farewell() noexcept {
    const epoch now = the_gate.now();
    const locked lock(mutex_);
    for (known& one : channels_) {
      if (std::exchange(one.farewell_in, now) == now) continue;
      if (auto channel = one.channel.lock()) return channel;
    }
    return nullptr;
  }

  [[nodiscard]] std::shared_ptr<channel_core> next_forked() noexcept {
    const locked lock(mutex_);
    for (known& one : channels_)
      if (one.forking != nullptr) return std::move(one.forking);
    return nullptr;
  }

  /// With the deadline of the whole end. Without one Python can run no more.
  void farewell(deadline* due) noexcept {
    std::vector<std::weak_ptr<waits_for_python>> waiters;
    {
      const locked lock(mutex_);
      waiters.swap(waiters_);
      said_farewell_in_ = the_gate.now();
    }
    for (const auto& waits : waiters)
      if (const auto waiter = waits.lock()) waiter->python_ends();
    while (const auto channel = next_farewell()) {
      if (due != nullptr)
        channel->farewell(*due);
      else
        channel->end_without_python();
    }
  }

  void before_fork() noexcept MOORED_UNCHECKED {
    mutex_.lock();
    for (known& one : channels_) {
      one.forking = one.channel.lock();
      if (one.forking != nullptr) one.forking->before_fork();
    }
  }
  void after_fork_in_parent() noexcept MOORED_UNCHECKED {
    for (const known& one : channels_)
      if (one.forking != nullptr) one.forking->after_fork_in_parent();
    mutex_.unlock();
    while (next_forked()) {  // ends not under the lock: the last of a channel may be here
    }
  }
  void after_fork_in_child() noexcept MOORED_UNCHECKED {
    for (known& one : channels_) {
      if (one.forking == nullptr) continue;
      one.forking->after_fork_in_child();
      // The last of a channel, which another thread of the parent has just let go: it stays, for
      // what is in it is the parent's to destroy.
      if (one.forking.use_count() != 1) one.forking.reset();
    }
    watched_.clear();
    watching_ = false;
    mutex_.unlock();
  }

  void watch() noexcept;

  mutex mutex_;
  std::vector<known> channels_ MOORED_GUARDED_BY(mutex_);
  std::vector<watched> watched_ MOORED_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<waits_for_python>> waiters_ MOORED_GUARDED_BY(mutex_);
  bool hooked_ MOORED_GUARDED_BY(mutex_) = false;
  bool watching_ MOORED_GUARDED_BY(mutex_) = false;
  int quiet_ MOORED_GUARDED_BY(mutex_) = 0;  // rounds in which there was nothing to watch
  epoch said_farewell_in_ MOORED_GUARDED_BY(mutex_) = 0;
  std::atomic<epoch> met_{0};
};

[[maybe_unused]] inline const channel_registry& made_when_loaded = channel_registry::the();

inline bool watch_over(channel_core& channel) noexcept {
  return channel_registry::the().watch_over(channel);
}

inline bool channel_registry::watch_over(channel_core& channel) noexcept {
  const std::weak_ptr<channel_core> wanted = channel.weak_from_this();
  const auto is_it = [&](const watched& one) {
    return !one.channel.owner_before(wanted) && !wanted.owner_before(one.channel);
  };
  const locked lock(mutex_);
  try {
    if (std::none_of(watched_.begin(), watched_.end(), is_it))
      watched_.push_back(watched{wanted, false});
    quiet_ = 0;
    if (watching_) return true;
    start_own_thread([this] { watch(); }).detach();
    return watching_ = true;
  } catch (const std::exception&) {
    return false;
  }
}

inline void channel_registry::watch() noexcept {
  constexpr std::chrono::milliseconds patience{5};  // CPython's switch interval
  constexpr int quiet_rounds = 200;                 // a second
  for (;;) {
    std::this_thread::sleep_for(patience);
    for (std::size_t index = 0;; ++index) {
      std::shared_ptr<channel_core> channel;  // ends not under the lock
      bool was_late = false;
      {
        const locked lock(mutex_);
        if (index == watched_.size()) break;
        channel = watched_[index].channel.lock();
        was_late = watched_[index].is_late;
      }
      if (channel == nullptr) continue;
      if (was_late) channel->look_after();
      const bool is_late = channel->is_late();
      const locked lock(mutex_);
      watched_[index].is_late = is_late;
      if (is_late) quiet_ = 0;
    }
    const locked lock(mutex_);
    if (++quiet_ < quiet_rounds) continue;
    watched_.clear();
    watching_ = false;
    return;
  }
}

}  // namespace detail
MOORED_NAMESPACE_END
