// hooks.hpp: the functions that take the place of CPython's while a process is attached to.
#pragma once

#include "references.hpp"

namespace moored::run::attach {

/// Each does what the real one does, and records it while the recorder is on. They stay in memory:
/// a thread may return into one when nothing refers to it any more.
[[nodiscard]] replacements hooks() noexcept;

}  // namespace moored::run::attach
