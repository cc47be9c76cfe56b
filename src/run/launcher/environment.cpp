// environment.cpp: what a program is started with, so that the dynamic loader takes our libraries.
#include "environment.hpp"

#include <gnu/libc-version.h>
#include <link.h>
#include <unistd.h>

#include <cstdlib>

#include "../environment_list.hpp"
#include "../protocol.hpp"
#include "document_path.hpp"
#include "failure.hpp"

namespace moored::launcher {

namespace {

void set_or_unset(const char* variable, const std::string& value) {
  if (value.empty()) {
    unsetenv(variable);
  } else {
    setenv(variable, value.c_str(), 1);
  }
}

[[nodiscard]] std::string appended(std::string list, const std::string& entry) {
  if (!list.empty() && !entry.empty()) list += ':';
  return list + entry;
}

/// Ours after those that are there; earlier ones of ours (`moored run` under `moored run`) go.
void set_list(const char* variable, const std::string& library) {
  set_or_unset(variable,
               appended(run::without(std::getenv(variable), run::is_own_library), library));
}

/// How much the thread_locals take of the libraries that are loaded here. Besides the launcher's
/// own these are the ones that are preloaded for the program, with what they need.
[[nodiscard]] std::size_t size_of_thread_locals() {
  std::size_t size = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* sum) {
        if (run::is_own_library(object->dlpi_name)) return 0;  // of an outer `moored run`
        for (int index = 0; index < object->dlpi_phnum; ++index) {
          const ElfW(Phdr)& segment = object->dlpi_phdr[index];
          if (segment.p_type == PT_TLS)
            *static_cast<std::size_t*>(sum) += segment.p_memsz + segment.p_align;
        }
        return 0;
      },
      &size);
  return size;
}

/// Makes room for the program's own libraries and those of its children, unless the user has said
/// how much there shall be. True when the entry is ours.
///
/// Not more than that: the room is taken from the stack of every thread, and glibc makes no thread
/// whose stack is too small for it. With this much one of PTHREAD_STACK_MIN (16 KiB) is still made.
[[nodiscard]] bool make_room(bool is_wanted) {
  constexpr std::size_t for_the_program = 8192;
  const char* const before = std::getenv(MOORED_ROOM_VARIABLE);
  std::string list = before != nullptr ? before : "";
  if (run::read_settings().room) list = run::without(list.c_str(), run::is_room);
  const bool is_ours = is_wanted && !run::has_entry(list, run::is_room);
  if (is_ours) {
    const std::size_t size = for_the_program + size_of_thread_locals();
    list = appended(list, MOORED_ROOM_TUNABLE "=" + std::to_string(size));
  }
  set_or_unset(MOORED_ROOM_VARIABLE, list);
  return is_ours;
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
  const bool keeps = !asked.fresh && !asked.cache_only && !asked.stock;
  const bool records = !asked.record.empty();
  const bool hooks = keeps || records;
  if (!keeps && !asked.urgent.empty()) throw urgent_without_states();
  if (hooks) require_glibc();

  std::string letters = std::to_string(getpid()) + ' ';
  if (keeps) letters += run::letter::keep;
  if (!asked.stock) letters += run::letter::cache;
  if (asked.no_children) letters += run::letter::alone;
  if (asked.statistics) letters += run::letter::statistics;
  if (make_room(hooks)) letters += run::letter::room;
  setenv(MOORED_RUN_VARIABLE, letters.c_str(), 1);
  set_or_unset(MOORED_RUN_URGENT_VARIABLE, asked.urgent);
  set_or_unset(MOORED_RUN_RECORD_VARIABLE, asked.record);
  set_or_unset(MOORED_RUN_JSON_VARIABLE,
               asked.json.empty() ? std::string() : document_path(asked.json));
  set_or_unset(MOORED_RUN_COMMAND_VARIABLE, asked.json.empty() && !records ? std::string()
                                            : asked.command.empty()        ? command
                                                                           : asked.command);
  set_list("LD_PRELOAD", libraries + "/" MOORED_KEEP_LIBRARY);
  set_list("LD_AUDIT", hooks ? libraries + "/" MOORED_AUDIT_LIBRARY : "");
}

}  // namespace moored::launcher
