// chunks.hpp: the data-stack chunks that are mapped for the states of foreign threads.
#pragma once

#include "../capture_format.hpp"

namespace moored::run::recorder {

/// Has the chunks counted that the interpreter maps, says in the header whether they are, and
/// measures what one costs. Attached to the main interpreter, or before Python is initialised.
void watch_chunks(capture_header& header) noexcept;
/// Takes that back. Attached to the main interpreter.
void unwatch_chunks() noexcept;

}  // namespace moored::run::recorder
