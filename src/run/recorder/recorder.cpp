// recorder.cpp: the recording of a process: its start, its end, and the child of a fork
// (recorder.hpp).
#include "../preload/weak_python.hpp"

#include "recorder.hpp"

#include <moored/detail/cpython/versions.hpp>

#include <pthread.h>
#include <sys/mman.h>

#include <cstring>

#include "chunks.hpp"
#include "clock.hpp"
#include "looking.hpp"
#include "rows.hpp"
#include "waits.hpp"
#include "wakes.hpp"

constinit std::atomic<bool> MOORED_MUST_LOOK{true};  // in .data: it needs no constructor

namespace moored::run::recorder {

namespace {

/// What a recorded call costs more than one that is not: the hooks' part, with nothing in between.
void measure_cost(capture_header& header) noexcept {
  constexpr int calls = 1000;
  MOORED_MUST_LOOK.store(false);  // no Python is there to be asked
  was_entered.store(true);
  const void* const here = __builtin_return_address(0);
  const void* const frame = __builtin_frame_address(0);
  for (const bool measures : {false, true}) {
    const std::uint64_t begun = raw_ns();
    for (int index = 0; index < calls; ++index) {
      entered(begin(here, frame), false);
      left(leaving());
    }
    if (measures) header.cost_of_1000_calls_ns.store(raw_ns() - begun);
  }
  MOORED_MUST_LOOK.store(true);
  was_entered.store(false);
  // They were none of the program's.
  capture* const file = the_capture.load(std::memory_order_relaxed);
  if (thread_row* const row = this_threads_row) {
    for (slot_row& one : row->slots) std::memset(static_cast<void*>(&one), 0, sizeof one);
    std::memset(static_cast<void*>(&row->counted), 0, sizeof row->counted);
    row->is_foreign.store(0);
  }
  std::memset(static_cast<void*>(file->sites), 0, sizeof(site_row) * file->header.sites.load());
  file->header.sites.store(0);
  file->header.modules.store(0);
  file->header.late_attaches.store(0);
}

void begin_again_in_child() noexcept {
  if (!is_on.load(std::memory_order_relaxed)) return;
  if (asked_for().is_alone) {
    is_on.store(false, std::memory_order_relaxed);
    this_threads_row = nullptr;
    the_capture.store(nullptr, std::memory_order_release);
    return;
  }
  const capture_header& before = the_capture.load(std::memory_order_relaxed)->header;
  // The parent's file stays mapped: another thread's calls are not here to write to it.
  this_threads_row = nullptr;
  the_capture.store(nullptr, std::memory_order_release);
  if (!open_capture()) {
    is_on.store(false, std::memory_order_relaxed);
    return;
  }
  capture_header& header = the_capture.load(std::memory_order_relaxed)->header;
  std::memcpy(header.python, before.python, sizeof header.python);
  for (const auto one : {&capture_header::waits_are_seen, &capture_header::holders_are_seen,
                         &capture_header::chunks_are_seen})
    (header.*one).store((before.*one).load());
  for (const auto one : {&capture_header::cost_of_1000_calls_ns, &capture_header::chunk_cost_ns})
    (header.*one).store((before.*one).load());
}

}  // namespace

void start(const std::string& path, const std::string& command, bool keeps, bool is_urgent,
           bool alone) {
  asked_for() = {path, command, keeps, is_urgent, alone};
  ticks_are_counted = counter_is_even();
  if (!open_capture()) return;
  is_on.store(true, std::memory_order_release);
  static const int told = pthread_atfork(nullptr, nullptr, begin_again_in_child);
  (void)told;
  measure_cost(the_capture.load()->header);
}

void meet_python(const char* version) noexcept {
  capture* const file = the_capture.load(std::memory_order_acquire);
  if (file == nullptr) return;
  std::size_t size = 0;
  while (version[size] != '\0' && version[size] != ' ' && size < sizeof file->header.python - 1)
    ++size;
  std::memcpy(file->header.python, version, size);
  if constexpr (moored::cpython::has_gil) watch_waits(file->header);
  watch_chunks(file->header);
  watch_wakes();
}

void meet_modules() noexcept {
  watch_wakes();
}

void end() noexcept {
  capture* const file = the_capture.load(std::memory_order_acquire);
  if (file == nullptr) return;
  note_clock(file->header);
  file->header.has_ended.store(1, std::memory_order_release);
}

void stop() noexcept {
  if (!is_on.exchange(false, std::memory_order_acq_rel)) return;
  capture* const file = the_capture.load(std::memory_order_acquire);
  if constexpr (moored::cpython::has_gil) unwatch_waits();
  unwatch_chunks();
  unwatch_wakes();
  note_clock(file->header);
  // A thread may still be in a hook: what it writes goes into memory that is no file's, which
  // stays.
  (void)mmap(file, sizeof(capture), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

}  // namespace moored::run::recorder
