// moored/detail/gate/epoch.hpp: the number of the interpreter's life, and what belongs to it.
#pragma once

#include <cstdint>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Grows with every change: four numbers for each life of the main interpreter, one for each phase.
/// What a thread or an object remembers of Python counts in the epoch in which it was true.
using epoch = std::uint64_t;

namespace phase {
inline constexpr epoch absent = 0;    ///< No open() yet in this life.
inline constexpr epoch open = 1;      ///< Threads are let in.
inline constexpr epoch closing = 2;   ///< Threads are refused; Python may still be there.
inline constexpr epoch no_seats = 3;  ///< Of seat_epoch() alone.
inline constexpr epoch mask = 3;
}  // namespace phase

[[nodiscard]] constexpr bool is_open(epoch which) noexcept {
  return (which & phase::mask) == phase::open;
}
[[nodiscard]] constexpr bool is_closing(epoch which) noexcept {
  return (which & phase::mask) == phase::closing;
}
/// True when both are phases of one life of the interpreter.
[[nodiscard]] constexpr bool same_life(epoch one, epoch other) noexcept {
  return (one | phase::mask) == (other | phase::mask);
}
[[nodiscard]] constexpr epoch opened(epoch which) noexcept {
  return (which & ~phase::mask) | phase::open;
}
[[nodiscard]] constexpr epoch closed(epoch which) noexcept {
  return (which & ~phase::mask) | phase::closing;
}
[[nodiscard]] constexpr epoch next_life(epoch which) noexcept {
  return (which | phase::mask) + 1;
}

}  // namespace detail
MOORED_NAMESPACE_END
