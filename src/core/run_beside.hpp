// run_beside.hpp: `moored run`, when this is in a program that it has started.
#pragma once

#include "../run/run_table.hpp"

namespace moored_core {

/// Null when there is none, or none that can be asked. Any thread.
[[nodiscard]] const moored::run::run_table* run_beside();

}  // namespace moored_core
