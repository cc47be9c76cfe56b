// capture_format.hpp: the file in which a process under `moored doctor` is recorded.
//
// docs/design/capture.md describes it for other readers; moored/doctor/capture.py reads it. The
// file is mapped and shared: what was written is there whatever becomes of the process. All numbers
// are little-endian, times are in ticks of the header's clock. A change of any struct changes
// `capture_version`.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace moored::run {

inline constexpr std::uint32_t capture_version = 2;
inline constexpr char capture_magic[9] = "MOOREDOC";

inline constexpr std::size_t most_modules = 512;
inline constexpr std::size_t most_sites = 2048;
inline constexpr std::size_t most_threads = 1024;
inline constexpr std::size_t most_frames = 24;
inline constexpr std::size_t sites_of_a_thread = 32;

/// Written by one thread, by a plain load and store, and read by others.
using count = std::atomic<std::uint64_t>;

inline void add(count& to, std::uint64_t much) noexcept {
  to.store(to.load(std::memory_order_relaxed) + much, std::memory_order_relaxed);
}
inline void raise(count& to, std::uint64_t value) noexcept {
  if (value > to.load(std::memory_order_relaxed)) to.store(value, std::memory_order_relaxed);
}

/// An object that code of a site lies in. It may be unloaded later.
struct module_row {
  std::uint64_t base;
  std::uint8_t build_id_size;
  std::uint8_t build_id[23];
  char path[288];
};

/// Where native code enters Python: a stack, innermost first.
struct site_row {
  std::uint32_t frames;
  std::uint32_t is_whole;  ///< The stack was followed to its start, or to most_frames.
  std::uint32_t module[most_frames];
  std::uint64_t offset[most_frames];  ///< Of the return address, from the module's base.
};

struct counts_row {
  count calls;          ///< Outermost calls into Python.
  count states;         ///< Thread states made for them.
  count attach;         ///< Until they were in, the wait included.
  count wait;           ///< Of that, for the GIL.
  count wait_for_main;  ///< Of that, while main had it.
  count longest_wait;
  count hold;  ///< From then on until they let go.
  count longest_hold;
  count detach;              ///< Of Releases that freed a state: until they had.
  count chunks;              ///< Data-stack chunks that were mapped meanwhile.
  count states_with_locals;  ///< States that took thread-locals along when they were freed.
};

struct slot_row {
  count key;  ///< 0: free.
  std::atomic<std::uint32_t> site;
  std::uint32_t unused;
  counts_row counted;
};

/// One thread, or, when there were more than most_threads, several one after the other.
struct thread_row {
  std::atomic<std::uint32_t> tid;
  std::atomic<std::uint32_t> threads;  ///< How many have used it.
  std::atomic<std::uint32_t> is_alive;
  std::atomic<std::uint32_t> is_foreign;  ///< It has entered Python from native code.
  char name[16];
  counts_row counted;  ///< `wait` is of all its waits, also of those within Python.
  count waits;
  count calls_without_site;  ///< Its slots, or the sites, were used up.
  count wakes;               ///< Of event loops, by the byte that they read for it.
  slot_row slots[sites_of_a_thread];
};

struct capture_header {
  char magic[8];
  std::uint32_t version;
  std::uint32_t header_size, module_size, site_size, thread_size, slot_size;
  std::uint64_t modules_at, sites_at, threads_at;
  std::uint64_t size;  ///< Of all that is mapped; what follows was appended by the parent.

  std::uint32_t pid, parent;
  std::uint64_t started_unix_ns;
  // The clock: two moments, in ticks and in ns of CLOCK_MONOTONIC_RAW.
  std::uint64_t first_tick, first_ns;
  count last_tick, last_ns;
  count cost_of_1000_calls_ns;

  std::uint32_t keeps, is_urgent;
  std::atomic<std::uint32_t> has_ended;  ///< 1: the process has come to its exit.
  std::atomic<std::uint32_t> modules, sites, threads;
  count late_attaches;  ///< After the end of Python had begun.
  count sites_lost;
  std::atomic<std::uint32_t> waits_are_seen, holders_are_seen;
  std::atomic<std::uint32_t> chunks_are_seen, unused;
  count chunk_cost_ns;  ///< What it takes to map a chunk and to touch it; 0: not measured.
  char python[32];
  char command[1024];
};

struct capture {
  capture_header header;
  module_row modules[most_modules];
  site_row sites[most_sites];
  thread_row threads[most_threads];
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace moored::run
