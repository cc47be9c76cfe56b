// gil_wait.hpp: waiting for the GIL in such a way that it can be given up.
//
// CPython has no call for it. Its wait for the GIL is a loop round pthread_cond_timedwait, which
// this library replaces for a thread that is armed. Such a thread leaves the loop where CPython
// itself does when the interpreter is finalising, having changed nothing but, perhaps, that the
// holder was asked to let go of the GIL.
#pragma once

#include <moored/detail/states/adopted.hpp>

#include <cstdint>

namespace moored::run {

enum class gil_outcome : std::uint8_t {
  taken,    ///< The thread is attached.
  claimed,  ///< An attached thread is clearing its state, or has.
  bound,    ///< The GIL has not changed hands for too long.
  closed,   ///< Shutdown has given up on the thread.
};

/// Waits for the GIL with the state of an ending thread, which meanwhile is on offer. The thread of
/// that state, counted in, not attached, with cancellation disabled. Not noexcept: a late thread
/// may be unwound (moored/detail/cpython/versions.hpp).
[[nodiscard]] gil_outcome take_gil(detail::adoption& its);

/// A thread that has asked for the GIL will not come for it: the holder is not to wait for that.
void excuse_from_switch(const detail::adoption& its) noexcept;

/// The armed threads look at their offers. Any thread, with no lock.
void wake_gil_waiters() noexcept;

void renew_gil_waits_after_fork() noexcept;

}  // namespace moored::run
