// protocol.hpp: what the parts of `moored run` tell each other: the references that are redirected,
// the names by which the two libraries meet, and the environment by which the launcher speaks to
// the preloaded library.
//
// The audit library knows which reference is bound to which function, but lives in a namespace of
// its own, where thread_local destructors do not run. So it sends each reference to a function of
// the preloaded library, and tells that library where the real one is.
#pragma once

#if __STDC_HOSTED__  // the audit library has no C library
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#endif

/// Every function that is replaced: those by which a native thread enters Python, and those by
/// which it leaves. A state that is counted once more survives its Release; but what the call has
/// left behind has to go, as it would with a temporary state.
#define MOORED_FOR_EACH_HOOK(hook)                                            \
  hook(PyGILState_Ensure) hook(PyGILState_Release) hook(PyThreadState_Ensure) \
      hook(PyThreadState_EnsureFromView) hook(PyThreadState_Release)

/// The same, for those objects alone that make and clear states by themselves (pybind11).
#define MOORED_FOR_EACH_HOOK_OF_MAKERS(hook)                                   \
  hook(PyEval_AcquireThread) hook(PyEval_SaveThread) hook(PyThreadState_Clear) \
      hook(PyThreadState_DeleteCurrent)

/// The preloaded library exports its replacement of `f` as moored_hook_f, and as moored_real_f the
/// place for the address of f. What it does not export is not redirected.
#define MOORED_HOOK_NAME(f) moored_hook_##f
#define MOORED_REAL_NAME(f) moored_real_##f

/// A byte of the preloaded library's that the audit library sets when the module _socket is loaded.
#define MOORED_MUST_LOOK moored_must_look

#define MOORED_KEEP_LIBRARY "libmoored_keep.so"
#define MOORED_AUDIT_LIBRARY "libmoored_audit.so"

/// What the launcher tells the preloaded library.
#define MOORED_RUN_VARIABLE "MOORED_RUN"
#define MOORED_RUN_JSON_VARIABLE "MOORED_RUN_JSON"
#define MOORED_RUN_COMMAND_VARIABLE "MOORED_RUN_COMMAND"
#define MOORED_RUN_URGENT_VARIABLE "MOORED_RUN_URGENT"
#define MOORED_RUN_RECORD_VARIABLE "MOORED_RUN_RECORD"

#if __STDC_HOSTED__

namespace moored::run {

/// MOORED_RUN is the number of the process that `moored run` started, a space, and these letters.
namespace letter {
inline constexpr char keep = 'k';        ///< Keep states; without it there is only the cache.
inline constexpr char alone = 'a';       ///< The program's children do not inherit.
inline constexpr char statistics = 's';  ///< Print them at exit.
inline constexpr char cache = 'c';       ///< Make temporary states cheap.
inline constexpr char room = 't';        ///< The launcher has made room for thread_locals.
}  // namespace letter

struct settings {
  bool present = false;  ///< Started by `moored run`, or by a child of what that started.
  bool keep = false;
  bool cache = false;
  bool alone = false;
  bool statistics = false;
  bool room = false;
  bool urgent = false;         ///< Foreign threads ask a busy holder of the GIL at once,
  double urgent_budget = 0.1;  ///< which loses at most this share of its time.
  pid_t top = 0;     ///< The process that `moored run` became; only that one writes the document.
  std::string json;  ///< Where to; empty when none was asked for.
  std::string command;  ///< What was typed.
  std::string record;   ///< Where `moored doctor` wants captures, each with its process behind it.

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
  read.cache = std::strchr(letters, letter::cache) != nullptr;
  read.alone = std::strchr(letters, letter::alone) != nullptr;
  read.statistics = std::strchr(letters, letter::statistics) != nullptr;
  read.room = std::strchr(letters, letter::room) != nullptr;
  if (const char* const share = std::getenv(MOORED_RUN_URGENT_VARIABLE)) {
    read.urgent = true;
    read.urgent_budget = std::strtod(share, nullptr);
  }
  if (const char* const path = std::getenv(MOORED_RUN_JSON_VARIABLE)) read.json = path;
  if (const char* const path = std::getenv(MOORED_RUN_RECORD_VARIABLE)) read.record = path;
  if (const char* const command = std::getenv(MOORED_RUN_COMMAND_VARIABLE)) read.command = command;
  return read;
}

}  // namespace moored::run

#endif
