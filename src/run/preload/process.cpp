// process.cpp: looks at the process that this library was loaded into, and ends with its report.
#include "weak_python.hpp"

#include "process.hpp"

#include <moored/detail/states/adopted.hpp>
#include <moored/install.hpp>
#include <moored/interpreter.hpp>

#include <dlfcn.h>
#include <pthread.h>

#include <cstdlib>
#include <string_view>

#include "report.hpp"
#include "thread_tally.hpp"

#define MOORED_TEXT_OF(name) #name
#define MOORED_TEXT(name) MOORED_TEXT_OF(name)

namespace moored::run {

namespace {

// What a build for debugging has and others have not.
#ifdef Py_REF_DEBUG
constexpr bool built_for_debug = true;
#else
constexpr bool built_for_debug = false;
#endif
#ifdef Py_GIL_DISABLED
constexpr bool built_without_gil = true;
#else
constexpr bool built_without_gil = false;
#endif

/// True when the process has the Python that this library was compiled for.
[[nodiscard]] bool is_our_python(std::string_view version) noexcept {
  constexpr std::string_view ours =
      MOORED_TEXT(PY_MAJOR_VERSION) "." MOORED_TEXT(PY_MINOR_VERSION) ".";
  const bool without_gil = version.find("free-threading build") != std::string_view::npos;
  const bool debug = dlsym(RTLD_DEFAULT, "_Py_NegativeRefcount") != nullptr;
  return version.substr(0, ours.size()) == ours && without_gil == built_without_gil &&
         debug == built_for_debug;
}

/// Takes one library out of a list as the dynamic loader reads it from the environment.
void remove_from_list(const char* variable, std::string_view library) {
  const char* const list = std::getenv(variable);
  if (list == nullptr) return;
  std::string left;
  std::string_view rest = list;
  while (!rest.empty()) {
    const std::size_t end = rest.find_first_of(" :");
    const std::string_view entry = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    if (entry.empty() || entry.substr(entry.rfind('/') + 1) == library) continue;
    if (!left.empty()) left += ':';
    left += entry;
  }
  if (left.empty()) {
    unsetenv(variable);
  } else {
    setenv(variable, left.c_str(), 1);
  }
}

}  // namespace

const char* describe(keeping what) noexcept {
  switch (what) {
    case keeping::on:
      return "kept";
    case keeping::undecided:
      return "no Python in this process";
    case keeping::not_asked:
      return "not kept, only the cache is used";
    case keeping::other_python:
      return "not kept: this moored was built for Python " MOORED_TEXT(
          PY_MAJOR_VERSION) "." MOORED_TEXT(PY_MINOR_VERSION) ", install it for this one";
    case keeping::out_of_reach:
      return "not kept: Python was loaded late, by dlopen";
  }
  return "unknown";
}

process::process() : settings_(read_settings()) {
  if (!settings_.present) {
    keeping_.store(keeping::not_asked, std::memory_order_release);
    return;
  }
  if (settings_.alone) leave_the_environment();
  pthread_atfork(nullptr, nullptr, [] { this_process().before_fork_ = this_process().total(); });
  if (Py_GetVersion != nullptr) decide();
}

void process::leave_the_environment() const {
  remove_from_list("LD_PRELOAD", MOORED_KEEP_LIBRARY);
  remove_from_list("LD_AUDIT", MOORED_AUDIT_LIBRARY);
  for (const char* const variable :
       {MOORED_RUN_VARIABLE, MOORED_RUN_JSON_VARIABLE, MOORED_RUN_COMMAND_VARIABLE})
    unsetenv(variable);
}

keeping process::find_python() noexcept {
  keeping found = keeping::out_of_reach;
  if (Py_GetVersion != nullptr) {
    const char* const version = Py_GetVersion();
    version_.store(version, std::memory_order_release);
    (void)install();
    found = !settings_.keep           ? keeping::not_asked
            : !is_our_python(version) ? keeping::other_python
                                      : keeping::on;
  }
  keeping_.store(found, std::memory_order_release);
  return found;
}

std::string process::python_version() const {
  const char* const version = version_.load(std::memory_order_acquire);
  if (version == nullptr) return {};
  const std::string_view text = version;
  return std::string(text.substr(0, text.find(' ')));
}

numbers process::total() const noexcept {
  const counters counted = count();
  const chunk_counters chunks = count_chunks();
  return {.threads_seen = threads_seen.load(std::memory_order_relaxed),
          .states_adopted = counted.states_adopted,
          .states_kept = counted.states_kept,
          .states_freed = counted.states_freed,
          .states_freed_late = counted.states_freed_late,
          .states_forgotten = counted.states_forgotten,
          .calls_served = all_tallies.served(),
          .chunk_hits = chunks.hits,
          .chunk_misses = chunks.misses};
}

numbers process::own() const noexcept {
  numbers now = total();
  now.threads_seen -= before_fork_.threads_seen;
  now.states_adopted -= before_fork_.states_adopted;
  now.states_freed -= before_fork_.states_freed;
  now.states_freed_late -= before_fork_.states_freed_late;
  now.states_forgotten -= before_fork_.states_forgotten;
  now.calls_served -= before_fork_.calls_served;
  now.chunk_hits -= before_fork_.chunk_hits;
  now.chunk_misses -= before_fork_.chunk_misses;
  return now;
}

process& this_process() noexcept {
  static process& here = *new process;
  return here;
}

namespace {

[[gnu::constructor]] void begin() {
  (void)this_process();
}

[[gnu::destructor]] void end() {
  report(this_process());
}

}  // namespace

}  // namespace moored::run
