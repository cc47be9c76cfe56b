// rows.cpp: see rows.hpp.
#include "rows.hpp"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "callers.hpp"

namespace moored::run::recorder {

[[gnu::tls_model("initial-exec")]] constinit thread_local current_row this_threads_row;

namespace {

void note_name(thread_row& row) noexcept {
  char name[16]{};
  if (prctl(PR_GET_NAME, name) == 0) std::memcpy(row.name, name, sizeof row.name);
}

struct row_return {
  ~row_return() {
    if (thread_row* const row = this_threads_row) {
      note_name(*row);  // threads are given their names late
      row->is_alive.store(0, std::memory_order_release);
    }
    this_threads_row = nullptr;
  }
  void arm() const noexcept {}
};
thread_local row_return return_at_thread_end;

}  // namespace

thread_row* take_row() noexcept {
  capture* const file = the_capture.load(std::memory_order_acquire);
  if (file == nullptr) return nullptr;
  thread_row* row = nullptr;
  std::uint32_t used = file->header.threads.load(std::memory_order_relaxed);
  while (used < most_threads && !file->header.threads.compare_exchange_weak(used, used + 1)) {
  }
  if (used < most_threads) {
    row = &file->threads[used];
    row->is_alive.store(1, std::memory_order_relaxed);
  } else {
    for (thread_row& one : file->threads) {
      std::uint32_t ended = 0;
      if (one.is_alive.compare_exchange_strong(ended, 1)) {
        row = &one;
        break;
      }
    }
    if (row == nullptr) return nullptr;
  }
  row->tid.store(static_cast<std::uint32_t>(syscall(SYS_gettid)), std::memory_order_relaxed);
  row->threads.fetch_add(1, std::memory_order_relaxed);
  note_name(*row);
  all_open[static_cast<std::size_t>(row - file->threads)] = {};
  this_threads_row = row;
  return_at_thread_end.arm();
  return row;
}

slot_row* slot_of(thread_row& row, std::uint64_t key, const void* caller,
                  const void* frame) noexcept {
  std::size_t at = key % sites_of_a_thread;
  for (std::size_t tried = 0; tried < sites_of_a_thread; ++tried) {
    slot_row& one = row.slots[at];
    const std::uint64_t there = one.key.load(std::memory_order_relaxed);
    if (__builtin_expect(static_cast<long>(there == key), 1)) return &one;
    if (there == 0) break;
    at = (at + 1) % sites_of_a_thread;
  }
  capture* const file = the_capture.load(std::memory_order_acquire);
  const int site = site_of(*file, caller, frame);
  note_clock(file->header);
  note_name(row);
  if (site < 0) return nullptr;
  // Where the stack was followed for a site that the thread has a slot for, that one goes on; and
  // the key is the one that later calls will have.
  const std::uint64_t now = key_of(caller, frame);
  slot_row* same = nullptr;
  for (slot_row& one : row.slots) {
    if (one.key.load(std::memory_order_relaxed) != 0 &&
        one.site.load(std::memory_order_relaxed) == static_cast<std::uint32_t>(site))
      same = &one;
  }
  at = now % sites_of_a_thread;
  for (std::size_t tried = 0; tried < sites_of_a_thread; ++tried) {
    slot_row& one = row.slots[at];
    const std::uint64_t there = one.key.load(std::memory_order_relaxed);
    if (there == now) return &one;
    if (there == 0) {
      one.site.store(static_cast<std::uint32_t>(site), std::memory_order_relaxed);
      one.key.store(now, std::memory_order_release);
      return &one;
    }
    at = (at + 1) % sites_of_a_thread;
  }
  return same;
}

}  // namespace moored::run::recorder
