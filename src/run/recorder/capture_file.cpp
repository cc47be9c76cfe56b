// capture_file.cpp: see capture_file.hpp.
#include "capture_file.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace moored::run::recorder {

capture* make_capture(const std::string& path) noexcept {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return nullptr;
  // Room for all of it now: a full disk would otherwise be a SIGBUS in the program.
  int failed = posix_fallocate(file, 0, sizeof(capture));
  void* mapped = MAP_FAILED;
  if (failed == 0) {
    mapped = mmap(nullptr, sizeof(capture), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) failed = errno;
  }
  close(file);
  if (failed == 0) return static_cast<capture*>(mapped);
  unlink(path.c_str());
  errno = failed;
  return nullptr;
}

}  // namespace moored::run::recorder
