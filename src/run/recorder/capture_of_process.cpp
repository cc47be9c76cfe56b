// capture_of_process.cpp: see capture_of_process.hpp.
#include "capture_of_process.hpp"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include <cstring>

#include "../preload/writing.hpp"
#include "capture_file.hpp"
#include "clock.hpp"

namespace moored::run::recorder {

wishes& asked_for() noexcept {
  static wishes& kept = *new wishes;
  return kept;
}

bool open_capture() noexcept {
  capture* const file = make_capture(asked_for().path + '.' + std::to_string(getpid()));
  if (file == nullptr) {
    const int failed = errno;
    say("moored: doctor cannot record process " + std::to_string(getpid()) + " into " +
        asked_for().path + '.' + std::to_string(getpid()) + ": " + std::strerror(failed) + '\n');
    return false;
  }
  capture_header& header = file->header;
  header.version = capture_version;
  header.header_size = sizeof(capture_header);
  header.module_size = sizeof(module_row);
  header.site_size = sizeof(site_row);
  header.thread_size = sizeof(thread_row);
  header.slot_size = sizeof(slot_row);
  header.modules_at = offsetof(capture, modules);
  header.sites_at = offsetof(capture, sites);
  header.threads_at = offsetof(capture, threads);
  header.size = sizeof(capture);
  header.pid = static_cast<std::uint32_t>(getpid());
  header.parent = static_cast<std::uint32_t>(getppid());
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  header.started_unix_ns = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                           static_cast<std::uint64_t>(now.tv_nsec);
  header.first_ns = raw_ns();
  header.first_tick = ticks();
  header.keeps = asked_for().keeps_states ? 1 : 0;
  header.is_urgent = asked_for().is_urgent ? 1 : 0;
  std::strncpy(header.command, asked_for().command.c_str(), sizeof header.command - 1);
  note_clock(header);
  std::memcpy(header.magic, capture_magic, sizeof header.magic);
  the_capture.store(file, std::memory_order_release);
  return true;
}

void note_clock(capture_header& header) noexcept {
  header.last_ns.store(raw_ns(), std::memory_order_relaxed);
  header.last_tick.store(ticks(), std::memory_order_relaxed);
}

}  // namespace moored::run::recorder
