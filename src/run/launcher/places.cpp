// places.cpp: where the launcher finds its Python and its libraries.
#include "places.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <string_view>

#include "../protocol.hpp"

namespace moored::launcher {

const char* const python_name = MOORED_PYTHON_NAME;

namespace {

[[nodiscard]] std::string own_folder() {
  std::array<char, PATH_MAX> path{};
  const ssize_t size = readlink("/proc/self/exe", path.data(), path.size() - 1);
  const std::string whole(path.data(), size < 0 ? 0 : static_cast<std::size_t>(size));
  return whole.substr(0, whole.rfind('/'));
}

[[nodiscard]] bool exists(const std::string& path) {
  return access(path.c_str(), F_OK) == 0;
}

/// Also for a link that leads nowhere, or where this user may not go.
[[nodiscard]] bool is_there(const std::string& path) {
  struct stat found {};
  return lstat(path.c_str(), &found) == 0;
}

[[nodiscard]] bool same_file(const std::string& one, const std::string& other) {
  struct stat first {
  }, second{};
  return stat(one.c_str(), &first) == 0 && stat(other.c_str(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/// The package's libraries, when it is installed for this Python in the prefix.
[[nodiscard]] std::string libraries_under(const std::string& prefix) {
  for (const char* const folder : {"/lib/", "/lib64/"}) {
    for (const char* const packages : {"/site-packages", "/dist-packages"}) {
      const std::string library = prefix + folder + python_name + packages + "/moored/lib";
      if (exists(library + "/" MOORED_KEEP_LIBRARY)) return library;
    }
  }
  return {};
}

/// This Python, when it is in the folder, whether or not it can be executed.
[[nodiscard]] std::string python_in(const std::string& folder) {
  std::string versioned = folder + '/' + python_name;
  // An environment may have been made with a name that does not tell that there is no GIL.
  if (!is_there(versioned) && versioned.ends_with('t')) versioned.pop_back();
  if (!is_there(versioned)) return {};
  // The name that an environment's users know, where it is the same.
  const std::string plain = folder + "/python";
  return same_file(plain, versioned) ? plain : versioned;
}

/// The first word, which may be in quotes.
[[nodiscard]] std::string first_word(const std::string& line) {
  const char quote = line.empty() ? ' ' : line.front();
  const bool is_quoted = quote == '"' || quote == '\'';
  const std::size_t from = is_quoted ? 1 : 0;
  return line.substr(from, line.find(is_quoted ? quote : ' ', from) - from);
}

/// The next line, which is cut off.
[[nodiscard]] std::string next_line(std::string& text) {
  const std::size_t end = text.find('\n');
  const std::string line = text.substr(0, end);
  text.erase(0, end == std::string::npos ? end : end + 1);
  return line;
}

[[nodiscard]] std::string start_of_file(const std::string& path) {
  std::array<char, 2 * PATH_MAX> text{};
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const ssize_t size = file < 0 ? 0 : read(file, text.data(), text.size());
  if (file >= 0) close(file);
  return {text.data(), size < 0 ? 0 : static_cast<std::size_t>(size)};
}

/// The interpreter of a script, as pip and others install scripts; empty when it is not said. It is
/// named in the first line, or, when its path is long or has spaces, to a shell in the second.
[[nodiscard]] std::string python_of(const std::string& script) {
  constexpr std::string_view shell = "#!/bin/sh", by_the_shell = "'''exec' ";
  std::string text = start_of_file(script), python;
  const std::string first = next_line(text);
  if (first == shell) {
    const std::string second = next_line(text);
    if (second.rfind(by_the_shell, 0) == 0) python = first_word(second.substr(by_the_shell.size()));
  } else if (first.rfind("#!/", 0) == 0) {
    python = first_word(first.substr(2));
  }
  return python.rfind('/', 0) == 0 && !python.ends_with("/env") ? python : "";
}

}  // namespace

places look_around() {
  const std::string folder = own_folder();
  const std::string parent = folder.substr(0, folder.rfind('/'));
  places found;
  found.libraries = libraries_under(parent);
  const std::string beside = found.libraries.empty() ? "" : python_in(folder);
  if (exists(parent + "/pyvenv.cfg")) found.python = beside;
  if (found.python.empty()) found.python = python_of(folder + "/moored-python");
  if (found.python.empty()) found.python = beside;
  return found;
}

std::string on_the_path(const std::string& program) {
  const char* const variable = std::getenv("PATH");
  std::string rest = variable != nullptr ? variable : "/usr/bin:/bin";
  for (;;) {
    const std::size_t colon = rest.find(':');
    // An empty entry means the folder one stands in.
    const std::string candidate =
        colon == 0 || rest.empty() ? "./" + program : rest.substr(0, colon) + '/' + program;
    struct stat found {};
    if (access(candidate.c_str(), X_OK) == 0 && stat(candidate.c_str(), &found) == 0 &&
        S_ISREG(found.st_mode))
      return candidate;
    if (colon == std::string::npos) return {};
    rest.erase(0, colon + 1);
  }
}

}  // namespace moored::launcher
