// left_exceptions.hpp: exceptions that left a decorated callback, and that its caller did not take.
//
// Native code that ignores a failed call, and leaves its exception set, counts on the end of the
// temporary state: there the exception dies with its traceback, and with what that held. A kept
// state does not end. The decorator sees the exception leave, but must hand it to the caller, which
// may print it, and nothing of Python's runs when that caller has left. So a thread of moored's
// looks when the GIL is free, and drops what is still set on a state that is idle by then. It lives
// for as long as there is anything to look after.
#pragma once

#include <moored/attach.hpp>
#include <moored/detail/cpython/entries.hpp>

namespace moored_core {

/// An exception is about to leave the outermost decorated callback of the calling thread, which
/// keeps the attached state. The exception stays set; no Python runs.
void look_after_exception() noexcept;

/// Drops what earlier calls left on the calling thread's kept state: an exception that is still
/// set, and, when no Python code is running on it, one that another thread has sent to it while it
/// was idle. Attached by it. Not noexcept, as keep_foreign_thread().
void drop_what_was_left();

/// The child of a fork has neither that thread nor those that it looked after.
void forget_exceptions_after_fork() noexcept;

/// True when there may be something to drop: for every call.
[[nodiscard]] inline bool was_left_something(const PyThreadState* kept) noexcept {
  return moored::cpython::has_exception(kept) || moored::cpython::is_sent_an_exception(kept);
}

}  // namespace moored_core
