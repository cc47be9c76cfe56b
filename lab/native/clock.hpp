// lab/native/clock.hpp: the one clock of the lab, CLOCK_MONOTONIC in nanoseconds, which server and
// sender share.
#pragma once

#include <time.h>

#include <cstdint>

namespace moored::lab {

inline constexpr std::int64_t ns_per_us = 1'000;
inline constexpr std::int64_t ns_per_ms = 1'000'000;
inline constexpr std::int64_t ns_per_s = 1'000'000'000;

[[nodiscard]] inline std::int64_t now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * ns_per_s + now.tv_nsec;
}

[[nodiscard]] inline timespec as_timespec(std::int64_t ns) noexcept {
  return {.tv_sec = ns / ns_per_s, .tv_nsec = ns % ns_per_s};
}

}  // namespace moored::lab
