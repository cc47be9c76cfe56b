// environment.cpp: what a program is started with, so that the dynamic loader takes our libraries.
#include "environment.hpp"

#include <gnu/libc-version.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "../protocol.hpp"
#include "../protocol.hpp"
#include "failure.hpp"

namespace moored::launcher {

namespace {

/// Ours after those that are there; earlier ones of ours (`moored run` under `moored run`) go.
void set_list(const char* variable, const std::string& library, const std::string& folder) {
  const char* const before = std::getenv(variable);
  std::string list;
  std::string_view rest = before != nullptr ? before : "";
  while (!rest.empty()) {
    const std::size_t end = rest.find_first_of(" :");
    const std::string_view entry = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    const std::string_view name = entry.substr(entry.rfind('/') + 1);
    if (entry.empty() || name == MOORED_KEEP_LIBRARY || name == MOORED_AUDIT_LIBRARY) continue;
    if (!list.empty()) list += ':';
    list += entry;
  }
  if (!library.empty()) {
    if (!list.empty()) list += ':';
    list += folder + '/' + library;
  }
  if (list.empty()) {
    unsetenv(variable);
  } else {
    setenv(variable, list.c_str(), 1);
  }
}

/// Says before the program runs that the document could not be written after it. The path is made
/// absolute, because the program may go to another folder.
[[nodiscard]] std::string checked_path(const std::string& path) {
  std::string whole = path;
  if (path.front() != '/') {
    std::array<char, PATH_MAX> here{};
    if (getcwd(here.data(), here.size()) == nullptr) throw cannot_write(path, std::strerror(errno));
    whole = std::string(here.data()) + '/' + path;
  }
  const std::size_t slash = whole.rfind('/');
  const std::string folder = slash == 0 ? "/" : whole.substr(0, slash);
  struct stat found {};
  if (stat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode))
    throw cannot_write(path, "there is no directory " + folder + "; make it first");
  const bool is_there = stat(whole.c_str(), &found) == 0;
  if (is_there && S_ISDIR(found.st_mode))
    throw cannot_write(path, "it is a directory; name a file");
  const bool is_device = is_there && !S_ISREG(found.st_mode);
  if (access(is_device ? whole.c_str() : folder.c_str(), W_OK) != 0)
    throw cannot_write(path, "no permission to write in " + folder);
  return whole;
}

void require_glibc() {
  constexpr long needed = 35;
  const char* const version = gnu_get_libc_version();
  char* rest = nullptr;
  const long major = std::strtol(version, &rest, 10);
  const long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
  if (major < 2 || (major == 2 && minor < needed)) throw old_glibc(version);
}

}  // namespace

void prepare_environment(const options& asked, const std::string& libraries,
                         const std::string& command) {
  if (libraries.find_first_of(" :;") != std::string::npos) throw unspeakable_folder(libraries);
  const bool keeps = !asked.fresh && !asked.cache_only;
  if (keeps) require_glibc();

  std::string letters = std::to_string(getpid()) + ' ';
  if (keeps) letters += run::letter::keep;
  if (asked.no_children) letters += run::letter::alone;
  if (asked.statistics) letters += run::letter::statistics;
  setenv(MOORED_RUN_VARIABLE, letters.c_str(), 1);
  if (asked.json.empty()) {
    unsetenv(MOORED_RUN_JSON_VARIABLE);
    unsetenv(MOORED_RUN_COMMAND_VARIABLE);
  } else {
    setenv(MOORED_RUN_JSON_VARIABLE, checked_path(asked.json).c_str(), 1);
    setenv(MOORED_RUN_COMMAND_VARIABLE, command.c_str(), 1);
  }
  set_list("LD_PRELOAD", MOORED_KEEP_LIBRARY, libraries);
  set_list("LD_AUDIT", keeps ? MOORED_AUDIT_LIBRARY : "", libraries);
}

}  // namespace moored::launcher
