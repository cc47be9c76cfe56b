// recorder.hpp: records how native threads enter Python, and what they and Python's own threads
// wait for the GIL.
//
// A hook that finds the recorder on calls begin() before the real function and entered() after it,
// and leaving() before the one by which the thread lets go. None of them takes a lock, allocates,
// asks the loader or calls Python, but for the first time that a thread or a caller comes.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace moored::run::recorder {

/// Read by every hook.
inline constinit std::atomic<bool> is_on{false};

/// What begin() knew, for entered(); in the hook's frame, with nothing to destroy.
struct arrival {
  void* slot;
  std::uint64_t begun, waited, waited_for_main;
};

/// Starts to record into `path` with this process's number behind it. Says on stderr why it cannot.
/// While the library is loaded, in the child of a fork, or when no hook is in place yet.
/// `alone`: the children of a fork are not recorded.
void start(const std::string& path, const std::string& command, bool keeps, bool is_urgent,
           bool alone);

/// A Python is there: from now on the waits for its GIL are recorded. Attached, or before Python
/// is initialised.
void meet_python(const char* version) noexcept;

/// More was loaded since: what of it is to be watched is watched from now on. Attached to the main
/// interpreter.
void meet_modules() noexcept;

/// The process comes to its exit.
void end() noexcept;

/// Ends the recording of a process that goes on; start() may begin another one. Threads may be in
/// hooks meanwhile. Attached to the main interpreter.
void stop() noexcept;

/// A thread is about to enter Python, called from `caller`; `frame` is the hook's own.
[[nodiscard]] arrival begin(const void* caller, const void* frame) noexcept;
/// It is in, and was not before. `made`: a thread state was made for it.
void entered(const arrival& how, bool made) noexcept;
/// It was in, and its Release will not say so: the next leaving() counts nothing.
void entered_again() noexcept;
/// It is about to let go of what the last entered() began.
struct departure {
  void* slot;
  void* row;
  std::uint64_t begun;  ///< 0: nothing is to be recorded.
};
departure leaving() noexcept;
/// The same, by a Release, which frees the state that was made for the call unless it is counted
/// more than once. Attached; runs no Python.
departure releasing() noexcept;
/// A state that other code has made is about to be cleared. Attached by it; runs no Python.
void state_ends(PyThreadState* state) noexcept;
/// It has let go, and a state may have been freed.
void left(const departure& how) noexcept;
/// The state of a call that is inside is one that was made for it.
void state_was_made() noexcept;

}  // namespace moored::run::recorder
