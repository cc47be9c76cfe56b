// settings.hpp: what the launcher tells the preloaded library, by the environment.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "../protocol.hpp"

namespace moored::run {

/// MOORED_RUN is the number of the process that `moored run` started, a space, and these letters.
namespace letter {
inline constexpr char keep = 'k';        ///< Keep states; without it there is only the cache.
inline constexpr char alone = 'a';       ///< The program's children do not inherit.
inline constexpr char statistics = 's';  ///< Print them at exit.
inline constexpr char room = 't';        ///< The launcher has made room for thread_locals.
}  // namespace letter

struct settings {
  bool present = false;  ///< Started by `moored run`, or by a child of what that started.
  bool keep = false;
  bool alone = false;
  bool statistics = false;
  bool room = false;
  pid_t top = 0;     ///< The process that `moored run` became; only that one writes the document.
  std::string json;  ///< Where to; empty when nobody asked.
  std::string command;  ///< What was typed.

  [[nodiscard]] bool is_top() const noexcept { return top == getpid(); }

  /// The descriptor that `json` names, or -1.
  [[nodiscard]] int descriptor() const noexcept {
    constexpr const char* own = "/proc/self/fd/";
    const std::size_t size = std::strlen(own);
    return json.compare(0, size, own) == 0 ? std::atoi(json.c_str() + size) : -1;
  }
};

[[nodiscard]] inline settings read_settings() {
  settings read;
  const char* const words = std::getenv(MOORED_RUN_VARIABLE);
  if (words == nullptr) return read;
  char* letters = nullptr;
  read.present = true;
  read.top = static_cast<pid_t>(std::strtol(words, &letters, 10));
  read.keep = std::strchr(letters, letter::keep) != nullptr;
  read.alone = std::strchr(letters, letter::alone) != nullptr;
  read.statistics = std::strchr(letters, letter::statistics) != nullptr;
  read.room = std::strchr(letters, letter::room) != nullptr;
  if (const char* const path = std::getenv(MOORED_RUN_JSON_VARIABLE)) read.json = path;
  if (const char* const command = std::getenv(MOORED_RUN_COMMAND_VARIABLE)) read.command = command;
  return read;
}

}  // namespace moored::run
