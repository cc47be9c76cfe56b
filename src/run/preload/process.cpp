// process.cpp: looks at the process that this library was loaded into, and ends with its report.
#include "weak_python.hpp"

#include "process.hpp"

#include <moored/detail/states/adopted.hpp>
#include <moored/install.hpp>
#include <moored/interpreter.hpp>
#include <moored/urgent.hpp>

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "../environment_list.hpp"
#include "../recorder/recorder.hpp"
#include "first_descriptor.hpp"
#include "report.hpp"
#include "thread_stats.hpp"
#include "writing.hpp"

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

/// "3.11", and what it was built with when that is not usual.
constexpr std::string_view our_python =
    MOORED_TEXT(PY_MAJOR_VERSION) "." MOORED_TEXT(PY_MINOR_VERSION)
#ifdef Py_GIL_DISABLED
        " without a GIL"
#endif
#ifdef Py_REF_DEBUG
        " built for debugging"
#endif
    ;

/// False for a version as in "2.7.18" for which there is no moored.
[[nodiscard]] bool could_have_moored(const char* version) noexcept {
  char* rest = nullptr;
  const long major = std::strtol(version, &rest, 10);
  const long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
  return major == 3 && minor >= 10;
}

/// The version of a Python whose functions are not visible to this library; null when there is
/// none. Calls no Python but that it is asked for its version, which needs no GIL and no
/// interpreter.
[[nodiscard]] const char* version_of_late_python() {
  std::vector<std::string> names;
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* all) {
        static_cast<std::vector<std::string>*>(all)->emplace_back(object->dlpi_name);
        return 0;
      },
      &names);
  for (const std::string& name : names) {
    if (name.empty()) continue;
    void* const object = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (object == nullptr) continue;
    const auto version = reinterpret_cast<decltype(&Py_GetVersion)>(dlsym(object, "Py_GetVersion"));
    const char* const said = version != nullptr ? version() : nullptr;
    dlclose(object);  // it was loaded before, and stays
    if (said != nullptr) return said;
  }
  return nullptr;
}

void remove_from(const char* variable, entry_test is_ours) {
  const char* const before = std::getenv(variable);
  if (before == nullptr) return;
  const std::string left = without(before, is_ours);
  if (left.empty()) {
    unsetenv(variable);
  } else {
    setenv(variable, left.c_str(), 1);
  }
}

}  // namespace

process::process() : settings_(read_settings()) {
  if (!settings_.present) {
    keeping_.store(keeping::not_asked, std::memory_order_release);
    return;
  }
  if (settings_.alone) leave_the_environment();
  if (settings_.statistics || !settings_.json.empty()) first_stderr.watch(STDERR_FILENO);
  if (settings_.is_top()) first_document.watch(settings_.descriptor());
  pthread_atfork(nullptr, nullptr, [] {
    this_process().before_fork_ = this_process().total();
    this_process().is_forked_ = true;
    this_process().number_ = getpid();
    first_stderr.let_go();
    first_document.let_go();
  });
  if (!settings_.record.empty())
    recorder::start(settings_.record, settings_.command, settings_.keep, settings_.urgent,
                    settings_.alone);
  if (Py_GetVersion != nullptr) decide();
}

void process::leave_the_environment() const {
  remove_from("LD_PRELOAD", is_own_library);
  remove_from("LD_AUDIT", is_own_library);
  if (settings_.room) remove_from(MOORED_ROOM_VARIABLE, is_room);
  for (const char* const variable :
       {MOORED_RUN_VARIABLE, MOORED_RUN_JSON_VARIABLE, MOORED_RUN_COMMAND_VARIABLE,
        MOORED_RUN_URGENT_VARIABLE, MOORED_RUN_RECORD_VARIABLE})
    unsetenv(variable);
}

keeping process::find_python() noexcept {
  keeping found = keeping::out_of_reach;
  if (Py_GetVersion != nullptr) {
    const char* const version = Py_GetVersion();
    version_.store(version, std::memory_order_release);
    if (settings_.cache) (void)install();
    recorder::meet_python(version);
    if (settings_.urgent) make_urgent();
    find_where_python_is();
    found = !settings_.keep           ? keeping::not_asked
            : !is_our_python(version) ? keeping::other_python
                                      : keeping::on;
  }
  keeping_.store(found, std::memory_order_release);
  return found;
}

void process::make_urgent() noexcept {
  cpython::the_gil_requests.budget.set_share(settings_.urgent_budget);
  const char* const why = cpython::the_gil_requests.install();
  if (why != nullptr) say(std::string("moored: --urgent does nothing here: ") + why + '\n');
}

void process::find_where_python_is() noexcept {
  dl_iterate_phdr(
      [](dl_phdr_info* object, std::size_t, void* self) {
        const auto wanted = reinterpret_cast<std::uintptr_t>(&Py_GetVersion);
        std::uintptr_t begin = UINTPTR_MAX, end = 0;
        for (int i = 0; i < object->dlpi_phnum; ++i) {
          const auto& part = object->dlpi_phdr[i];
          if (part.p_type != PT_LOAD) continue;
          begin = std::min<std::uintptr_t>(begin, object->dlpi_addr + part.p_vaddr);
          end = std::max<std::uintptr_t>(end, object->dlpi_addr + part.p_vaddr + part.p_memsz);
        }
        if (wanted < begin || wanted >= end) return 0;
        auto& mine = *static_cast<process*>(self);
        mine.python_begin_.store(begin, std::memory_order_relaxed);
        mine.python_end_.store(end, std::memory_order_relaxed);
        return 1;
      },
      this);
}

void process::look_for_late_python() {
  if (version_.load(std::memory_order_acquire) != nullptr) return;
  const char* const version = version_of_late_python();
  if (version == nullptr) return;
  version_.store(version, std::memory_order_release);
  keeping_.store(keeping::out_of_reach, std::memory_order_release);
}

std::string process::describe() const {
  switch (decided()) {
    case keeping::on:
      return "kept";
    case keeping::undecided:
      return "no Python in this process";
    case keeping::not_asked:
      return "not kept, only the cache is used";
    case keeping::other_python:
      return "not kept: " + (could_have_moored(version_.load(std::memory_order_acquire))
                                 ? "this moored was built for Python " + std::string(our_python) +
                                       ", install it for this one as well"
                                 : "moored needs Python 3.10 or later");
    case keeping::out_of_reach:
      return "not kept: Python was loaded late, by dlopen";
  }
  return "unknown";
}

std::string process::python_version() const {
  const char* const version = version_.load(std::memory_order_acquire);
  if (version == nullptr) return {};
  const std::string_view text = version;
  return std::string(text.substr(0, text.find(' ')));
}

numbers process::total() const noexcept {
  const state_stats counted = stats();
  const chunk_stats chunks = stats_of_chunks();
  return {.threads_seen = threads_seen.load(std::memory_order_relaxed),
          .states_adopted = counted.states_adopted,
          .states_kept = counted.states_kept,
          .states_freed = counted.states_freed,
          .states_freed_late = counted.states_freed_late,
          .states_forgotten = counted.states_forgotten,
          .urgent_requests = counted.urgent_requests,
          .urgent_requests_denied = counted.urgent_requests_denied,
          .calls_served = all_thread_stats.served(),
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
  static process& self = *new process;
  return self;
}

namespace {

[[gnu::constructor]] void begin() {
  (void)this_process();
}

[[gnu::destructor]] void end() {
  recorder::end();
  report(this_process());
}

}  // namespace

}  // namespace moored::run
