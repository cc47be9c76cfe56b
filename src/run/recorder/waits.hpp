// waits.hpp: the waits for the GIL of all threads, and which thread they wait for.
#pragma once

#include "../capture_format.hpp"

namespace moored::run::recorder {

/// Has the interpreter's waits recorded, and says in the header whether they are. Attached to the
/// main interpreter, or before Python is initialised.
void watch_waits(capture_header& header) noexcept;
/// Takes that back. Attached to the main interpreter.
void unwatch_waits() noexcept;

/// Looks for where CPython shows which thread holds the GIL, as far as is known by now; says in the
/// header whether it does. Attached to the main interpreter.
void look_for_holders(capture_header& header) noexcept;

}  // namespace moored::run::recorder
