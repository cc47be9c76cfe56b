// chunks.cpp: see chunks.hpp.
//
// From 3.11 on a state asks Python's arena allocator for 16 KiB when it comes to its first frame,
// and that maps them. So it is seen where the interpreter maps memory: by its own reference to
// mmap64. A chunk that comes from moored's cache is not mapped, and not counted.
#include "../preload/weak_python.hpp"

#include "chunks.hpp"

#include <moored/detail/cpython/versions.hpp>

#include <sys/mman.h>

#include <algorithm>

#include "clock.hpp"
#include "rows.hpp"
#include "watched_function.hpp"

namespace moored::run::recorder {

namespace {

using moored::cpython::data_stack_chunk_bytes;

void* recorded_map(void* place, std::size_t size, int protection, int flags, int file,
                   off64_t offset);
constinit watched_function maps("mmap64", &recorded_map);

/// The interpreter's mmap64. Any thread, attached or not. A thread that was not recorded before has
/// no call inside, and is passed on.
void* recorded_map(void* place, std::size_t size, int protection, int flags, int file,
                   off64_t offset) {
  void* const mapped = maps.next()(place, size, protection, flags, file, offset);
  constexpr int as_for_chunks = MAP_PRIVATE | MAP_ANONYMOUS;
  if (size != data_stack_chunk_bytes || mapped == MAP_FAILED || flags != as_for_chunks)
    return mapped;
  thread_row* const row = this_threads_row;
  if (row == nullptr) return mapped;
  const open_calls& mine = open_of(*row);
  if (mine.depth == 0) return mapped;
  add(row->counted.chunks, 1);
  if (slot_row* const slot = mine.innermost()) add(slot->counted.chunks, 1);
  return mapped;
}

/// What it takes to map a chunk and to write to its first page; 0 where that is not possible. The
/// shortest of some: a machine that is busy meanwhile makes no chunk dearer. That the chunk is
/// unmapped is part of the Release, and counted there.
[[nodiscard]] std::uint64_t cost_of_chunk() noexcept {
  constexpr int rounds = 16;
  std::uint64_t least = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t begun = raw_ns();
    void* const chunk = mmap(nullptr, data_stack_chunk_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED) return 0;
    *static_cast<volatile char*>(chunk) = 1;
    const std::uint64_t took = raw_ns() - begun;
    munmap(chunk, data_stack_chunk_bytes);
    least = round == 0 ? took : std::min(least, took);
  }
  return least;
}

}  // namespace

void watch_chunks(capture_header& header) noexcept {
  if (!moored::cpython::has_data_stacks() || !maps.watch()) return;
  header.chunk_cost_ns.store(cost_of_chunk(), std::memory_order_relaxed);
  header.chunks_are_seen.store(1, std::memory_order_relaxed);
}

void unwatch_chunks() noexcept {
  maps.unwatch();
}

}  // namespace moored::run::recorder
