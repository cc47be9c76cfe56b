// writing.hpp: how the report gets out of a process that is ending.
#pragma once

#include <string>
#include <string_view>

namespace moored::run {

/// On stderr as it was when the program began, where that can still be had.
void say(std::string_view text) noexcept;

/// Writes the document to where the launcher was told (settings::json). A file is there as a whole
/// or not at all: it is written into a neighbour first, which is then renamed. What is no file, has
/// a second name or is open as one of the program's descriptors is written to and never replaced.
/// Returns an errno, or 0.
[[nodiscard]] int write_document(const std::string& path, const std::string& text) noexcept;

}  // namespace moored::run
