// moored/install.hpp: install(): a cache of data-stack chunks, which makes temporary thread
// states cheap for every binding in the process.
//
// From 3.11 on the first Python frame of a new thread state maps a chunk of 16 KiB, and the end of
// the state unmaps it: nearly all that a temporary state costs. Both go through Python's arena
// allocator, and Python lets any code put an allocator of its own there.
//
// One cache serves the process. Nothing in it is per thread, so that a thread that ends leaves
// nothing behind, and nothing in it calls Python or waits: from 3.13 on a chunk is freed when no
// state is attached any more, by several threads at once.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "detail/cpython/versions.hpp"
#include "detail/stay_loaded.hpp"

MOORED_NAMESPACE_BEGIN

/// What install() found.
enum class cache_status : std::uint8_t {
  installed,          ///< The cache is in place from now on.
  already_installed,  ///< It was in place, by whichever copy of moored in this process.
  nothing_to_gain,    ///< This Python (3.10) has no chunks; nothing was changed.
};

/// What the cache has done in this process. Reading it takes no lock and delays no thread.
struct chunk_stats {
  std::uint64_t hits;        ///< Chunks that came from the cache.
  std::uint64_t misses;      ///< Chunks that had to be mapped.
  std::uint64_t held;        ///< Chunks in the cache now.
  std::uint64_t bytes_held;  ///< Their size.
};

namespace detail {

inline constexpr std::size_t chunk_bytes = cpython::data_stack_chunk_bytes;

#ifdef __SANITIZE_ADDRESS__
// A chunk in the cache has no owner: code that still uses it is told so.
inline void poison(void* chunk) noexcept {
  __asan_poison_memory_region(chunk, chunk_bytes);
}
inline void unpoison(void* chunk) noexcept {
  __asan_unpoison_memory_region(chunk, chunk_bytes);
}
#else
inline void poison(void*) noexcept {}
inline void unpoison(void*) noexcept {}
#endif

[[gnu::visibility("hidden")]] void* allocate_arena(void* context, std::size_t size) noexcept;
[[gnu::visibility("hidden")]] void free_arena(void* context, void* block,
                                              std::size_t size) noexcept;

/// The slots, and the allocator that was there before.
struct chunk_cache {
  // Pointers to the functions of the library that this variable lives in, whichever calls
  // install(): that library stays, the caller's may be unloaded.
  void* (*allocate)(void*, std::size_t) = allocate_arena;
  void (*free)(void*, void*, std::size_t) = free_arena;

  // Written before the cache is in place, and not again.
  PyObjectArenaAllocator below{nullptr, nullptr, nullptr};
  std::atomic<bool> ever_installed{false};
  std::atomic<bool> installing{false};

  alignas(64) std::array<std::atomic<void*>, 32> slots{};
  alignas(64) std::atomic<std::uint64_t> hits{0};
  std::atomic<std::uint64_t> misses{0};

  /// A chunk, or null when there is none. Any thread.
  [[nodiscard]] void* take() noexcept {
    for (std::atomic<void*>& slot : slots) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      // Acquire: what its last owner wrote into the chunk is over before its next one begins.
      if (void* const chunk = slot.exchange(nullptr, std::memory_order_acquire)) {
        hits.fetch_add(1, std::memory_order_relaxed);
        unpoison(chunk);
        return chunk;
      }
    }
    misses.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
  }

  /// False when the cache is full. Any thread.
  [[nodiscard]] bool put(void* chunk) noexcept {
    poison(chunk);
    for (std::atomic<void*>& slot : slots) {
      void* empty = slot.load(std::memory_order_relaxed);
      if (empty == nullptr && slot.compare_exchange_strong(empty, chunk, std::memory_order_release,
                                                           std::memory_order_relaxed))
        return true;
    }
    unpoison(chunk);
    return false;
  }
};

// One for the process, however many extensions carry a copy of this header, each loaded with
// RTLD_LOCAL and built with hidden visibility: with default visibility GCC marks the symbol unique
// (STB_GNU_UNIQUE), and glibc then binds all copies to the first. Where that is not so (another
// compiler, a linker script that hides it) each copy is a cache of its own, and they chain.
//
// Copies of different versions meet in this name: it changes with anything in chunk_cache.
[[gnu::visibility("default")]] MOORED_CONSTINIT inline chunk_cache the_chunk_cache_1;

// CPython passes to free the size that it passed to allocate. The blocks may come from the
// allocator below: those made before the installation come back through here as well.
inline void* allocate_arena(void*, std::size_t size) noexcept {
  chunk_cache& cache = the_chunk_cache_1;
  if (size == chunk_bytes) {
    if (void* const chunk = cache.take()) return chunk;
  }
  return cache.below.alloc(cache.below.ctx, size);
}

inline void free_arena(void*, void* block, std::size_t size) noexcept {
  chunk_cache& cache = the_chunk_cache_1;
  if (size == chunk_bytes && block != nullptr && cache.put(block)) return;
  cache.below.free(cache.below.ctx, block, size);
}

[[nodiscard]] inline bool same(const PyObjectArenaAllocator& one,
                               const PyObjectArenaAllocator& other) noexcept {
  return one.ctx == other.ctx && one.alloc == other.alloc && one.free == other.free;
}

}  // namespace detail

/// Puts the cache in place, for the whole process and for good. Installing again is installing
/// once, from whichever extension.
///
/// Call it with the GIL held, from whichever interpreter, or before Py_Initialize. After
/// Py_FinalizeEx and a new Py_Initialize, which from 3.12 on goes back to Python's own allocator,
/// call it again.
[[nodiscard]] inline cache_status install() noexcept {
  if (!cpython::has_data_stacks()) return cache_status::nothing_to_gain;
  detail::chunk_cache& cache = detail::the_chunk_cache_1;
  // Interpreters with a GIL each may be here at once. The second need not wait: the first is done
  // in an instant.
  if (cache.installing.exchange(true, std::memory_order_acquire))
    return cache_status::already_installed;
  PyObjectArenaAllocator found{};
  PyObject_GetArenaAllocator(&found);
  const bool again = cache.ever_installed.load(std::memory_order_relaxed);
  // Neither ours nor what ours was put upon: another was put on top, and chains to us.
  // On top of that one the cache would chain to itself.
  const bool in_place =
      found.alloc == cache.allocate || (again && !detail::same(found, cache.below));
  if (!in_place) {
    // The library with the cache and its functions. Where the symbol is unique glibc keeps it by
    // itself.
    detail::stay_loaded(reinterpret_cast<const void*>(cache.allocate));
    if (!again) cache.below = found;
    cache.ever_installed.store(true, std::memory_order_relaxed);
    // The three words are not written in one step, and another interpreter may be allocating. It
    // may read any mixture: with the same context, and each side able to free what the other
    // allocated, all of them work.
    PyObjectArenaAllocator ours{found.ctx, cache.allocate, cache.free};
    std::atomic_thread_fence(std::memory_order_release);
    PyObject_SetArenaAllocator(&ours);
  }
  cache.installing.store(false, std::memory_order_release);
  return in_place ? cache_status::already_installed : cache_status::installed;
}

/// Any thread, attached or not.
[[nodiscard]] inline chunk_stats stats_of_chunks() noexcept {
  const detail::chunk_cache& cache = detail::the_chunk_cache_1;
  std::uint64_t held = 0;
  for (const std::atomic<void*>& slot : cache.slots) {
    if (slot.load(std::memory_order_relaxed) != nullptr) ++held;
  }
  return {cache.hits.load(std::memory_order_relaxed), cache.misses.load(std::memory_order_relaxed),
          held, held * detail::chunk_bytes};
}

MOORED_NAMESPACE_END
