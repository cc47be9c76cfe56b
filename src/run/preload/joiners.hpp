// joiners.hpp: where ending threads and those that join them with the GIL held meet.
#pragma once

#include <moored/detail/states/adopted.hpp>

#include <atomic>

#include "cancellable.h"
#include "thread_table.hpp"

namespace moored::run {

/// The threads that are attached to the main interpreter and wait in a join, where they clear what
/// ending threads offer.
class joiners {
 public:
  /// True while one of them waits for an offer. Any thread.
  [[nodiscard]] bool any_idle() const noexcept { return idle_.load(std::memory_order_seq_cst) > 0; }
  void become_idle() noexcept { idle_.fetch_add(1, std::memory_order_seq_cst); }
  /// Those whose offers no joiner is about to take wait for the GIL by themselves.
  void be_idle_no_more() noexcept {
    if (idle_.fetch_sub(1, std::memory_order_seq_cst) == 1) detail::the_ended.tell();
  }

  /// A thread is in a join, idle or not.
  void enter() noexcept { inside_.fetch_add(1, std::memory_order_seq_cst); }
  void leave() noexcept { inside_.fetch_sub(1, std::memory_order_seq_cst); }
  /// Something has changed that one of them may wait for. Any thread.
  void wake() noexcept {
    if (inside_.load(std::memory_order_seq_cst) > 0) moored_bell_ring(&bell);
  }

  void after_fork() noexcept {
    idle_.store(0);
    inside_.store(0);
    bell = moored_bell{PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  }

  moored_bell bell{PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

 private:
  std::atomic<int> idle_{0};
  std::atomic<int> inside_{0};
};

inline constinit joiners the_joiners;
inline constinit thread_table the_threads;

/// While this thread clears for an ending thread: what pthread_self() answers here; 0: the truth.
[[gnu::tls_model("initial-exec")]] inline constinit thread_local pthread_t assumed_identity = 0;

/// Clears a claimed state under the identity of its thread. Attached to the main interpreter.
void clear_for(detail::adoption& its) noexcept;

}  // namespace moored::run
