// capture_file.hpp: makes the file that a process is recorded in, and maps it.
#pragma once

#include <string>

#include "../capture_format.hpp"

namespace moored::run::recorder {

/// Null with errno where the file cannot be made or has no room; then nothing is left of it.
[[nodiscard]] capture* make_capture(const std::string& path) noexcept;

}  // namespace moored::run::recorder
