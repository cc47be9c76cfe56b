// clock.hpp: the recorder's clock: the processor's counter where it runs evenly, for it costs 8 ns
// and the kernel's clock 40.
#pragma once

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace moored::run {

[[nodiscard]] inline std::uint64_t raw_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// True when the counter runs at one speed, the same on all processors: the kernel uses it, too.
[[nodiscard]] inline bool counter_is_even() noexcept {
#ifdef __x86_64__
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned invariant = 1U << 8;
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d & invariant) == 0) return false;
  const int file = open("/sys/devices/system/clocksource/clocksource0/current_clocksource",
                        O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  char name[16]{};
  const ssize_t size = read(file, name, sizeof name - 1);
  close(file);
  return size >= 3 && std::memcmp(name, "tsc", 3) == 0;
#else
  return false;
#endif
}

inline bool ticks_are_counted = false;  // settled before the first tick

[[nodiscard]] inline std::uint64_t ticks() noexcept {
#ifdef __x86_64__
  if (__builtin_expect(static_cast<long>(ticks_are_counted), 1)) return __rdtsc();
#endif
  return raw_ns();
}

}  // namespace moored::run
