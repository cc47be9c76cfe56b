// moored/detail/channel/wakeup.hpp: the descriptor that tells an event loop that there is something to take.
//
// The one OS seam of the channels. Each OS answers the same five calls; this is Linux's answer.
#pragma once

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <system_error>

MOORED_NAMESPACE_BEGIN

/// Any thread may call anything at any time.
class wakeup {
 public:
  /// Throws std::system_error when the process has no descriptors left.
  wakeup() : event_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (event_ < 0) throw std::system_error(errno, std::system_category(), "eventfd");
    edges_ = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event interest{};
    interest.events = EPOLLIN | EPOLLET;
    if (edges_ < 0 || ::epoll_ctl(edges_, EPOLL_CTL_ADD, event_, &interest) != 0) {
      const int why = errno;
      if (edges_ >= 0) ::close(edges_);
      ::close(event_);
      throw std::system_error(why, std::system_category(), "epoll");
    }
  }
  ~wakeup() {
    ::close(edges_);
    ::close(event_);
  }
  wakeup(const wakeup&) = delete;
  wakeup& operator=(const wakeup&) = delete;

  /// Readable from notify() until acknowledge(). For somebody else's event loop; never read it.
  [[nodiscard]] int fd() const noexcept { return event_; }

  /// False when the OS refused, so that nobody has been told.
  bool notify() noexcept {
    const std::uint64_t one = 1;
    for (int attempt = 0; attempt < attempts; ++attempt) {
      if (MOORED_LIKELY(::write(event_, &one, sizeof one) == sizeof one))
        return true;
      if (errno == EAGAIN) {
        acknowledge();  // the counter is full: it can be read, but wait() would not be told anew
      } else if (errno != EINTR) {
        break;
      }
    }
    return false;
  }

  void acknowledge() noexcept {
    std::uint64_t count = 0;
    for (int attempt = 0; attempt < attempts; ++attempt)
      if (::read(event_, &count, sizeof count) >= 0 || errno != EINTR) return;
  }

  enum class woken : std::uint8_t { told, time_over, signal };
  /// Waits for the next notify(). A notify() is told once and to one waiter, and nothing has to be
  /// read after it: one system call a wait. Throws std::system_error when the OS refuses, as it
  /// does when somebody has closed descriptors that were not his.
  [[nodiscard]] woken wait(std::chrono::nanoseconds limit) const {
    epoll_event ready{};
    // Milliseconds, rounded up: a wait that ends too early would be a busy loop.
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(limit).count();
    constexpr std::int64_t longest = 24 * 3600 * 1000;
    const int came = ::epoll_wait(edges_, &ready, 1, static_cast<int>(ms < longest ? ms : longest));
    if (came == 1) return woken::told;
    if (came == 0) return woken::time_over;
    if (errno == EINTR) return woken::signal;
    throw std::system_error(errno, std::system_category(), "epoll_wait");
  }

 private:
  // Of a call that a signal has interrupted: enough for all signals, and no loop for ever.
  static constexpr int attempts = 100;

  int event_;
  int edges_ = -1;  // an epoll of our own, because a loop's own has no edges for us
};

MOORED_NAMESPACE_END
