// memory.hpp: whether a test leaves memory behind, by what the allocators say. What is resident at
// one moment also depends on which thread came late, and on what the kernel has not taken back yet.
#pragma once

#include "child.hpp"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace moored_test {

/// Why memory in use says nothing of a leak of ours; null when it does.
inline const char* why_memory_says_nothing() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return "a sanitizer keeps what was freed, and records of threads that have ended";
#elif !defined(__GLIBC__) || !__GLIBC_PREREQ(2, 33)
  return "mallinfo2() came with glibc 2.33";
#else
  return has_gil ? nullptr : "without a GIL CPython keeps 0.65 KB of each thread that has ended";
#endif
}

/// An interpreter whose memory is counted: its objects come from malloc(), and its data stacks pass
/// through an allocator that counts them.
class counted_python {
 public:
  counted_python() {
    setenv("PYTHONMALLOC", "malloc", 1);
    python_.emplace();
    PyObject_GetArenaAllocator(&below());
    PyObjectArenaAllocator counting{nullptr,
                                    [](void*, std::size_t size) {
                                      stacks += static_cast<long>(size);
                                      return below().alloc(below().ctx, size);
                                    },
                                    [](void*, void* block, std::size_t size) {
                                      stacks -= static_cast<long>(size);
                                      below().free(below().ctx, block, size);
                                    }};
    PyObject_SetArenaAllocator(&counting);
  }

  /// Bytes that were asked for and not given back, in the whole process.
  [[nodiscard]] static long bytes_in_use() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    const struct mallinfo2 heap = mallinfo2();
    return static_cast<long>(heap.uordblks + heap.hblkhd) + stacks;
#else
    return 0;
#endif
  }

 private:
  static PyObjectArenaAllocator& below() {
    static PyObjectArenaAllocator allocator{};
    return allocator;
  }
  static inline std::atomic<long> stacks{0};
  std::optional<python> python_;
};

/// Bytes in use after each of some equal rounds.
class memory_of_rounds {
 public:
  void note_round() { after_.push_back(counted_python::bytes_in_use()); }

  /// Fails when each round has left as much as `things` things take, small ones even. A leak grows
  /// in all rounds; a thread that comes late to free something grows memory in one, and shrinks it
  /// in the next. The first round is left out: in it much is made once and for all.
  void expect_no_leak_of(long things) const {
    if (const char* const why = why_memory_says_nothing()) {
      std::printf("memory is not judged here: %s\n", why);
      return;
    }
    ASSERT_GT(after_.size(), 2U);
    long least = std::numeric_limits<long>::max();
    for (std::size_t round = 1; round < after_.size(); ++round)
      least = std::min(least, after_[round] - after_[round - 1]);
    constexpr long smallest_block = 32, noise = smallest_block / 2;
    EXPECT_LT(least, things * noise) << "bytes in each round";
  }

 private:
  std::vector<long> after_;
};

}  // namespace moored_test
