// moored/detail/channel/runner.hpp: which thread runs a channel's handler, as one state machine.
//
// docs/design/channels.md has the table of the transitions. Debug builds check every one of them.
#pragma once

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Whose turn it is to run the handler.
enum class turn : std::uint8_t {
  free,     ///< No thread runs it, and none has been called to.
  called,   ///< Main, or a loop, has been called to run it.
  taken,    ///< A thread runs it, or is attaching in order to: the runner.
  offered,  ///< As taken; the runner has had the GIL for long, and the next sender is to relieve
            ///< it.
  awaited,  ///< As taken; a sender waits, and the runner stops after this batch.
};

/// At most one thread runs the handler. The caller locks.
class runner {
 public:
  [[nodiscard]] turn now() const noexcept { return now_; }
  [[nodiscard]] bool is_running() const noexcept { return now_ >= turn::taken; }
  /// The calling thread is the runner.
  [[nodiscard]] bool is_here() const noexcept {
    return is_running() && thread_ == std::this_thread::get_id();
  }
  /// A sender has to see that the handler is run.
  [[nodiscard]] bool wants_sender() const noexcept {
    return now_ == turn::free || now_ == turn::offered;
  }

  /// free -> called.
  void call() noexcept { change(turn::free, turn::called); }
  /// called -> free: what was called could not be, or may have gone.
  void call_off() noexcept { change(turn::called, turn::free); }
  /// free or called -> taken, by the calling thread.
  void take() noexcept {
    assert(!is_running());
    now_ = turn::taken;
    thread_ = std::this_thread::get_id();
    check();
  }
  /// taken -> offered, by the runner. Offered or awaited it stays.
  void offer() noexcept {
    assert(is_here());
    if (now_ == turn::taken) now_ = turn::offered;
    check();
  }
  /// offered -> awaited, by a sender.
  void await() noexcept { change(turn::offered, turn::awaited); }
  /// taken, offered or awaited -> free, by the runner.
  void end() noexcept {
    assert(is_here());
    now_ = turn::free;
    thread_ = {};
    check();
  }
  /// In the child of a fork: another thread's turn has ended, and none waits for this one's.
  void after_fork_in_child() noexcept {
    if (!is_here()) {
      now_ = turn::free;
      thread_ = {};
    } else {
      now_ = turn::taken;
    }
    check();
  }

  /// The invariants. Every transition ends with it.
  void check() const noexcept { assert(is_running() == (thread_ != std::thread::id())); }

 private:
  void change([[maybe_unused]] turn from, turn to) noexcept {
    assert(now_ == from);
    now_ = to;
    check();
  }

  turn now_ = turn::free;
  std::thread::id thread_;  // the runner's
};

/// How many events fit into what is left of the time for which a runner may hold the GIL, going by
/// the last batches. The runner's alone.
class pace {
 public:
  [[nodiscard]] std::size_t fits(std::chrono::nanoseconds rest) const noexcept {
    constexpr std::size_t at_first = 64;
    if (per_event_ == std::chrono::nanoseconds(0)) return at_first;
    return static_cast<std::size_t>(std::max<std::int64_t>(1, rest / per_event_));
  }
  void learn(std::size_t events, std::chrono::nanoseconds took) noexcept {
    const auto each = took / static_cast<std::int64_t>(std::max<std::size_t>(1, events));
    per_event_ = std::max(std::chrono::nanoseconds(1), (per_event_ + each) / 2);
  }

 private:
  std::chrono::nanoseconds per_event_{0};
};

}  // namespace detail
MOORED_NAMESPACE_END
