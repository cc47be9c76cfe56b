// wakes.hpp: the wakes of event loops by other threads (call_soon_threadsafe).
#pragma once

namespace moored::run::recorder {

/// Has the wakes counted, if the module that sends them is loaded; again does nothing. Attached to
/// the main interpreter, or before Python is initialised.
void watch_wakes() noexcept;
/// Takes that back. Attached to the main interpreter.
void unwatch_wakes() noexcept;

}  // namespace moored::run::recorder
