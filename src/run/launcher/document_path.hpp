// document_path.hpp: where --json is written to when the program has ended.
#pragma once

#include <string>

namespace moored::launcher {

/// The file, absolute and with no link in its name, because the program may go to another folder;
/// or /proc/self/fd/N for a descriptor that the program begins with, and `-` is stdout. Throws
/// failure when it could not be written: said before the program runs, not after it.
[[nodiscard]] std::string document_path(const std::string& asked);

}  // namespace moored::launcher
