// moored/detail/channel/table.hpp: fills the table of capsule.hpp for a channel of this copy.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "capsule.hpp"
#include "core.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// What the capsule points to: the table, and what keeps the channel alive.
struct filled_table : channel_capsule {
  std::shared_ptr<channel_core> core;
};

[[nodiscard]] inline channel_core& core_of(void* channel) noexcept {
  return *static_cast<channel_core*>(channel);
}

[[nodiscard]] inline std::optional<std::chrono::nanoseconds> time_of(std::int64_t ns) noexcept {
  return ns < 0 ? std::nullopt : std::optional(std::chrono::nanoseconds(ns));
}

inline int wait_for_capsule(void* channel, std::int64_t timeout_ns) {
  using waited = channel_core::waited;
  const auto alive = core_of(channel).shared_from_this();
  deadline due(time_of(timeout_ns));
  for (;;) {
    if (PyErr_CheckSignals() != 0) return -1;
    const waited came = alive->wait(due);
    if (came != waited::signal) return came == waited::ready ? 1 : 0;
  }
}

inline int deliver_for_capsule(void* channel) {
  switch (core_of(channel).deliver(false)) {
    case channel_core::left::nothing:
      return 0;
    case channel_core::left::something:
      return 1;
    case channel_core::left::error:
      return -1;
  }
  return 0;
}

inline int deliver_by_for_capsule(void* channel, int how, std::int64_t hold_ns,
                                  std::int64_t linger_ns) noexcept {
  if (how < 0 || static_cast<std::size_t>(how) >= delivery_names.size()) {
    PyErr_SetString(PyExc_ValueError, "no such delivery");
    return -1;
  }
  try {
    core_of(channel).set_times(time_of(hold_ns), time_of(linger_ns));
    core_of(channel).deliver_by(static_cast<delivery>(how));
  } catch (const unsupported& why) {
    PyErr_SetString(PyExc_NotImplementedError, why.what());
    return -1;
  }
  return 0;
}

inline int delivery_for_capsule(void* channel, std::int64_t* hold_ns,
                                std::int64_t* linger_ns) noexcept {
  std::chrono::nanoseconds hold{};
  std::chrono::nanoseconds linger{};
  const delivery how = core_of(channel).delivered_by(&hold, &linger);
  if (hold_ns != nullptr) *hold_ns = hold.count();
  if (linger_ns != nullptr) *linger_ns = linger.count();
  return static_cast<int>(how);
}

inline std::size_t stats_for_capsule(void* channel, std::uint64_t* numbers,
                                     std::size_t count) noexcept {
  const channel_stats now = core_of(channel).stats();
  const std::array all{now.sent,     now.delivered,     now.dropped_oldest, now.dropped_newest,
                       now.rejected, now.refused,       now.unconvertible,  now.undelivered,
                       now.batches,  now.largest_batch, now.wakes,          now.interrupts,
                       now.entries,  now.waits,         now.depth};
  static_assert(sizeof all == sizeof now);
  const std::size_t given = std::min(count, all.size());
  std::copy_n(all.begin(), given, numbers);
  return given;
}

inline int subscribe_for_capsule(void* channel) noexcept {
  try {
    return core_of(channel).subscribe();
  } catch (const std::system_error& why) {
    errno = why.code().value();
    PyErr_SetFromErrno(PyExc_OSError);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  }
  return -1;
}

inline PyObject* make_capsule(std::shared_ptr<channel_core> core) noexcept {
  auto* const filled = new (std::nothrow) filled_table;
  if (filled == nullptr) return PyErr_NoMemory();
  channel_capsule& table = *filled;
  table.size = sizeof(channel_capsule);
  table.channel = core.get();
  table.name = [](void* channel) { return core_of(channel).name(); };
  table.take = [](void* channel, std::ptrdiff_t limit) {
    return core_of(channel).take(static_cast<std::size_t>(limit));  // negative: all
  };
  table.wait = wait_for_capsule;
  table.fileno = [](void* channel) { return core_of(channel).told_by().fd(); };
  table.acknowledge = [](void* channel) { core_of(channel).told_by().acknowledge(); };
  table.listen = [](void* channel, int listening) { core_of(channel).listen(listening != 0); };
  table.set_handler = [](void* channel, PyObject* handler) {
    core_of(channel).set_handler(handler);
  };
  table.deliver = deliver_for_capsule;
  table.deliver_by = deliver_by_for_capsule;
  table.delivery = delivery_for_capsule;
  table.close = [](void* channel) { core_of(channel).close(); };
  table.closed = [](void* channel) { return core_of(channel).closed() ? 1 : 0; };
  table.stats = stats_for_capsule;
  table.subscribe = subscribe_for_capsule;
  table.acknowledge_own = [](void* channel, int fd) { core_of(channel).acknowledge(fd); };
  table.unsubscribe = [](void* channel, int fd) { core_of(channel).unsubscribe(fd); };
  filled->core = std::move(core);
  PyObject* const capsule = PyCapsule_New(
      static_cast<channel_capsule*>(filled), channel_capsule_name, [](PyObject* mine) {
        delete static_cast<filled_table*>(
            static_cast<channel_capsule*>(PyCapsule_GetPointer(mine, channel_capsule_name)));
      });
  if (capsule == nullptr) delete filled;
  return capsule;
}

}  // namespace detail
MOORED_NAMESPACE_END
