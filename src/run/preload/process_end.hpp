// process_end.hpp: what idle threads keep when the process ends, or becomes another program,
// without the end of Python.
#pragma once

namespace moored::run {

/// Finalises what idle threads keep in their threading.local objects. Any thread, at any time, also
/// the child of vfork; does nothing unless this thread is attached to Python. Runs finalisers.
void finalise_idle_locals() noexcept;

}  // namespace moored::run
