// program.hpp: whether the dynamic loader will take our libraries into a program.
#pragma once

#include <string>

namespace moored::launcher {

/// Throws the failure that explains why not.
void check_program(const std::string& path);

}  // namespace moored::launcher
