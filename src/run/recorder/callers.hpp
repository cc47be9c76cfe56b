// callers.hpp: tells the native callers of a hook apart, and follows a new one's stack.
#pragma once

#include <cstdint>

#include "../capture_format.hpp"

namespace moored::run::recorder {

/// A number for the caller: its return address and those behind it, which differ where one ctypes
/// closure serves several native callers. Costs some loads. Any thread.
[[nodiscard]] std::uint64_t key_of(const void* caller, const void* frame) noexcept;

/// The site of a caller that has no slot on this thread yet, by its stack; -1 where sites are used
/// up. Learns where the words are that key_of() reads for it. Any thread, with no GIL.
[[nodiscard]] int site_of(capture& file, const void* caller, const void* frame) noexcept;

}  // namespace moored::run::recorder
