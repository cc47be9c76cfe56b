// environment_list.hpp: what `moored run` has put into a list in the environment, and how it is
// taken out again: by the launcher, by the program that is alone, and for a child that cannot find
// it.
//
// Nothing here allocates: the last is done between fork and exec.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include "protocol.hpp"

namespace moored::run {

/// The launcher makes room for the thread_locals of libraries that are loaded when a program
/// starts. Under LD_AUDIT they all come out of a reserve, which is glibc's own for libraries loaded
/// later.
#define MOORED_ROOM_VARIABLE "GLIBC_TUNABLES"
#define MOORED_ROOM_TUNABLE "glibc.rtld.optional_static_tls"

/// True for one entry of LD_PRELOAD or LD_AUDIT that names a library of ours, in whatever folder.
[[nodiscard]] inline bool is_own_library(std::string_view entry) noexcept {
  const std::string_view name = entry.substr(entry.rfind('/') + 1);
  return name == MOORED_KEEP_LIBRARY || name == MOORED_AUDIT_LIBRARY;
}

/// True for one entry of GLIBC_TUNABLES that says how large the reserve is.
[[nodiscard]] inline bool is_room(std::string_view entry) noexcept {
  return entry.substr(0, entry.find('=')) == MOORED_ROOM_TUNABLE;
}

using entry_test = bool (*)(std::string_view);

/// The next entry of a list, which is cut off from it. The dynamic loader takes spaces and colons
/// in its lists; a tunable has no space.
[[nodiscard]] inline std::string_view next_entry(std::string_view& list) noexcept {
  const std::size_t end = list.find_first_of(" :");
  const std::string_view entry = list.substr(0, end);
  list = end == std::string_view::npos ? std::string_view{} : list.substr(end + 1);
  return entry;
}

[[nodiscard]] inline bool has_entry(std::string_view list, entry_test is_meant) noexcept {
  while (!list.empty()) {
    if (is_meant(next_entry(list))) return true;
  }
  return false;
}

/// Copies the list to `into`, which has room for all of it, without the entries that are meant;
/// returns the length of what was copied.
inline std::size_t copy_without(std::string_view list, entry_test is_meant, char* into) noexcept {
  std::size_t size = 0;
  while (!list.empty()) {
    const std::string_view entry = next_entry(list);
    if (entry.empty() || is_meant(entry)) continue;
    if (size != 0) into[size++] = ':';
    std::memcpy(into + size, entry.data(), entry.size());
    size += entry.size();
  }
  return size;
}

[[nodiscard]] inline std::string without(const char* list, entry_test is_meant) {
  std::string left(list != nullptr ? list : "");
  std::string copy(left.size(), '\0');
  copy.resize(copy_without(left, is_meant, copy.data()));
  return copy;
}

}  // namespace moored::run
