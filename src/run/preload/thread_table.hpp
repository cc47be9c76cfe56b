// thread_table.hpp: the threads that were started through this library and have not come to their
// end.
#pragma once

#include <moored/detail/lock.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

#include "cancellable.h"

namespace moored::run {

/// A hash by pthread_t: a joiner looks for one thread among many. Any thread.
class thread_table {
 public:
  void add(moored_thread& one) noexcept {
    const detail::locked lock(mutex_);
    moored_thread*& first = bucket(one.thread);
    one.next = first;
    one.listed = 1;
    first = &one;
  }
  void remove(moored_thread& one) noexcept {
    const detail::locked lock(mutex_);
    if (one.listed == 0) return;
    moored_thread** at = &bucket(one.thread);
    while (*at != &one) at = &(*at)->next;
    *at = one.next;
    one.listed = 0;
  }
  [[nodiscard]] bool holds(pthread_t thread) noexcept {
    const detail::locked lock(mutex_);
    for (const moored_thread* one = bucket(thread); one != nullptr; one = one->next) {
      if (pthread_equal(one->thread, thread) != 0) return true;
    }
    return false;
  }
  /// In the child of a fork the others are not there; `mine` is taken out as well.
  void after_fork(moored_thread* mine) noexcept MOORED_UNCHECKED {
    mutex_.renew();
    first_.fill(nullptr);
    if (mine != nullptr) mine->listed = 0;
  }

 private:
  [[nodiscard]] moored_thread*& bucket(pthread_t thread) noexcept MOORED_REQUIRES(mutex_) {
    // Descriptors lie at the ends of stacks, pages apart.
    return first_[(static_cast<std::uintptr_t>(thread) >> 12U) * 2654435761U % first_.size()];
  }

  detail::mutex mutex_;
  std::array<moored_thread*, 1024> first_ MOORED_GUARDED_BY(mutex_){};
};

}  // namespace moored::run
