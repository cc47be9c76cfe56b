// writing.cpp: how the report gets out of a process that is ending.
#include "writing.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "first_descriptor.hpp"

namespace moored::run {

namespace {

/// Writes all of it, or says why not.
[[nodiscard]] int write_all(int file, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {  // the program, or another one, has made the pipe so
      pollfd room{file, POLLOUT, 0};
      if (poll(&room, 1, -1) < 0 && errno != EINTR) return errno;
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

/// What C's stdout holds comes before the document, unless a thread is stuck in it.
void flush_stdout() noexcept {
  if (ftrylockfile(stdout) != 0) return;
  fflush_unlocked(stdout);
  funlockfile(stdout);
}

[[nodiscard]] int write_to_descriptor(const std::string& text) noexcept {
  const int number = first_document.find();
  if (number < 0) return EBADF;
  flush_stdout();
  return write_all(number, text);
}

[[nodiscard]] int write_to_file(const char* path, int flags, const std::string& text) noexcept {
  const int file = open(path, O_WRONLY | O_CLOEXEC | flags, 0666);  // NOLINT: the umask takes away
  if (file < 0) return errno;
  int failed = write_all(file, text);
  if (close(file) != 0 && failed == 0) failed = errno;
  return failed;
}

}  // namespace

void say(std::string_view text) noexcept {
  const int number = first_stderr.find();
  if (number >= 0) (void)write_all(number, text);
}

int write_document(const std::string& path, const std::string& text) noexcept {
  if (path.rfind("/proc/self/fd/", 0) == 0) return write_to_descriptor(text);
  if (path.rfind("/proc/", 0) == 0)  // another process's, which may hold more than this
    return write_to_file(path.c_str(), O_APPEND, text);
  struct stat found {};
  if (stat(path.c_str(), &found) == 0) {
    if (!S_ISREG(found.st_mode)) return write_to_file(path.c_str(), 0, text);
    if (found.st_nlink > 1) return write_to_file(path.c_str(), O_TRUNC, text);
  }
  const std::size_t name = path.rfind('/') + 1;
  const std::string neighbour =
      path.substr(0, name) + '.' + path.substr(name) + '.' + std::to_string(getpid()) + ".tmp";
  int failed = write_to_file(neighbour.c_str(), O_CREAT | O_TRUNC, text);
  if (failed == 0 && rename(neighbour.c_str(), path.c_str()) != 0) failed = errno;
  if (failed != 0) unlink(neighbour.c_str());
  return failed;
}

}  // namespace moored::run
