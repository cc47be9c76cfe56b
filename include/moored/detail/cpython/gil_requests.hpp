// moored/detail/cpython/gil_requests.hpp: asks the thread that holds the GIL to let go at once.
//
// A thread that wants the GIL sleeps for the switch interval (5 ms) before CPython asks the holder
// to let go. That sleep is a pthread_cond_timedwait in take_gil() (Python/ceval_gil.c), the only
// one in the interpreter. Where it says at once that the time is up, which POSIX lets it do,
// CPython asks at once, and a holder that runs Python lets go between two bytecodes.
#pragma once

#include <Python.h>

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "../stay_loaded.hpp"
#include "gil_budget.hpp"
#include "import_slots.hpp"
#include "versions.hpp"

MOORED_NAMESPACE_BEGIN
namespace cpython {

/// How a thread waits for the GIL. Only its own thread reads and writes it.
struct gil_wish {
  std::uint16_t urgent = 0;    ///< Scopes, and whether the thread is urgent for good.
  std::uint16_t turns = 0;     ///< In this wait, since it has asked.
  std::int64_t asked_at = 0;   ///< In ns, for what it holds now; 0: it has not asked, or has paid.
  std::int64_t waited_at = 0;  ///< When its last turn ended.
};

// Reached as the thread record is (config.hpp).
MOORED_TLS_MODEL MOORED_CONSTINIT inline thread_local gil_wish this_threads_wish;

[[nodiscard]] inline std::int64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

/// The end of a wait of `ns` that begins now, but not later than `due`, by the clock that `due`
/// goes by: since the machine was started, or since 1970.
[[nodiscard]] inline timespec not_later(const timespec& due, std::int64_t ns) noexcept {
  constexpr long second = 1'000'000'000;
  timespec monotonic{}, end{};
  clock_gettime(CLOCK_MONOTONIC, &monotonic);
  clock_gettime(CLOCK_REALTIME, &end);
  if (due.tv_sec < monotonic.tv_sec + (end.tv_sec - monotonic.tv_sec) / 2) end = monotonic;
  end.tv_sec += static_cast<time_t>(ns / second);
  end.tv_nsec += static_cast<long>(ns % second);
  if (end.tv_nsec >= second) {
    end.tv_nsec -= second;
    ++end.tv_sec;
  }
  const bool is_earlier =
      end.tv_sec != due.tv_sec ? end.tv_sec < due.tv_sec : end.tv_nsec < due.tv_nsec;
  return is_earlier ? end : due;
}

/// The process's: which waits are urgent, what they may cost, and how many there were.
class gil_requests {
 public:
  using timed_wait = int (*)(pthread_cond_t*, pthread_mutex_t*, const timespec*);

  /// Puts wait() into the interpreter's table. Null, or why that is not possible. Attached to the
  /// main interpreter, whose GIL orders the calls.
  [[nodiscard]] const char* install() noexcept {
    if constexpr (!has_gil) return "this Python has no GIL";
    import_slots slots("pthread_cond_timedwait");
    if (slots.why() != nullptr) return slots.why();
    void* const now = slots.target();
    auto* const ours = reinterpret_cast<void*>(&wait);
    if (slots.are(ours)) return nullptr;
    // In place already, under another that was put on top and comes here; or the loader, resolving
    // the reference on another thread in that moment, has written over it.
    timed_wait none = nullptr;
    const auto next = reinterpret_cast<timed_wait>(now);
    if (!next_.compare_exchange_strong(none, next) && none != next) return nullptr;
    moored::detail::stay_loaded();
    if (!slots.replace(ours)) return slots.why();
    installed_.store(true, std::memory_order_relaxed);
    return nullptr;
  }
  /// Any thread.
  [[nodiscard]] bool is_installed() const noexcept {
    return installed_.load(std::memory_order_relaxed);
  }

  /// The calling thread's turn with the GIL ends, as far as that is told: what it held is paid.
  void settle(gil_wish& mine) noexcept {
    const std::int64_t now = monotonic_ns();
    budget.take(std::min(now - mine.asked_at, longest_turn_ns), now);
    mine.asked_at = 0;
  }

  /// By the only thread that there is.
  void after_fork_in_child() noexcept {
    asked.store(0, std::memory_order_relaxed);
    denied.store(0, std::memory_order_relaxed);
  }

  gil_budget budget;
  std::atomic<std::uint64_t> asked{0};   ///< Times that a holder was asked at once.
  std::atomic<std::uint64_t> denied{0};  ///< Times that the budget did not allow it.

 private:
  /// What the holder loses with the switch to another thread and back, besides the time that the
  /// other one holds the GIL: caches, and waking up.
  static constexpr std::int64_t switch_ns = 10'000;
  /// A thread that has held the GIL for the usual switch interval would have been asked for it by
  /// the thread that it took it from: what it holds longer is not urgency's doing.
  static constexpr std::int64_t longest_turn_ns = 5'000'000;
  /// A thread that was asked lets go in microseconds; then another thread may have been faster, and
  /// that one has to be asked. Doubled each time: a holder that is in native code lets go later.
  static constexpr std::int64_t first_turn_ns = 100'000;
  static constexpr int last_doubling = 6;
  /// CPython goes on with its wait sooner than that.
  static constexpr std::int64_t new_wait_after_ns = 50'000;

  /// The interpreter's pthread_cond_timedwait: the mutex of a GIL is held. Not noexcept: CPython's
  /// threads may be cancelled here.
  static int wait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* due);

  /// Whether the holder is asked now: the first turn of a wait that the budget allows.
  [[nodiscard]] bool asks(gil_wish& mine) noexcept {
    const std::int64_t now = monotonic_ns();
    if (now - mine.waited_at > new_wait_after_ns) mine.turns = 0;
    if (mine.turns != 0) return false;
    if (!budget.has_some(now)) {
      denied.fetch_add(1, std::memory_order_relaxed);
      return false;
    }
    mine.turns = 1;
    mine.asked_at = mine.waited_at = now;
    budget.take(switch_ns, now);
    asked.fetch_add(1, std::memory_order_relaxed);
    return true;
  }

  std::atomic<timed_wait> next_{nullptr};
  std::atomic<bool> installed_{false};
};

MOORED_CONSTINIT inline gil_requests the_gil_requests;

inline int gil_requests::wait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                              const timespec* due) {
  gil_requests& all = the_gil_requests;
  const timed_wait next = all.next_.load(std::memory_order_relaxed);
  gil_wish& mine = this_threads_wish;
  if (MOORED_LIKELY(mine.urgent == 0)) return next(condition, mutex, due);
  if (all.asks(mine)) return ETIMEDOUT;
  if (mine.turns == 0) return next(condition, mutex, due);  // over the budget
  const int doublings = std::min<int>(mine.turns - 1, last_doubling);
  const timespec end = not_later(*due, first_turn_ns << doublings);
  const int result = next(condition, mutex, &end);
  mine.turns = result == 0 ? std::uint16_t{0} : static_cast<std::uint16_t>(mine.turns + 1);
  mine.waited_at = monotonic_ns();
  return result;
}

/// While it lives, its thread's waits for the GIL are urgent.
class urgent_scope {
 public:
  urgent_scope() noexcept { ++this_threads_wish.urgent; }
  ~urgent_scope() { --this_threads_wish.urgent; }
  urgent_scope(const urgent_scope&) = delete;
  urgent_scope& operator=(const urgent_scope&) = delete;
};

/// From now on all waits of the calling thread are urgent.
inline void be_urgent() noexcept {
  this_threads_wish.urgent |= 0x8000;
}

/// The calling thread, attached, is about to let go of the GIL.
inline void settle_urgent_turn() noexcept {
  gil_wish& mine = this_threads_wish;
  if (MOORED_UNLIKELY(mine.asked_at != 0)) the_gil_requests.settle(mine);
}

}  // namespace cpython
MOORED_NAMESPACE_END
