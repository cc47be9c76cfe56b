// first_descriptor.hpp: a descriptor of the time when the program began, for what is said at its
// end.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace moored::run {

/// stderr, for --stats, or what --json names. A program may close it, or give its number to
/// something else: a daemon to its log, a test to what it reads itself.
///
/// As long as the program does neither, nothing is kept, and a program that counts its descriptors
/// counts as ever. When it does (watch_descriptors.cpp), it gets one more, which its children do
/// not inherit, with a number that is not given away otherwise: the next open() returns what it
/// would, and as many can be opened.
class first_descriptor {
 public:
  /// Called once, before the program's own code runs.
  void watch(int number) noexcept {
    if (number < 0 || fstat(number, &identity_) != 0) return;
    number_ = number;
    owner_ = getpid();
  }

  /// Called before the number is closed or given away. Also between vfork and exec, where memory is
  /// shared and descriptors are not: so only the process that watches keeps anything.
  void keep(int number) noexcept {
    if (number != number_ || number < 0 || kept_ >= 0 || getpid() != owner_ || !is_it(number))
      return;
    const int error = errno;
    kept_ = duplicate(number);
    errno = error;
  }

  /// In the child of a fork, which may live on as a daemon, and for whose parent's pipe a shell may
  /// wait to be closed.
  void let_go() noexcept {
    if (kept_ >= 0) syscall(SYS_close, kept_);
    kept_ = -1;
  }

  /// Where to write at the end, or -1. The program's own choice is next best, if what it has put
  /// there is made to be added to: nothing is written into a file or a connection of its own.
  [[nodiscard]] int find() const noexcept {
    if (is_it(number_)) return number_;
    if (kept_ >= 0 && is_it(kept_)) return kept_;
    return takes_lines(number_) ? number_ : -1;
  }

 private:
  [[nodiscard]] bool is_it(int number) const noexcept {
    struct stat found {};
    return fstat(number, &found) == 0 && found.st_dev == identity_.st_dev &&
           found.st_ino == identity_.st_ino && found.st_rdev == identity_.st_rdev;
  }

  [[nodiscard]] static bool takes_lines(int number) noexcept {
    struct stat found {};
    if (fstat(number, &found) != 0) return false;
    const int flags = fcntl(number, F_GETFL);
    if ((flags & O_ACCMODE) == O_RDONLY) return false;
    return S_ISCHR(found.st_mode) || S_ISFIFO(found.st_mode) ||
           (S_ISREG(found.st_mode) && (flags & O_APPEND) != 0);
  }

  /// Above the limit where that is small, so that it takes no place of the program's; beyond what
  /// programs use where it is large, because every fork copies the table up to the highest number.
  [[nodiscard]] static int duplicate(int number) noexcept {
    constexpr rlim_t high = 1024;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
    const rlim_t least = std::min(limit.rlim_cur, high);
    const bool is_raised = least == limit.rlim_cur && limit.rlim_cur < limit.rlim_max;
    rlimit raised = limit;
    ++raised.rlim_cur;
    if (is_raised && setrlimit(RLIMIT_NOFILE, &raised) != 0) return -1;
    const int made = fcntl(number, F_DUPFD_CLOEXEC, static_cast<int>(least));
    if (is_raised) setrlimit(RLIMIT_NOFILE, &limit);
    return made >= 0 ? made : fcntl(number, F_DUPFD_CLOEXEC, static_cast<int>(least / 2));
  }

  int number_ = -1;
  int kept_ = -1;
  pid_t owner_ = 0;
  struct stat identity_ {};
};

inline first_descriptor first_stderr;    ///< With --stats, or --json, which may fail.
inline first_descriptor first_document;  ///< With --json, where that is a descriptor.

}  // namespace moored::run
