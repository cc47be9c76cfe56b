// process_end.hpp: what idle threads keep when the process ends, or becomes another program,
// without the end of Python.
#pragma once

namespace moored::run {

/// Finalises what idle threads keep in their threading.local objects. `caller` is an address in the
/// code that is about to end the process, or to become another program. Does nothing unless that is
/// Python's own, on a thread that is attached: a signal's handler, and the child of vfork, may end
/// as well, and no finaliser is to run there. Any thread, at any time.
void finalise_idle_locals(const void* caller) noexcept;

}  // namespace moored::run
