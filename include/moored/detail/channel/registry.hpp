// moored/detail/channel/registry.hpp: all channels of this copy of moored, for what concerns them all: the
// end of Python, forks, and interrupts that main does not see.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "../own_thread.hpp"
#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

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

  /// Throws std::bad_alloc.
  void add(const std::shared_ptr<channel_core>& channel) {
    stay_loaded();  // for pending calls, and the thread that watches
    const std::lock_guard lock(mutex_);
    if (!hook_forks()) throw std::bad_alloc();
    erase_where(channels_, [](const known& one) { return one.channel.expired(); });
    channels_.push_back(known{channel, {}, 0});
  }

  void add(const std::shared_ptr<waits_for_python>& waiter) {
    const std::lock_guard lock(mutex_);
    erase_where(waiters_, [](const auto& waits) { return waits.expired(); });
    waiters_.push_back(waiter);
  }

  /// Makes sure that the gate is open, so that there will be a farewell, and that adaptive channels
  /// can see the GIL. Attached. Leaves no exception.
  void meet_python() noexcept {
    if (!the_gate.open()) PyErr_Clear();
    const epoch now = the_gate.now();
    if (met_.exchange(now) != now) cpython::gil_view::find();
  }

  /// Main may have gone to sleep, or into a long call, before it saw a pending call. A thread of
  /// moored's looks after some ms, and lives while there is anything to look after. False when
  /// there is neither memory nor a thread for that.
  [[nodiscard]] bool watch_over(channel_core& channel) noexcept;

 private:
  // What comes at a fork, at the end of Python, or on a watching thread has nobody whom it could
  // tell that there is no memory. So all that it needs is in here.
  struct known {
    std::weak_ptr<channel_core> channel;
    std::shared_ptr<channel_core> forking;  // its lock is ours through a fork
    epoch farewell_in = 0;                     // it has had the farewell of that life
  };
  struct watched {
    std::weak_ptr<channel_core> channel;
    bool is_late = false;  // at the last look its pending call was on its way
  };

  channel_registry() {
    the_gate.before_closing.store([](deadline*) noexcept { the().farewell(); });
    (void)hook_forks();
  }

  /// False when there is no memory for it.
  [[nodiscard]] bool hook_forks() noexcept {
    if (!hooked_) {
      hooked_ = pthread_atfork([] { the().before_fork(); }, [] { the().after_fork(false); },
                               [] { the().after_fork(true); }) == 0;
    }
    return hooked_;
  }

  /// One that lives and has not had its farewell, which it now gets.
  [[nodiscard]] std::shared_ptr<channel_core> next_farewell() noexcept {
    const epoch now = the_gate.now();
    const std::lock_guard lock(mutex_);
    for (known& one : channels_) {
      if (std::exchange(one.farewell_in, now) == now) continue;
      if (auto channel = one.channel.lock()) return channel;
    }
    return nullptr;
  }

  [[nodiscard]] std::shared_ptr<channel_core> next_forked() noexcept {
    const std::lock_guard lock(mutex_);
    for (known& one : channels_)
      if (one.forking != nullptr) return std::move(one.forking);
    return nullptr;
  }

  void farewell() noexcept {
    std::vector<std::weak_ptr<waits_for_python>> waiters;
    {
      const std::lock_guard lock(mutex_);
      waiters.swap(waiters_);
    }
    for (const auto& waits : waiters)
      if (const auto waiter = waits.lock()) waiter->python_ends();
    while (const auto channel = next_farewell()) channel->farewell();
  }

  void before_fork() noexcept {
    mutex_.lock();
    for (known& one : channels_) {
      one.forking = one.channel.lock();
      if (one.forking != nullptr) one.forking->before_fork();
    }
  }
  void after_fork(bool child) noexcept {
    for (const known& one : channels_) {
      if (one.forking == nullptr) continue;
      if (child) {
        one.forking->after_fork_in_child();
      } else {
        one.forking->after_fork_in_parent();
      }
    }
    if (child) {
      watched_.clear();
      watching_ = false;
    }
    mutex_.unlock();
    while (next_forked()) {  // ends not under the lock: the last of a channel may be here
    }
  }

  void watch() noexcept;

  std::mutex mutex_;
  std::vector<known> channels_;
  std::vector<watched> watched_;
  std::vector<std::weak_ptr<waits_for_python>> waiters_;
  bool hooked_ = false;
  bool watching_ = false;
  int quiet_ = 0;  // rounds in which there was nothing to watch
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
  const std::lock_guard lock(mutex_);
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
    for (std::size_t at = 0;; ++at) {
      // Not kept under the lock: the last of a channel may be here, and its end may wait for the
      // GIL.
      std::shared_ptr<channel_core> channel;
      bool is_late = false;
      {
        const std::lock_guard lock(mutex_);
        if (at == watched_.size()) break;
        channel = watched_[at].channel.lock();
        is_late = watched_[at].is_late;
      }
      if (channel == nullptr) continue;
      if (is_late && channel->is_interrupting()) channel->enter_instead_of_main();
      const bool is_interrupting = channel->is_interrupting();
      const std::lock_guard lock(mutex_);
      watched_[at].is_late = is_interrupting;
      if (is_interrupting) quiet_ = 0;
    }
    const std::lock_guard lock(mutex_);
    if (++quiet_ < quiet_rounds) continue;
    watched_.clear();
    watching_ = false;
    return;
  }
}

}  // namespace detail
MOORED_NAMESPACE_END
