// thread_stats.hpp: how many calls each thread was served from its kept state.
//
// A thread counts in a record of its own, by a plain load and store. Records are never freed: the
// next thread goes on with the record of one that ended, so that a sum over all of them is right at
// any time.
#pragma once

#include <atomic>
#include <cstdint>
#include <new>

namespace moored::run {

struct thread_stats {
  std::atomic<std::uint64_t> served{0};
  std::atomic<bool> taken{true};
  thread_stats* next = nullptr;
};

class thread_stats_list {
 public:
  /// A record for the calling thread alone, or null when there is no memory.
  [[nodiscard]] thread_stats* take() noexcept {
    for (thread_stats* one = first_.load(std::memory_order_acquire); one != nullptr;
         one = one->next) {
      if (!one->taken.load(std::memory_order_relaxed) &&
          !one->taken.exchange(true, std::memory_order_acquire))
        return one;
    }
    auto* const made = new (std::nothrow) thread_stats;
    if (made == nullptr) return nullptr;
    made->next = first_.load(std::memory_order_relaxed);
    while (!first_.compare_exchange_weak(made->next, made, std::memory_order_release)) {
    }
    return made;
  }

  [[nodiscard]] std::uint64_t served() const noexcept {
    std::uint64_t sum = 0;
    for (const thread_stats* one = first_.load(std::memory_order_acquire); one != nullptr;
         one = one->next)
      sum += one->served.load(std::memory_order_relaxed);
    return sum;
  }

 private:
  std::atomic<thread_stats*> first_{nullptr};
};

inline constinit thread_stats_list all_thread_stats;

/// Trivially destructible, so that it can be read while other thread_locals are destroyed.
[[gnu::tls_model("initial-exec")]] inline constinit thread_local thread_stats* this_threads_stats =
    nullptr;
[[gnu::tls_model("initial-exec")]] inline constinit thread_local bool this_thread_seen = false;

struct stats_return {
  ~stats_return() {
    if (this_threads_stats != nullptr)
      this_threads_stats->taken.store(false, std::memory_order_release);
    this_threads_stats = nullptr;
  }
  void arm() const noexcept {}
};
inline thread_local stats_return return_at_thread_end;

/// A call entered Python on this thread's kept state.
inline void count_served() noexcept {
  if (this_threads_stats == nullptr) return;
  std::atomic<std::uint64_t>& served = this_threads_stats->served;
  served.store(served.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

/// From now on this thread's calls are counted.
inline void start_stats() noexcept {
  if (this_threads_stats != nullptr) return;
  this_threads_stats = all_thread_stats.take();
  return_at_thread_end.arm();
}

}  // namespace moored::run
