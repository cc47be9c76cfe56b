// lab/native/server/wake_fd.hpp: an eventfd that pulls the main thread out of its wait.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace moored::lab {

class wake_fd {
 public:
  wake_fd() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (fd_ < 0) throw std::system_error(errno, std::system_category(), "eventfd");
  }
  wake_fd(const wake_fd&) = delete;
  wake_fd& operator=(const wake_fd&) = delete;
  ~wake_fd() { ::close(fd_); }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  // Both may fail only by EAGAIN, which says that there is nothing to do: signalled already, or not
  // at all.
  void signal() noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto done = ::write(fd_, &one, sizeof one);
  }
  void reset() noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const auto done = ::read(fd_, &count, sizeof count);
  }

 private:
  int fd_;
};

}  // namespace moored::lab
