// moored/detail/cpython/gil_budget.hpp: how much of its time a holder of the GIL may lose to
// threads that ask for it at once.
#pragma once

#include <atomic>
#include <cstdint>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// A bucket that fills with time at a given share of what goes by, and that holds as much as goes
/// by in 100 ms. What is taken may exceed what is in it: then it is empty for as long as that takes
/// to be paid. One word, no lock. Any thread.
class gil_budget {
 public:
  static constexpr std::int64_t full_after_ns = 100'000'000;
  static constexpr double default_share = 0.1;

  /// 0: nothing may be taken; 1: anything.
  void set_share(double share) noexcept {
    // Time that has to go by for what is taken, per unit of it; the bucket's word is in that time.
    price_.store(share <= 0 ? never : 1 / share, std::memory_order_relaxed);
  }
  [[nodiscard]] double share() const noexcept { return 1 / price_.load(std::memory_order_relaxed); }

  [[nodiscard]] bool has_some(std::int64_t now_ns) const noexcept {
    const double price = price_.load(std::memory_order_relaxed);
    if (price <= 1) return true;
    return price < never && paid_until_.load(std::memory_order_relaxed) <= now_ns;
  }

  void take(std::int64_t lost_ns, std::int64_t now_ns) noexcept {
    const double price = price_.load(std::memory_order_relaxed);
    if (price >= never) return;
    const auto cost = static_cast<std::int64_t>(static_cast<double>(lost_ns) * price);
    std::int64_t before = paid_until_.load(std::memory_order_relaxed), after = 0;
    do {
      const std::int64_t oldest = now_ns - full_after_ns;
      after = (before < oldest ? oldest : before) + cost;
    } while (!paid_until_.compare_exchange_weak(before, after, std::memory_order_relaxed));
  }

 private:
  static constexpr double never = 1e12;

  std::atomic<double> price_{1 / default_share};
  std::atomic<std::int64_t> paid_until_{0};  // up to then what was taken is being paid
};

}  // namespace cpython
MOORED_NAMESPACE_END
