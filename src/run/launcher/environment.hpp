// environment.hpp: what a program is started with, so that the dynamic loader takes our libraries.
#pragma once

#include <string>

#include "options.hpp"

namespace moored::launcher {

/// Changes this process's environment, which the program takes over. `command` is what was typed.
/// Throws failure.
void prepare_environment(const options& asked, const std::string& libraries,
                         const std::string& command);

}  // namespace moored::launcher
