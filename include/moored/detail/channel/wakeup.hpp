// moored/detail/channel/wakeup.hpp: how a thread that waits is told: by a descriptor, which an
// event loop watches, or by a futex, on which a plain thread sleeps.
//
// The one OS seam of the channels. Each OS answers the same calls; this is Linux's answer.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <ctime>
#include <system_error>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// What came of telling consumers.
enum class told : std::uint8_t {
  already,  ///< All of them had been told before.
  all,      ///< Some had not, and now have.
  refused,  ///< The OS refused to tell one.
};

/// Puts off a cancellation of the calling thread for a scope. What a sender does may not throw, and
/// a cancellation throws.
class no_cancellation {
 public:
  no_cancellation() noexcept { (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~no_cancellation() { (void)pthread_setcancelstate(before_, nullptr); }
  no_cancellation(const no_cancellation&) = delete;
  no_cancellation& operator=(const no_cancellation&) = delete;

 private:
  int before_ = PTHREAD_CANCEL_ENABLE;
};

}  // namespace detail

/// A descriptor that an event loop watches: readable from notify() until acknowledge(). Any thread
/// may call anything at any time. Nothing here blocks.
class wakeup {
 public:
  /// Throws std::system_error when the process has no descriptors left. `acknowledged`, if it is
  /// not null, is set by every acknowledge().
  explicit wakeup(std::atomic<bool>* acknowledged = nullptr)
      : event_(make_event(0)), acknowledged_(acknowledged) {
    if (event_ < 0) throw std::system_error(errno, std::system_category(), "eventfd");
  }
  ~wakeup() {
    const detail::no_cancellation uncancelled;
    if (event_ >= 0) ::close(event_);
  }
  wakeup(const wakeup&) = delete;
  wakeup& operator=(const wakeup&) = delete;

  /// For an event loop. Never read or write it. -1 in the child of a fork that had no descriptors
  /// left.
  [[nodiscard]] int fd() const noexcept { return event_; }

  /// Makes it readable, if it is not.
  detail::told notify() noexcept {
    using detail::told;
    if (told_.exchange(true, std::memory_order_acq_rel)) return told::already;
    const detail::no_cancellation uncancelled;
    const std::uint64_t one = 1;
    for (int attempt = 0; attempt < attempts; ++attempt) {
      if (MOORED_LIKELY(::write(event_, &one, sizeof one) == sizeof one)) return told::all;
      if (errno == EAGAIN) return told::all;  // the counter is full: it can be read
      if (errno != EINTR) break;
    }
    told_.store(false, std::memory_order_release);
    return told::refused;
  }

  /// Makes it unreadable until the next notify(). Do it before taking: an event that comes in
  /// between is then either taken or told anew.
  void acknowledge() noexcept {
    const detail::no_cancellation uncancelled;
    std::uint64_t count = 0;
    for (int attempt = 0; attempt < attempts; ++attempt)
      if (::read(event_, &count, sizeof count) >= 0 || errno != EINTR) break;
    told_.store(false, std::memory_order_release);
    if (acknowledged_ != nullptr) acknowledged_->store(true, std::memory_order_release);
  }

  /// In the child of a fork: the descriptor becomes the child's own, under the same number, and
  /// readable. The parent's is not written, read, or taken out of any epoll: the epoll knows it as
  /// another file. Where there is no descriptor for that the child has none.
  void renew() noexcept {
    if (event_ < 0) return;
    const int fresh = make_event(1);
    if (fresh < 0 || ::dup3(fresh, event_, O_CLOEXEC) < 0) {
      ::close(event_);
      event_ = -1;
    }
    if (fresh >= 0) ::close(fresh);
    told_.store(true, std::memory_order_relaxed);
  }

 private:
  // Of a call that a signal has interrupted: enough for all signals, and no loop for ever.
  static constexpr int attempts = 100;

  [[nodiscard]] static int make_event(unsigned count) noexcept {
    return ::eventfd(count, EFD_NONBLOCK | EFD_CLOEXEC);
  }

  int event_;
  std::atomic<bool> told_{false};
  std::atomic<bool>* const acknowledged_;
};

namespace detail {

/// Where plain threads sleep. It needs no descriptor, and a signal ends a sleep, as it ends one of
/// CPython's own locks. Any thread may call anything at any time.
class sleepers {
 public:
  using ticket = std::uint32_t;

  /// Taken while there is nothing to take, and under the lock under which that was seen.
  [[nodiscard]] ticket now() const noexcept { return rung_.load(std::memory_order_relaxed); }

  enum class woken : std::uint8_t { told, time_over, signal };
  /// Sleeps until the next ring() after the ticket was taken.
  [[nodiscard]] woken sleep(ticket since, std::chrono::nanoseconds limit) noexcept {
    // A raw call, and so no point at which a thread is cancelled. The time is the steady clock's.
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(limit);
    timespec time{};
    time.tv_sec = static_cast<std::time_t>(seconds.count());
    time.tv_nsec = static_cast<long>((limit - seconds).count());
    if (call(FUTEX_WAIT_PRIVATE, since, &time) == 0 || errno == EAGAIN) return woken::told;
    return errno == EINTR ? woken::signal : woken::time_over;
  }
  /// Wakes them all.
  void ring() noexcept {
    rung_.fetch_add(1, std::memory_order_release);
    (void)call(FUTEX_WAKE_PRIVATE, static_cast<std::uint32_t>(INT_MAX), nullptr);
  }

 private:
  long call(int operation, std::uint32_t value, const timespec* time) noexcept {
    static_assert(sizeof rung_ == sizeof(std::uint32_t));
    return ::syscall(SYS_futex, &rung_, operation, value, time, nullptr, 0);
  }

  std::atomic<ticket> rung_{0};
};

}  // namespace detail
MOORED_NAMESPACE_END
