// foreign_thread.hpp: keep_thread() for Python, which keeps foreign threads only.
#pragma once

#include <moored/urgent.hpp>

#include "left_exceptions.hpp"

namespace moored_core {

/// Whether Python made this thread: asked once per thread and epoch.
struct origin {
  moored::detail::epoch asked_in = 0;
  bool foreign = false;
};

MOORED_TLS_MODEL inline constinit thread_local origin this_threads_origin;

/// Makes the child of a fork ask again: the forking thread has become its main thread. Once.
void watch_forks();

/// Everything that is not the second and later call on a thread.
bool keep_foreign_thread_slowly(moored::detail::epoch now);

/// Keeps the state of the calling thread and answers true, unless Python made the thread. Attached.
/// Leaves no exception, nor one that an earlier call has left set. Not noexcept: up to 3.13.7
/// Python ends a thread by unwinding it.
inline bool keep_foreign_thread() {
  moored::detail::thread_record& me = moored::detail::this_thread;
  const moored::detail::epoch now = moored::detail::the_gate.now();
  if (me.kept != nullptr && me.kept_in == now) [[likely]] {
    if (was_left_something(me.kept)) [[unlikely]]
      drop_what_was_left();
    return moored::detail::keep_on(me);
  }
  if (this_threads_origin.asked_in == now && !this_threads_origin.foreign) return false;
  return keep_foreign_thread_slowly(now);
}

}  // namespace moored_core
