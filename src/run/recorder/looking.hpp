// looking.hpp: what a thread has to look for when it is in, because it could not be found earlier.
#pragma once

#include <atomic>

#include "../protocol.hpp"

extern "C" {
/// There may be something to be found: at the start, when a wait has shown where the GIL is, and
/// when the module that wakes event loops was loaded. Set by any thread. The audit library knows it
/// by this name and sets it as well, with the loader's lock held, and before the preloaded library
/// is relocated: so it is no pointer. In a process that has that library, one that is attached to
/// shares it.
[[gnu::visibility("default")]] extern std::atomic<bool> MOORED_MUST_LOOK;
}

namespace moored::run::recorder {

/// A thread has been in, so that Python is there, or has been.
inline constinit std::atomic<bool> was_entered{false};

}  // namespace moored::run::recorder
