// moored/detail/gate/deadline.hpp: the end of a wait.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// The end of a wait: a moment, or never.
///
/// It goes by the steady clock, and by what its owner says to have slept: a clock that stands still
/// makes no wait longer.
class deadline {
 public:
  using clock = std::chrono::steady_clock;
  using nanoseconds = std::chrono::nanoseconds;
  /// Nothing: never.
  explicit deadline(std::optional<nanoseconds> limit) noexcept {
    const auto now = clock::now();
    if (!limit || *limit >= clock::time_point::max() - now) return;
    until_ = now + *limit;
    left_ = *limit;
  }
  [[nodiscard]] bool over() const noexcept {
    return left_ <= nanoseconds(0) || clock::now() >= until_;
  }
  /// What is left; nothing when there is no end.
  [[nodiscard]] std::optional<nanoseconds> rest() const noexcept {
    if (never()) return std::nullopt;
    return std::max(std::min<nanoseconds>(until_ - clock::now(), left_), nanoseconds(0));
  }
  void slept(nanoseconds time) noexcept {
    if (!never()) left_ -= time;
  }

 private:
  [[nodiscard]] bool never() const noexcept { return until_ == clock::time_point::max(); }
  clock::time_point until_ = clock::time_point::max();
  nanoseconds left_ = nanoseconds::max();
};

/// Looks until `done`, or until the time is over. For shutdown, which happens once and can look
/// again, so that no thread has to notify it.
template <class Done>
void look_until(Done done, deadline& due) noexcept {
  auto pause = std::chrono::microseconds(50);
  while (!done() && !due.over()) {
    std::this_thread::sleep_for(pause);
    due.slept(pause);
    if (pause < std::chrono::milliseconds(2)) pause *= 2;
  }
}

/// Waits until no thread is inside a gate that has closed: how many still are when the time is
/// over.
///
/// None, once seen, is final. A thread that is counted in later is on the way to being refused, and
/// a second look would take that for a call.
template <class Inside>
[[nodiscard]] std::uint64_t wait_for_none(Inside inside, deadline& due) noexcept {
  std::uint64_t still = 0;
  // Leaving notifies no thread: too dear.
  look_until([&] { return (still = inside()) == 0; }, due);
  return still;
}

}  // namespace detail
MOORED_NAMESPACE_END
