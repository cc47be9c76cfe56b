// estimate.hpp: how much time was saved.
#pragma once

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "process.hpp"

namespace moored::run {

/// What one chunk costs here and now: to map it, to touch it, to unmap it. Nearly all of a
/// temporary state's cost is that.
///
/// The least of many short measurements, in this thread's own CPU time: neither other programs nor
/// native threads that go on while the process ends are counted. Bounded by several times what was
/// ever measured, for a virtual machine may stop the clock's processor for a while.
[[nodiscard]] inline double seconds_per_chunk() noexcept {
  constexpr std::size_t chunk = 16 * 1024;
  constexpr int batches = 25, chunks_a_batch = 16;
  constexpr double most = 25e-6;
  const auto now = [] {
    timespec read{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &read);
    return static_cast<double>(read.tv_sec) + 1e-9 * static_cast<double>(read.tv_nsec);
  };
  double least = most;
  for (int batch = 0; batch < batches; ++batch) {
    const double start = now();
    for (int index = 0; index < chunks_a_batch; ++index) {
      void* const mapped =
          mmap(nullptr, chunk, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapped == MAP_FAILED) return 0;
      *static_cast<volatile char*>(mapped) = 1;
      munmap(mapped, chunk);
    }
    least = std::min(least, (now() - start) / chunks_a_batch);
  }
  return least;
}

/// Each call that was served, and each chunk that came from the cache, spared one mapping. 3.10 has
/// no chunks.
[[nodiscard]] inline double seconds_saved(const numbers& own) noexcept {
  const std::uint64_t spared = own.calls_served + own.chunk_hits;
  if (own.chunk_hits + own.chunk_misses == 0 || spared == 0) return 0;
  return static_cast<double>(spared) * seconds_per_chunk();
}

}  // namespace moored::run
