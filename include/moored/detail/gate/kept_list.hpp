// moored/detail/gate/kept_list.hpp: which threads keep a state, and how long each of them has
// been idle.
//
// When more states are kept than the limit allows, the longest idle one is marked. Its own thread
// alone releases it, when it comes back: a state cannot be freed under a thread that may be on its
// way in.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "../cpython/state_contents.hpp"
#include "../lock.hpp"
#include "gate.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// A thread that keeps a state, as others see it. On the heap, not in the thread: where no
/// destructor of the thread's can be had (it first attached among its last pthread keys), the entry
/// outlives it.
class keeper {
 public:
  constexpr explicit keeper(epoch now, const attendance* its_seat = nullptr) noexcept
      : kept_in(now), seat(its_seat) {}

  /// Its thread is in use from now on. True when the state is to be released.
  ///
  /// A mark that is set in just this moment is lost: the thread was not idle after all, and the
  /// next state that is kept marks another one. An exchange here would cost more than the attach.
  [[nodiscard]] bool come_back() noexcept {
    const bool was_marked = is_marked();
    idle_since_.store(busy, std::memory_order_relaxed);
    return was_marked;
  }
  /// Its thread is idle from now on. Attaches are the clock: the gate counts them anyway.
  void rest(std::uint64_t now) noexcept { idle_since_.store(now, std::memory_order_relaxed); }

 private:
  friend class keepers;
  static constexpr std::uint64_t busy = UINT64_MAX;
  static constexpr std::uint64_t marked = UINT64_MAX - 1;

  [[nodiscard]] bool is_marked() const noexcept {
    return idle_since_.load(std::memory_order_relaxed) == marked;
  }

  std::atomic<std::uint64_t> idle_since_{busy};
  const epoch kept_in;
  const attendance* const seat;      // by which it may be inside without a word in idle_since_
  PyThreadState* adopted = nullptr;  // the mutex of the list guards it
  keeper* previous = nullptr;
  keeper* next = nullptr;
};

/// For threads that keep nothing, or whose entry found no memory.
MOORED_CONSTINIT inline keeper unlisted{0};

/// All of them, those first that have kept their states longest. Threads take its mutex when they
/// begin or end keeping, and when they fork, with or without the GIL; no thread waits for the GIL
/// with it.
class keepers {
 public:
  constexpr keepers() noexcept {
    ends_.previous = &ends_;
    ends_.next = &ends_;
  }

  /// The calling thread keeps a state, and is using it.
  [[nodiscard]] keeper* add(epoch now, const attendance* seat) noexcept {
    auto* const made = new (std::nothrow) keeper(now, seat);
    if (made == nullptr) return &unlisted;
    const locked lock(mutex_);
    made->next = &ends_;
    made->previous = ends_.previous;
    made->previous->next = made;
    ends_.previous = made;
    mark_beyond_limit(now);
    return made;
  }
  /// It keeps it no more.
  void remove(keeper* one) noexcept {
    if (one == &unlisted) return;
    const locked lock(mutex_);
    one->previous->next = one->next;
    one->next->previous = one->previous;
    delete one;
  }

  /// What `one` keeps is an adopted state: from now on a fork's child finalises nothing of it. Not
  /// so for a state that moored made: other code that deletes one tells nothing.
  void hold_at_forks(keeper* one, PyThreadState* state) noexcept {
    if (one == &unlisted) return;
    const locked lock(mutex_);
    one->adopted = state;
  }
  /// Other code clears that state, or the thread no longer keeps it. `one` is set to nothing: two
  /// threads may say so.
  void hold_no_more(keeper*& one) noexcept {
    const locked lock(mutex_);
    if (one != &unlisted) one->adopted = nullptr;
    one = &unlisted;
  }

  /// Calls `use` with each adopted state, under the mutex of the list: it runs no Python, and waits
  /// for nothing. Attached, so that no thread begins or ends a call meanwhile.
  template <class Use>
  void for_each_adopted(Use use) noexcept {
    const locked lock(mutex_);
    for (const keeper* one = ends_.next; one != &ends_; one = one->next) {
      if (one->adopted != nullptr) use(one->adopted);
    }
  }

  void set_limit(std::size_t limit, epoch now) noexcept {
    const locked lock(mutex_);
    limit_ = limit;
    mark_beyond_limit(now);
  }

  /// The mutex is held across a fork, so that no other thread is at the list meanwhile.
  void before_fork() noexcept MOORED_UNCHECKED { mutex_.lock(); }
  void after_fork_in_parent() noexcept MOORED_UNCHECKED { mutex_.unlock(); }
  /// In the child no thread keeps anything. CPython clears there what the others kept; it was
  /// theirs, and is not finalised in this process. The entries are lost with it.
  void after_fork(const keeper* mine) noexcept MOORED_UNCHECKED {
    for (const keeper* one = ends_.next; one != &ends_; one = one->next) {
      if (one != mine && one->adopted != nullptr)
        cpython::state_contents::outlive_the_fork(one->adopted);
    }
    ends_.previous = ends_.next = &ends_;
    mutex_.unlock();
  }

 private:
  void mark_beyond_limit(epoch now) noexcept MOORED_REQUIRES(mutex_) {
    if (limit_ == 0) return;
    for (;;) {
      std::size_t staying = 0;
      keeper* longest = nullptr;
      std::uint64_t since = keeper::marked;
      for (keeper* one = ends_.next; one != &ends_; one = one->next) {
        if (one->kept_in != now || one->is_marked()) continue;
        ++staying;
        if (one->seat != nullptr && one->seat->inside() != 0) continue;
        const std::uint64_t its = one->idle_since_.load(std::memory_order_relaxed);
        if (its >= since) continue;
        longest = one;
        since = its;
      }
      if (staying <= limit_ || longest == nullptr) return;
      // Unless it has come back meanwhile.
      longest->idle_since_.compare_exchange_strong(since, keeper::marked,
                                                   std::memory_order_relaxed);
    }
  }

  mutex mutex_;
  keeper ends_ MOORED_GUARDED_BY(mutex_){0};
  std::size_t limit_ MOORED_GUARDED_BY(mutex_) = 0;
};

MOORED_CONSTINIT inline keepers the_keepers;

}  // namespace detail
MOORED_NAMESPACE_END
