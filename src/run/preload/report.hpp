// report.hpp: --stats and --json, when the process ends.
#pragma once

namespace moored::run {

class process;

/// Prints and writes what was asked for. Calls no Python, which is gone by now.
void report(process& self);

}  // namespace moored::run
