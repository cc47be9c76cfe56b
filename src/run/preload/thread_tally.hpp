// thread_tally.hpp: how many calls each thread was served from its kept state.
//
// A thread counts in a record of its own, by a plain load and store. Records are never freed: the
// next thread goes on with the record of one that ended, so that a sum over all of them is right at
// any time.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

namespace moored::run {

struct tally {
  std::atomic<std::uint64_t> served{0};
  std::atomic<bool> taken{true};
  tally* next = nullptr;
};

class tallies {
 public:
  /// A record for the calling thread alone, or null when there is no memory.
  [[nodiscard]] tally* take() noexcept {
    for (tally* one = first_.load(std::memory_order_acquire); one != nullptr; one = one->next) {
      if (!one->taken.load(std::memory_order_relaxed) &&
          !one->taken.exchange(true, std::memory_order_acquire))
        return one;
    }
    auto* const made = new (std::nothrow) tally;
    if (made == nullptr) return nullptr;
    made->next = first_.load(std::memory_order_relaxed);
    while (!first_.compare_exchange_weak(made->next, made, std::memory_order_release)) {
    }
    return made;
  }

  [[nodiscard]] std::uint64_t served() const noexcept {
    std::uint64_t sum = 0;
    for (const tally* one = first_.load(std::memory_order_acquire); one != nullptr; one = one->next)
      sum += one->served.load(std::memory_order_relaxed);
    return sum;
  }

 private:
  std::atomic<tally*> first_{nullptr};
};

inline constinit tallies all_tallies;

/// Trivially destructible, so that it can be read while other thread_locals are destroyed.
[[gnu::tls_model("initial-exec")]] inline constinit thread_local tally* this_tally = nullptr;
[[gnu::tls_model("initial-exec")]] inline constinit thread_local bool this_thread_seen = false;

struct tally_return {
  ~tally_return() {
    if (this_tally != nullptr) this_tally->taken.store(false, std::memory_order_release);
    this_tally = nullptr;
  }
  void arm() const noexcept {}
};
inline thread_local tally_return this_threads_tally_return;

/// A call entered Python on this thread's kept state.
inline void count_served() noexcept {
  if (this_tally == nullptr) return;
  std::atomic<std::uint64_t>& served = this_tally->served;
  served.store(served.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

/// From now on this thread's calls are counted.
inline void start_tally() noexcept {
  if (this_tally != nullptr) return;
  this_tally = all_tallies.take();
  this_threads_tally_return.arm();
}

}  // namespace moored::run
