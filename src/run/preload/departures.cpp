// departures.cpp: programs to which this library cannot go along.
//
// A program in another root, or for another processor or C library, inherits the environment by
// which the dynamic loader is told of our libraries, and its own loader complains of them or gives
// up. So what is ours is left out of the environment of such a program.
//
// The functions stand before the C library's own because this library is preloaded. Any thread may
// call them, a signal's handler, and the child of fork or vfork: nothing is allocated, and nothing
// but the stack is written to. Python's own calls come from none of these, and
// finalise first what would be lost (process_end.hpp).
#include <alloca.h>
#include <spawn.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdarg>
#include <cstring>
#include <string_view>

#include "../environment_list.hpp"
#include "../program_file.hpp"
#include "../protocol.hpp"
#include "next.hpp"
#include "process.hpp"
#include "process_end.hpp"

namespace moored::run {

namespace {

using words_of_a_program = char* const*;
using environment = char* const*;
using exec = int(const char*, words_of_a_program, environment);
using spawn = int(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*,
                  words_of_a_program, environment);

next_function<int(const char*)> next_chroot("chroot");
next_function<exec> next_execve("execve");
next_function<exec> next_execvpe("execvpe");
next_function<int(int, words_of_a_program, environment)> next_fexecve("fexecve");
next_function<spawn> next_posix_spawn("posix_spawn");
next_function<spawn> next_posix_spawnp("posix_spawnp");

[[gnu::constructor]] void find_next() {
  next_chroot.find();
  next_execve.find();
  next_execvpe.find();
  next_fexecve.find();
  next_posix_spawn.find();
  next_posix_spawnp.find();
}

/// Empty when it is not there; `name` ends with "=".
[[nodiscard]] std::string_view value_in(environment all, std::string_view name) noexcept {
  for (; all != nullptr && *all != nullptr; ++all) {
    const std::string_view one = *all;
    if (one.substr(0, name.size()) == name) return one.substr(name.size());
  }
  return {};
}

/// Whether the dynamic loader of a program with this environment will find this library, from where
/// this process sees the files now. True when it is not told to.
[[nodiscard]] bool is_within_reach(std::string_view preloaded) noexcept {
  while (!preloaded.empty()) {
    const std::string_view entry = next_entry(preloaded);
    if (!is_own_library(entry)) continue;
    std::array<char, PATH_MAX> path{};
    if (entry.size() >= path.size()) return true;
    std::memcpy(path.data(), entry.data(), entry.size());
    return access(path.data(), R_OK) == 0;
  }
  return true;
}

[[nodiscard]] bool is_for_another_system(const char* program) noexcept {
  if (program == nullptr || std::strchr(program, '/') == nullptr) return false;
  switch (look_at_program(program)) {
    case program_kind::of_32_bits:
    case program_kind::other_processor:
    case program_kind::musl:
      return true;
    default:
      return false;
  }
}

/// A variable of the environment, and what of its list is ours; without a test all of it is.
struct own_entry {
  std::string_view name;
  entry_test is_ours;
};
constexpr std::array own_entries{
    own_entry{"LD_PRELOAD=", is_own_library},
    own_entry{"LD_AUDIT=", is_own_library},
    own_entry{MOORED_ROOM_VARIABLE "=", is_room},
    own_entry{MOORED_RUN_VARIABLE "=", nullptr},
    own_entry{MOORED_RUN_JSON_VARIABLE "=", nullptr},
    own_entry{MOORED_RUN_COMMAND_VARIABLE "=", nullptr},
};

[[nodiscard]] const own_entry* own_entry_in(std::string_view variable) noexcept {
  for (const own_entry& one : own_entries) {
    if (variable.substr(0, one.name.size()) == one.name) return &one;
  }
  return nullptr;
}

/// How much of the stack it takes to leave out what is ours: a pointer for each variable, and a
/// copy of each that changes.
[[nodiscard]] std::size_t size_without_ours(environment all) noexcept {
  std::size_t size = sizeof(char*);
  for (; *all != nullptr; ++all)
    size += sizeof(char*) + (own_entry_in(*all) ? strlen(*all) + 1 : 0);
  return size;
}

[[nodiscard]] environment leave_out_ours(environment all, void* memory) noexcept {
  std::size_t count = 0;
  for (environment one = all; *one != nullptr; ++one) ++count;
  auto** const left = static_cast<char**>(memory);
  char* text = reinterpret_cast<char*>(left + count + 1);
  const bool has_room_of_ours =
      value_in(all, MOORED_RUN_VARIABLE "=").find(letter::room) != std::string_view::npos;
  char** next = left;
  for (; *all != nullptr; ++all) {
    const own_entry* const own = own_entry_in(*all);
    if (own == nullptr || (own->is_ours == is_room && !has_room_of_ours)) {
      *next++ = *all;
      continue;
    }
    if (own->is_ours == nullptr) continue;
    std::memcpy(text, own->name.data(), own->name.size());
    const std::size_t size =
        copy_without(*all + own->name.size(), own->is_ours, text + own->name.size());
    if (size == 0) continue;
    text[own->name.size() + size] = '\0';
    *next++ = text;
    text += own->name.size() + size + 1;
  }
  *next = nullptr;
  return left;
}

/// Calls `start` with the environment that suits the program. `program` is null when it is only
/// known to the C library, which looks for it.
template <class Start>
[[nodiscard]] int start_with(const char* program, environment all, Start start) noexcept {
  const std::string_view preloaded = value_in(all, "LD_PRELOAD=");
  if (!has_entry(preloaded, is_own_library) ||
      (is_within_reach(preloaded) && !is_for_another_system(program)))
    return start(all);
  return start(leave_out_ours(all, alloca(size_without_ours(all))));
}

/// The words of execl and its like, which end with a null.
[[nodiscard]] std::size_t count_words(const char* first, va_list* rest) noexcept {
  std::size_t count = 0;
  for (const char* one = first; one != nullptr; one = va_arg(*rest, const char*)) ++count;
  return count;
}

void copy_words(const char* first, va_list* rest, char** into) noexcept {
  for (const char* one = first; one != nullptr; one = va_arg(*rest, const char*))
    *into++ = const_cast<char*>(one);
  *into = nullptr;
}

}  // namespace

extern "C" {

MOORED_EXPORT int chroot(const char* path) noexcept {
  const int failed = next_chroot.find()(path);
  if (failed == 0) {
    const char* const preloaded = std::getenv("LD_PRELOAD");
    if (!is_within_reach(preloaded != nullptr ? preloaded : ""))
      this_process().leave_the_environment();
  }
  return failed;
}

MOORED_EXPORT int execve(const char* path, char* const words[], char* const all[]) noexcept {
  finalise_idle_locals(__builtin_return_address(0));
  return start_with(path, all,
                    [&](environment its) { return next_execve.find()(path, words, its); });
}

MOORED_EXPORT int execv(const char* path, char* const words[]) noexcept {
  finalise_idle_locals(__builtin_return_address(0));
  return execve(path, words, environ);
}

MOORED_EXPORT int execvpe(const char* file, char* const words[], char* const all[]) noexcept {
  finalise_idle_locals(__builtin_return_address(0));
  return start_with(file, all,
                    [&](environment its) { return next_execvpe.find()(file, words, its); });
}

MOORED_EXPORT int execvp(const char* file, char* const words[]) noexcept {
  return execvpe(file, words, environ);
}

MOORED_EXPORT int fexecve(int file, char* const words[], char* const all[]) noexcept {
  finalise_idle_locals(__builtin_return_address(0));
  return start_with(nullptr, all,
                    [&](environment its) { return next_fexecve.find()(file, words, its); });
}

MOORED_EXPORT int posix_spawn(pid_t* child, const char* path,
                              const posix_spawn_file_actions_t* actions,
                              const posix_spawnattr_t* attributes, char* const words[],
                              char* const all[]) noexcept {
  return start_with(path, all, [&](environment its) {
    return next_posix_spawn.find()(child, path, actions, attributes, words, its);
  });
}

MOORED_EXPORT int posix_spawnp(pid_t* child, const char* file,
                               const posix_spawn_file_actions_t* actions,
                               const posix_spawnattr_t* attributes, char* const words[],
                               char* const all[]) noexcept {
  return start_with(file, all, [&](environment its) {
    return next_posix_spawnp.find()(child, file, actions, attributes, words, its);
  });
}

// NOLINTBEGIN(cert-dcl50-cpp): they are as the C library has them.

MOORED_EXPORT int execl(const char* path, const char* first, ...) noexcept {
  va_list rest;
  va_start(rest, first);
  auto** const words = static_cast<char**>(alloca((count_words(first, &rest) + 1) * sizeof(char*)));
  va_end(rest);
  va_start(rest, first);
  copy_words(first, &rest, words);
  va_end(rest);
  return execve(path, words, environ);
}

MOORED_EXPORT int execlp(const char* file, const char* first, ...) noexcept {
  va_list rest;
  va_start(rest, first);
  auto** const words = static_cast<char**>(alloca((count_words(first, &rest) + 1) * sizeof(char*)));
  va_end(rest);
  va_start(rest, first);
  copy_words(first, &rest, words);
  va_end(rest);
  return execvpe(file, words, environ);
}

MOORED_EXPORT int execle(const char* path, const char* first, ...) noexcept {
  va_list rest;
  va_start(rest, first);
  auto** const words = static_cast<char**>(alloca((count_words(first, &rest) + 1) * sizeof(char*)));
  va_end(rest);
  va_start(rest, first);
  copy_words(first, &rest, words);
  char* const* const all = va_arg(rest, char* const*);
  va_end(rest);
  return execve(path, words, all);
}

// NOLINTEND(cert-dcl50-cpp)

}  // extern "C"

}  // namespace moored::run
