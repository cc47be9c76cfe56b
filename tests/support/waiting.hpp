// waiting.hpp: what threads of a test wait with, which C++17 does not have.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace moored_test {

/// As std::counting_semaphore. Any thread, attached or not: a thread that acquires does not let go
/// of the GIL.
class semaphore {
 public:
  void release(int count = 1) {
    const std::lock_guard lock(mutex_);
    count_ += count;
    changed_.notify_all();
  }
  void acquire() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return count_ > 0; });
    --count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

/// As std::latch.
class latch {
 public:
  explicit latch(std::ptrdiff_t threads) : missing_(threads) {}
  void count_down() {
    const std::lock_guard lock(mutex_);
    if (--missing_ == 0) changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return missing_ == 0; });
  }
  void arrive_and_wait() {
    count_down();
    wait();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::ptrdiff_t missing_;
};

}  // namespace moored_test
