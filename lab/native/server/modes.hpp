// lab/native/server/modes.hpp: the modes by name: how the IO threads deliver, and what main does
// when idle.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include <moored/moored.hpp>

#include "delivery.hpp"
#include "event.hpp"
#include "main_thread.hpp"

namespace moored::lab {

// What deliveries are made of.
struct parts {
  const handler& python;
  event_queue& queue;
  channel<event>& events;
  wake_fd& main_wake;
  event_stats& main_stats;
  PyObject* call_soon_threadsafe;
  std::atomic<std::size_t>& scheduled;
  std::size_t limit;
};

struct mode {
  std::string_view name;
  std::shared_ptr<delivery> (*make)(const parts&);
  idling main;
  bool is_urgent = false;  // what attaches may ask a busy main for the GIL at once
};

[[nodiscard]] std::span<const mode> modes() noexcept;
[[nodiscard]] const mode* mode_named(std::string_view name) noexcept;

}  // namespace moored::lab
