// document_path.cpp: where --json is written to when the program has ended.
//
// Links are followed one by one. What follows them all (realpath) cannot tell a descriptor from the
// file that is open by it, and that file must be written to where the descriptor stands, and never
// be replaced. As moored.report.place does it.
#include "document_path.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "failure.hpp"

namespace moored::launcher {

namespace {

constexpr const char* own_descriptors = "/proc/self/fd";

/// Empty when there is no such thing.
[[nodiscard]] std::string without_links(const std::string& path) {
  std::array<char, PATH_MAX> real{};
  return realpath(path.c_str(), real.data()) == nullptr ? "" : real.data();
}

/// Empty when it is no link.
[[nodiscard]] std::string link_at(const std::string& path) {
  std::array<char, PATH_MAX> text{};
  const ssize_t size = readlink(path.c_str(), text.data(), text.size() - 1);
  return size < 0 ? "" : text.data();
}

[[nodiscard]] bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

/// Where `asked` leads to: an absolute path, whose folder is real.
[[nodiscard]] std::string follow(const std::string& asked) {
  constexpr int most_links = 40;  // as many as the system follows
  std::string path = asked;
  for (int links = 0; links < most_links; ++links) {
    const std::size_t slash = path.rfind('/');
    const std::string typed = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    const std::string folder = without_links(typed);
    struct stat found {};
    if (folder.empty() || stat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) {
      throw cannot_write(
          asked, "there is no directory " + typed.substr(0, typed.rfind('/')) + "; make it first");
    }
    const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
    if (is_number(name) && (folder == without_links(own_descriptors) ||
                            folder == without_links("/proc/thread-self/fd")))
      return std::string(own_descriptors) + '/' + name;
    const std::string whole = (folder == "/" ? "" : folder) + '/' + name;
    // Another process's descriptor is left to be opened by its name, which is a link as well.
    const bool is_descriptor = is_number(name) && folder.rfind("/proc/", 0) == 0;
    const std::string link = is_descriptor ? "" : link_at(whole);
    if (link.empty()) return whole;
    path = link.front() == '/' ? link : folder + '/' + link;
  }
  throw cannot_write(asked, "it is a link that leads to itself");
}

/// The file that a shell has made stdout or stderr is written to by that.
[[nodiscard]] std::string as_descriptor(const struct stat& file) {
  for (const int number : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat open {};
    if (S_ISREG(file.st_mode) && fstat(number, &open) == 0 && open.st_dev == file.st_dev &&
        open.st_ino == file.st_ino)
      return std::string(own_descriptors) + '/' + std::to_string(number);
  }
  return {};
}

}  // namespace

std::string document_path(const std::string& asked) {
  const std::string path = asked == "-" ? std::string(own_descriptors) + "/1" : follow(asked);
  if (path.rfind(own_descriptors, 0) == 0) {
    const int number = std::atoi(path.c_str() + path.rfind('/') + 1);
    const int flags = fcntl(number, F_GETFL);
    if (flags < 0) throw cannot_write(asked, std::strerror(errno));
    if ((flags & O_ACCMODE) == O_RDONLY) throw cannot_write(asked, "it is open for reading");
    return path;
  }
  struct stat found {};
  const bool is_there = stat(path.c_str(), &found) == 0;
  if (is_there && S_ISDIR(found.st_mode))
    throw cannot_write(asked, "it is a directory; name a file");
  if (const std::string open = is_there ? as_descriptor(found) : ""; !open.empty()) return open;
  const std::string folder = path.rfind('/') == 0 ? "/" : path.substr(0, path.rfind('/'));
  const bool is_device = is_there && !S_ISREG(found.st_mode);
  if (access(is_device ? path.c_str() : folder.c_str(), W_OK) != 0)
    throw cannot_write(asked, "no permission to write in " + folder);
  return path;
}

}  // namespace moored::launcher
