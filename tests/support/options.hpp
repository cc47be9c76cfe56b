// options.hpp: channel_options in one expression, as designated initialisers make them in C++20.
#pragma once

#include <moored/moored.hpp>

#include <chrono>
#include <cstddef>

namespace moored_test {

inline void set(moored::channel_options& all, int capacity) {
  all.capacity = static_cast<std::size_t>(capacity);
}
inline void set(moored::channel_options& all, moored::delivery by) {
  all.by = by;
}
inline void set(moored::channel_options& all, moored::overflow when_full) {
  all.when_full = when_full;
}
inline void set(moored::channel_options& all, std::chrono::nanoseconds hold) {
  all.hold = hold;
}

/// Those values, and the defaults.
template <class... Values>
[[nodiscard]] moored::channel_options options(Values... values) {
  moored::channel_options made;
  (set(made, values), ...);
  return made;
}

}  // namespace moored_test
