// moored/detail/gate/gate.hpp: the closing gate, which every attach passes and which shutdown
// closes.
//
// Before CPython 3.15 nothing tells a native thread in time that the interpreter is going away: a
// check of Py_IsFinalizing is out of date when it returns, and PyGILState_Ensure then ends the
// thread, hangs it, or lets it into a half torn-down interpreter (see versions.hpp). The gate
// closes that window on every version. It shuts in an atexit callback, while Python still works,
// and waits (bounded) for the calls that are inside. Where that callback was not called (it was
// cleared, or registered too late), the gate shuts when the interpreter's own dict is cleared.
#pragma once

#include <Python.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <new>
#include <optional>
#include <thread>

#include "../cpython/calls.hpp"
#include "../lock.hpp"
#include "deadline.hpp"
#include "epoch.hpp"
#include "membarrier.hpp"
#include "refusal.hpp"
#include "stats.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// Calls that the gate let in, in one epoch of the interpreter. Two numbers that only grow are both
/// the gate and the stats. They have a cache line of their own: every attach writes them.
///
/// There is one that all threads share, for each epoch, and a `seat` for each thread that keeps a
/// state. A call that shutdown has given up on is written off with its epoch: when that call
/// returns, it leaves the attendance in which it was counted.
struct alignas(64) attendance {
  std::atomic<std::uint64_t> entered{0};
  std::atomic<std::uint64_t> left{0};
  std::atomic<std::uint64_t> making{0};    ///< Threads that make or delete a state. Shared alone.
  std::atomic<epoch> opened{phase::open};  ///< The epoch in which its calls entered.
  attendance* previous = nullptr;          ///< Of the epoch before, or the next seat; never freed.
  std::atomic<bool> taken{false};          ///< A seat: has a thread.
  bool is_seat = false;                    ///< Set before another thread sees it.

  void leave() noexcept {
    if (is_seat) {
      leave_seat();
    } else {
      left.fetch_add(1, std::memory_order_release);
    }
  }
  /// Of a seat, by its own thread alone: so plain stores do.
  MOORED_ALWAYS_INLINE void leave_seat() noexcept {
    left.store(left.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  }
  /// The same for an entry that led to nothing: it does not count.
  void leave_seat_unused() noexcept {
    entered.store(entered.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t inside() const noexcept {
    const std::uint64_t gone = left.load(std::memory_order_acquire);  // first: it never overtakes
    return entered.load(std::memory_order_seq_cst) - gone;
  }
};

class gate {
 public:
  /// Counts the caller in if `expected` is the epoch that is open now. Returns the attendance in
  /// which it was counted, whose leave() the caller calls once; or null. Any thread, attached or
  /// not.
  ///
  /// The count must be visible before the epoch is read, and close() writes the epoch before it
  /// reads the count: only a sequentially consistent order on both sides lets neither miss the
  /// other.
  [[nodiscard]] attendance* enter(epoch expected) noexcept {
    attendance* const present = attendance_.load(std::memory_order_acquire);
    present->entered.fetch_add(1, std::memory_order_seq_cst);
    if (MOORED_LIKELY(epoch_.load(std::memory_order_seq_cst) == expected && is_open(expected)))
      return present;
    leave_unused(*present);
    return nullptr;
  }
  /// The same for the thread that has `seat`, without a word that other threads write: the short
  /// way in. False when it has to take the other one.
  ///
  /// The seat is written before the epoch is read, in the order of the program: close() writes the
  /// epoch, has all threads pass a memory barrier, and then reads the seats.
  [[nodiscard]] MOORED_ALWAYS_INLINE bool enter_by_seat(attendance& seat, epoch expected) noexcept {
    seat.entered.store(seat.entered.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (MOORED_LIKELY(seat_epoch() == expected)) return true;
    seat.leave_seat_unused();
    return false;
  }

  /// A seat for the calling thread, which enters by it in the epoch `now` and gives it back; null
  /// without memory.
  [[nodiscard]] attendance* take_seat(epoch now) noexcept {
    for (attendance* one = seats_.load(std::memory_order_acquire); one != nullptr;
         one = one->previous) {
      if (one->taken.load(std::memory_order_relaxed) ||
          one->taken.exchange(true, std::memory_order_acquire))
        continue;
      one->opened.store(now, std::memory_order_relaxed);
      return one;
    }
    auto* const fresh = new (std::nothrow) attendance;
    if (fresh == nullptr) return nullptr;
    fresh->is_seat = true;
    fresh->taken.store(true, std::memory_order_relaxed);
    fresh->opened.store(now, std::memory_order_relaxed);
    fresh->previous = seats_.load(std::memory_order_relaxed);
    while (!seats_.compare_exchange_weak(fresh->previous, fresh, std::memory_order_release,
                                         std::memory_order_relaxed)) {
    }
    return fresh;
  }
  /// The thread has left it.
  static void give_back(attendance& seat) noexcept {
    seat.taken.store(false, std::memory_order_release);
  }

  /// While states are limited, every attach goes by the words that all threads share, and notes how
  /// long its thread was idle.
  void limit_states(bool limited) noexcept {
    const locked lock(changing_);
    limits_states_ = limited;
    change_to(now());
  }

  /// leave() after an entry that led to no attachment: it does not count as an attach.
  void leave_unused(attendance& present) noexcept {
    turned_back_.fetch_add(1, std::memory_order_relaxed);
    present.leave();
  }

  [[nodiscard]] static constexpr bool is_open(epoch which) noexcept {
    return detail::is_open(which);
  }
  [[nodiscard]] epoch now() const noexcept { return epoch_.load(std::memory_order_acquire); }
  /// The same while threads enter by their seats, else `phase::no_seats`: the gate is not open, the
  /// states are limited, or there is no memory barrier on all threads.
  [[nodiscard]] epoch seat_epoch() const noexcept {
    return seat_epoch_.load(std::memory_order_acquire);
  }
  /// True from close() until the interpreter is gone.
  [[nodiscard]] bool closing() const noexcept { return is_closing(now()); }

  /// True when the gate may still be open while the interpreter is finalising: it was opened by an
  /// exit handler, and from then on Python calls no exit handler that is registered, so that no
  /// callback closes the gate.
  [[nodiscard]] bool ends_unseen() const noexcept {
    return ends_unseen_.load(std::memory_order_relaxed);
  }

  /// True when the gate was certainly opened by an exit handler: the end is near, and waits for no
  /// thread.
  [[nodiscard]] bool opened_at_exit() const noexcept {
    return opened_at_exit_.load(std::memory_order_relaxed);
  }

  [[nodiscard]] bool has_ended_unseen() const noexcept {
    return ends_unseen() && !cpython::is_running();
  }

  /// How many entries there have been by words that all threads share: a clock that costs nothing
  /// more, for what idles longest.
  [[nodiscard]] std::uint64_t clock() const noexcept {
    return attendance_.load(std::memory_order_relaxed)->entered.load(std::memory_order_relaxed);
  }

  /// Begins an epoch. Attached. False with an exception when Python refused. Not noexcept: it runs
  /// Python code, under which a late thread may be unwound (see versions.hpp).
  [[nodiscard]] bool open();
  /// Ends the epoch: refuses every thread from now on, then waits for the calls that are inside, at
  /// most for the bound. Attached to the main interpreter.
  void close() noexcept;
  /// Called when the main interpreter's dict is cleared: shuts a gate that is still open, without
  /// waiting for the calls inside.
  void interpreter_has_ended() noexcept;

  /// True when shutdown has stopped waiting for the threads that entered in the epoch `which`.
  [[nodiscard]] bool gave_up_on(epoch which) const noexcept {
    return (which | phase::mask) <= given_up_.load(std::memory_order_acquire);
  }
  /// True when a state that its thread detached in epoch `then` can no longer be attached by that
  /// thread: its interpreter is gone, or goes on without it. `counted_in`: the thread had entered
  /// through this gate.
  [[nodiscard]] bool is_over(epoch then, bool counted_in) const noexcept {
    const epoch current = now();
    if (current == then) return false;
    return !same_life(current, then) || (counted_in && gave_up_on(then));
  }

  /// Makes a state of the main interpreter for a thread that is counted in. Null without memory,
  /// and when shutdown has given up on that thread: a state that is made too late is made from
  /// memory that CPython has freed. Shutdown, in turn, gives up on threads only while no state is
  /// being made. The caller is not attached: with tracemalloc on, making a state waits for the GIL.
  ///
  /// Where no callback closes the gate (ends_unseen), the interpreter is asked whether it is
  /// finalising: from 3.14 on CPython stops the states that exist when finalization begins, and
  /// lets a state that is made later run Python code in what is left of the interpreter.
  [[nodiscard]] PyThreadState* make_state(epoch current) noexcept {
    expect_no_lock();
    attendance& present = *attendance_.load(std::memory_order_acquire);
    present.making.fetch_add(1, std::memory_order_seq_cst);
    PyThreadState* const state = gave_up_on(current) || has_ended_unseen()
                                     ? nullptr
                                     : cpython::make_state(PyInterpreterState_Main());
    present.making.fetch_sub(1, std::memory_order_release);
    return state;
  }
  /// Runs `deletes`, which deletes a state of the epoch `which` without the GIL, and says so;
  /// unless shutdown has given up on that state's thread: then CPython frees the state, or has.
  /// Shutdown gives up on threads only while no state is being deleted.
  template <class Deletes>
  [[nodiscard]] bool delete_state(epoch which, Deletes deletes) noexcept {
    attendance& present = *attendance_.load(std::memory_order_acquire);
    present.making.fetch_add(1, std::memory_order_seq_cst);
    const bool is_ours = !gave_up_on(which) && !has_ended_unseen();
    if (is_ours) deletes();
    present.making.fetch_sub(1, std::memory_order_release);
    return is_ours;
  }
  /// cpython::try_ensure(), with the same conditions.
  [[nodiscard]] std::optional<PyGILState_STATE> try_ensure(epoch current) noexcept {
    if (gave_up_on(current) || has_ended_unseen()) return std::nullopt;
    return cpython::try_ensure([this, current] { return make_state(current); });
  }
  /// Why make_state() or try_ensure() gave nothing.
  [[nodiscard]] refusal why_no_state(epoch current) const noexcept {
    return gave_up_on(current) || has_ended_unseen() ? refusal::closing : refusal::no_memory;
  }

  void set_bound(std::chrono::milliseconds bound) noexcept {
    constexpr std::chrono::milliseconds none{0}, longest = std::chrono::hours(24 * 365);
    bound_ms_.store(std::clamp(bound, none, longest).count(), std::memory_order_relaxed);
  }
  [[nodiscard]] std::chrono::milliseconds bound() const noexcept {
    return std::chrono::milliseconds(bound_ms_.load(std::memory_order_relaxed));
  }

  [[nodiscard]] state_stats stats() const noexcept;

  /// Called by close(), attached, while Python still works and threads may still enter, with the
  /// deadline of the whole end; and by interpreter_has_ended() without one, if close() did not run.
  std::atomic<void (*)(deadline*) noexcept> before_closing{nullptr};
  /// Called by close(), not attached, when the threads inside have left, with the same deadline:
  /// ends the threads that moored itself has started.
  std::atomic<void (*)(const deadline&) noexcept> end_own_threads{nullptr};
  /// Called when no more threads enter: by close(), attached, while Python still works; or by
  /// interpreter_has_ended() with false, when no Python code can be run any more.
  std::atomic<void (*)(bool is_attached) noexcept> after_closing{nullptr};

  std::atomic<std::uint64_t> shared{0};  ///< 1 while there is a shared state: made, not kept.
  std::atomic<std::uint64_t> refusals{0}, made{0}, adopted{0}, kept{0}, freed{0}, forgotten{0},
      overdue{0}, over_limit{0}, freed_late{0}, references_forgotten{0};

  /// In a forked child only the forking thread lives on; the other threads that were inside are
  /// gone and never leave. `counted_in` is the attendance of the forking thread, `seat` its own
  /// seat, or null. Those of the other threads are free.
  void after_fork(const attendance* counted_in, const attendance* seat) noexcept {
    changing_.renew();
    {
      const locked lock(changing_);
      change_to(now());  // a thread that is gone may have been about to
    }
    attendance& present = *attendance_.load();
    present.making.store(0);
    present.left.store(present.entered.load() - (counted_in == &present ? 1 : 0));
    for (attendance* one = seats_.load(); one != nullptr; one = one->previous) {
      one->left.store(one->entered.load() - (counted_in == one ? 1 : 0));
      if (one != seat) give_back(*one);
    }
    forgotten.fetch_add(kept.exchange(0));
  }

 private:
  /// How many calls of an epoch that has been closed are inside.
  [[nodiscard]] std::uint64_t inside(epoch which) const noexcept;
  [[nodiscard]] bool register_callback();
  [[nodiscard]] bool mark_interpreter();
  [[nodiscard]] bool has_marked_interpreter() const noexcept;
  /// False without memory.
  [[nodiscard]] bool begin_attendance(epoch next) noexcept MOORED_REQUIRES(changing_);
  /// Shows `next` to all threads, and whether they enter by their seats.
  void change_to(epoch next) noexcept MOORED_REQUIRES(changing_);
  /// No thread enters from now on; those that are inside can be counted.
  void shut(epoch current) noexcept;
  void give_up(epoch which, std::uint64_t still) noexcept;

  alignas(64) std::atomic<epoch> epoch_{0};
  std::atomic<epoch> seat_epoch_{phase::no_seats};
  std::atomic<bool> ends_unseen_{false}, opened_at_exit_{false};
  std::atomic<attendance*> attendance_{&first_};  // that which all threads share
  std::atomic<attendance*> seats_{nullptr};
  std::atomic<epoch> given_up_{0};  // the latest epoch that shutdown has stopped waiting for
  std::atomic<std::uint64_t> turned_back_{0};
  std::atomic<std::int64_t> bound_ms_{5000};
  attendance first_;
  mutex changing_;  // the epoch; no Python runs under it, and no thread waits for the GIL
  bool hooked_ MOORED_GUARDED_BY(changing_) = false;  // pthread_atfork
  bool has_membarrier_ MOORED_GUARDED_BY(changing_) = false;
  bool limits_states_ MOORED_GUARDED_BY(changing_) = false;
};

MOORED_CONSTINIT inline gate the_gate;

/// Counted in at the gate for a scope, without being attached: shutdown waits for it. Any thread.
class passage {
 public:
  passage() noexcept : passage(the_gate.now()) {}
  explicit passage(epoch current) noexcept
      : inside_(is_open(current) && !the_gate.has_ended_unseen() ? the_gate.enter(current)
                                                                 : nullptr) {}
  ~passage() {
    if (inside_ != nullptr) the_gate.leave_unused(*inside_);
  }
  passage(const passage&) = delete;
  passage& operator=(const passage&) = delete;
  [[nodiscard]] explicit operator bool() const noexcept { return inside_ != nullptr; }

 private:
  attendance* inside_;
};

}  // namespace detail
MOORED_NAMESPACE_END
