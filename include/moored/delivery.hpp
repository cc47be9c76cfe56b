// moored/delivery.hpp: the words of a channel: deliveries, overflow, options and what is counted.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "detail/cpython/versions.hpp"

MOORED_NAMESPACE_BEGIN

/// How a channel's events reach Python.
enum class delivery : std::uint8_t {
  poll,       ///< The handler's loop is not told; it delivers when it likes.
  wake,       ///< A descriptor tells the handler's loop, once per batch. The default.
  enter,      ///< The sender that finds no other inside attaches, and runs the handler for all.
  interrupt,  ///< The main thread runs the handler between two bytecodes. CPython 3.13 and later.
  adaptive,   ///< `enter` while the GIL is free, `interrupt` while main holds it.
};

/// What send() does when the channel is full.
enum class overflow : std::uint8_t {
  block,        ///< It waits, without the GIL.
  reject,       ///< It refuses, and says so.
  drop_oldest,  ///< The oldest event makes room.
  drop_newest,  ///< The event is dropped.
};

/// What came of a send().
enum class sent : std::uint8_t {
  queued,     ///< The event is in the channel.
  dropped,    ///< drop_newest: the channel was full.
  rejected,   ///< reject, or try_send() on a channel that blocks: it was full.
  closed,     ///< The channel is closed, or Python is shutting down.
  no_memory,  ///< There was no memory to queue it. Counted as rejected.
};

namespace detail {

template <class Enum, std::size_t count>
constexpr std::optional<Enum> named(const std::array<std::string_view, count>& names,
                                    std::string_view wanted) noexcept {
  const auto found = std::find(names.begin(), names.end(), wanted);
  if (found == names.end()) return std::nullopt;
  return static_cast<Enum>(found - names.begin());
}

inline constexpr std::array<std::string_view, 5> delivery_names{"poll", "wake", "enter",
                                                                "interrupt", "adaptive"};
inline constexpr std::array<std::string_view, 4> overflow_names{"block", "reject", "drop_oldest",
                                                                "drop_newest"};

}  // namespace detail

[[nodiscard]] constexpr std::string_view name(delivery how) noexcept {
  return detail::delivery_names[static_cast<std::size_t>(how)];
}
[[nodiscard]] constexpr std::optional<delivery> delivery_named(std::string_view wanted) noexcept {
  return detail::named<delivery>(detail::delivery_names, wanted);
}
[[nodiscard]] constexpr std::string_view name(overflow policy) noexcept {
  return detail::overflow_names[static_cast<std::size_t>(policy)];
}
[[nodiscard]] constexpr std::optional<overflow> overflow_named(std::string_view wanted) noexcept {
  return detail::named<overflow>(detail::overflow_names, wanted);
}

/// Thrown when a delivery is asked for that this Python does not have.
class unsupported : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

inline void check(delivery how) {
  if (how == delivery::interrupt && !cpython::pending_calls_interrupt)
    throw unsupported(
        "delivery 'interrupt' needs CPython 3.13 or later: before, a busy main thread does not "
        "notice a pending call; use 'wake' or 'enter'");
}

}  // namespace detail

struct channel_options {
  std::string name = "channel";  ///< In reports.
  std::size_t capacity = 65536;  ///< Events. At least 1.
  overflow when_full = overflow::block;
  delivery by = delivery::wake;
  /// The handler is given no further batch in one delivery after so long with the GIL.
  std::chrono::nanoseconds hold = std::chrono::milliseconds(5);
  /// wake: at most one batch per so long. Trades latency for larger batches.
  std::chrono::nanoseconds linger{0};
};

/// What has happened to a channel's events. At rest,
/// sent == delivered + dropped_oldest + unconvertible + undelivered + depth.
struct channel_stats {
  std::uint64_t sent = 0;            ///< Queued.
  std::uint64_t delivered = 0;       ///< Taken, or given to the handler, also if it raised.
  std::uint64_t dropped_oldest = 0;  ///< Queued, and dropped to make room.
  std::uint64_t dropped_newest = 0;  ///< Not queued: the channel was full.
  std::uint64_t rejected = 0;        ///< Not queued, and the sender was told: full, or no memory.
  std::uint64_t refused = 0;         ///< Not queued: the channel was closed.
  std::uint64_t unconvertible = 0;   ///< Could not be made into a Python object; reported.
  std::uint64_t undelivered = 0;     ///< Left when Python, or the channel, or the fork ended.
  std::uint64_t batches = 0;         ///< Takes that got something.
  std::uint64_t largest_batch = 0;
  std::uint64_t wakes = 0;       ///< Writes to the descriptor.
  std::uint64_t interrupts = 0;  ///< Pending calls made.
  std::uint64_t entries = 0;     ///< Attaches by senders in order to run the handler.
  std::uint64_t waits = 0;       ///< Sends that waited for room.
  std::uint64_t depth = 0;       ///< Queued now.
};

namespace detail {

/// The members' names, in order: from here Python's Channel.stats() has them.
inline constexpr std::array<std::string_view, 15> channel_stats_names{
    "sent",    "delivered",     "dropped_oldest", "dropped_newest", "rejected",
    "refused", "unconvertible", "undelivered",    "batches",        "largest_batch",
    "wakes",   "interrupts",    "entries",        "waits",          "depth"};
static_assert(sizeof(channel_stats) == channel_stats_names.size() * sizeof(std::uint64_t));

}  // namespace detail

MOORED_NAMESPACE_END
