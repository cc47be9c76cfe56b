// moored/detail/states/thread_end.hpp: what becomes of an adopted state when its thread ends.
//
// What a thread's locals held is to be finalised before the thread can be joined, as it is without
// moored, and yet the end of a thread must not wait for the GIL: it may be joined with the GIL
// held. So the thread offers its state, waits a bounded time for an attached thread to clear it,
// and deletes it, which needs no GIL. When the time is over it leaves the state behind.
// docs/design/thread-end.md has the whole.
//
// In the library the state is offered in the last key round, and the attached thread is the
// reaper's (reaper.hpp). `moored run` sees more: there a thread ends earlier, waits for the GIL by
// itself and gives up, and a joiner that holds the GIL clears (src/run/preload).
//
// Without a GIL no other thread may clear a state (cpython::has_gil), and there is no GIL to wait
// for: there the thread frees it.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <utility>

#include "../cpython/gilstate_slot.hpp"
#include "kept.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// How far the end of an adopted state is.
enum class ending : std::uint8_t {
  alone,    ///< In the hands of one thread: its own, or another that is done with it.
  offered,  ///< An attached thread may take it and clear it.
  claimed,  ///< An attached thread is clearing it.
  over,     ///< Cleared, or left to Python. It can be deleted.
};

/// One adopted state. Shared by the thread that keeps it (then by those that end it) and by a
/// capsule in the state's dict; the last of the two deletes it.
///
/// The capsule marks the state as adopted, so that only one of several copies of moored in a
/// process adopts it. And it is told when other code clears the state: Python at the end of its
/// own thread or of the interpreter, cffi for the threads that cffi keeps. From then on the state
/// is not ours to touch.
struct adoption {
  PyThreadState* state = nullptr;
  epoch born_in = 0;
  pthread_t thread{};                ///< Whose it is.
  keeper* listed = &unlisted;        ///< From the end of the keeping until the state is cleared.
  attendance* counted_in = nullptr;  ///< From the end of its thread until the state is deleted.
  bool released = false;             ///< We clear the state ourselves. The GIL guards it.
  std::atomic<bool> cleared{false};  ///< Other code did.
  /// Its thread has asked for the GIL to be let go, which its holder may still be about to do.
  std::atomic<bool> has_asked{false};
  int rounds = 0;  ///< Of pthread-key destructors that its ending thread has gone through.
  std::atomic<int> owners{2};

  // The mutex of `ended_states` guards these.
  ending stage = ending::alone;
  bool needs_help = false;  ///< Its thread does not clear it by itself.
  bool left = false;        ///< Its thread has gone on without it.
  adoption* previous = nullptr;
  adoption* next = nullptr;

  void drop() noexcept {
    if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

/// The thread's side of an adoption has ended, and its state was deleted, or left to Python. Any
/// thread.
inline void finish_adoption(adoption& its, bool freed) noexcept {
  (freed ? the_gate.freed : the_gate.forgotten).fetch_add(1, std::memory_order_relaxed);
  if (freed && its.left) the_gate.freed_late.fetch_add(1, std::memory_order_relaxed);
  the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
  attendance* const present = std::exchange(its.counted_in, nullptr);
  its.drop();
  if (present != nullptr) the_gate.leave_unused(*present);
}

/// Which states a thread offers to clear.
enum class helper : std::uint8_t {
  joiner,   ///< Any: the thread whose state it is can be waited for by this very one.
  reaper,   ///< Those whose threads do not clear them by themselves.
  visitor,  ///< Those that were left behind.
};

/// The states of ended and ending threads that are still to be cleared.
///
/// Its members are never destroyed: threads may still wait when the process ends.
class ended_states {
 public:
  /// By the thread whose state it is, counted in, not attached.
  void offer(adoption& its, bool needs_help) noexcept {
    {
      const locked lock(mutex_);
      its.stage = ending::offered;
      its.needs_help = needs_help;
      add(its);
    }
    tell();
  }
  /// The same thread takes it back. False when another has claimed it.
  [[nodiscard]] bool withdraw(adoption& its) noexcept {
    const locked lock(mutex_);
    if (its.stage != ending::offered) return false;
    its.stage = ending::alone;
    remove(its);
    return true;
  }
  /// The same thread goes on without it. False when it is over, and the thread is to delete it.
  [[nodiscard]] bool leave(adoption& its) noexcept {
    {
      const locked lock(mutex_);
      if (its.stage == ending::over) return false;
      its.left = true;
      its.needs_help = true;
      if (its.stage == ending::alone) {
        its.stage = ending::offered;
        add(its);
      }
    }
    tell();
    return true;
  }
  /// The same thread waits until its offer is over, `unless` something, at most for the limit.
  template <class Unless>
  [[nodiscard]] bool wait(const adoption& its, std::optional<std::chrono::nanoseconds> limit,
                          Unless unless) noexcept {
    deadline due(limit);
    const locked lock(mutex_);
    while (its.stage != ending::over && !unless() && !due.over()) {
      if (const auto rest = due.rest()) {
        if (!changed().wait_for(mutex_, *rest)) due.slept(*rest);
      } else {
        changed().wait(mutex_);
      }
    }
    return its.stage == ending::over;
  }
  /// A state that the caller, attached to the main interpreter, is to clear; null when there is
  /// none.
  [[nodiscard]] adoption* claim(helper how) noexcept {
    const locked lock(mutex_);
    adoption* found = first_;
    while (found != nullptr && !is_for(how, *found)) found = found->next;
    if (found == nullptr) return nullptr;
    remove(*found);
    found->stage = ending::claimed;
    return found;
  }
  /// Clears a claimed state. Runs Python, which may let go of the GIL and wait for it. Attached, by
  /// whatever state of the main interpreter.
  void clear(adoption& its) noexcept {
    expect_no_lock();
    clearing_.fetch_add(1, std::memory_order_seq_cst);
    ++cleared_here_;
    the_keepers.remove(std::exchange(its.listed, &unlisted));
    if (!its.cleared && (its.counted_in != nullptr || its.born_in == the_gate.now())) {
      its.released = true;
      PyObject* const exception = PyErr_Occurred() != nullptr ? cpython::take_exception() : nullptr;
      cpython::clear(its.state);
      if (exception != nullptr) cpython::set_exception(exception);
    }
    --cleared_here_;
    clearing_.fetch_sub(1, std::memory_order_seq_cst);
  }
  /// What was claimed is over. True when its thread has left it, and the reaper is to delete it.
  /// Any thread.
  [[nodiscard]] bool set_over(adoption& its) noexcept {
    bool left = false;
    {
      const locked lock(mutex_);
      note_over(its);
      left = its.left;
    }
    tell();
    return left;
  }
  /// Takes out a state that other code has cleared, if its thread has gone and no reaper could be
  /// had for it. False when a thread is still to see to it. Any thread.
  [[nodiscard]] bool forget(adoption& its) noexcept {
    const locked lock(mutex_);
    if (its.stage != ending::offered || !its.left || its.counted_in != nullptr) return false;
    its.stage = ending::over;
    remove(its);
    return true;
  }
  /// Waits until they do no longer, at most for the limit. Not attached.
  void wait_for_others(std::chrono::nanoseconds limit) noexcept {
    deadline due(limit);
    const locked lock(mutex_);
    while (others_clear() && !due.over()) {
      const auto rest = *due.rest();
      if (!changed().wait_for(mutex_, rest)) due.slept(rest);
    }
  }
  /// True while other threads clear states: one that waits for them must not hold the GIL. Any
  /// thread.
  [[nodiscard]] bool others_clear() const noexcept {
    return clearing_.load(std::memory_order_seq_cst) != cleared_here_;
  }

  /// Deletes those that were left behind and have been cleared. On a thread that has no state.
  void delete_left() noexcept;

  /// Called, if set, after every change.
  std::atomic<void (*)() noexcept> on_change{nullptr};
  void tell() noexcept {
    changed().notify_all();
    if (auto* const also = on_change.load(std::memory_order_acquire)) also();
  }

  /// In the child of a fork: these threads are not there, and their states are CPython's.
  void after_fork() noexcept MOORED_UNCHECKED {
    mutex_.renew();
    changed().renew();
    first_ = last_ = over_ = nullptr;
    cleared_here_ = 0;
    clearing_.store(0);
  }

 private:
  friend class reaper;

  [[nodiscard]] static bool is_for(helper how, const adoption& its) noexcept {
    if (how == helper::joiner) return true;
    return how == helper::reaper ? its.needs_help : its.left;
  }
  void add(adoption& its) noexcept MOORED_REQUIRES(mutex_) {
    its.previous = last_;
    its.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &its;
    last_ = &its;
  }
  void remove(const adoption& its) noexcept MOORED_REQUIRES(mutex_) {
    (its.previous == nullptr ? first_ : its.previous->next) = its.next;
    (its.next == nullptr ? last_ : its.next->previous) = its.previous;
  }
  void note_over(adoption& its) noexcept MOORED_REQUIRES(mutex_) {
    its.stage = ending::over;
    if (!its.left) return;  // its thread deletes it
    its.next = over_;
    over_ = &its;
  }

  /// Never destroyed: threads wait for it when the process ends.
  [[nodiscard]] static condition& changed() noexcept {
    alignas(condition) static unsigned char room[sizeof(condition)];
    static condition* const made = new (room) condition;
    return *made;
  }

  mutex mutex_;
  adoption* first_ MOORED_GUARDED_BY(mutex_) = nullptr;  // offered; those that wait longest first
  adoption* last_ MOORED_GUARDED_BY(mutex_) = nullptr;
  adoption* over_ MOORED_GUARDED_BY(mutex_) = nullptr;  // left, and to be deleted
  std::atomic<int> clearing_{0};
  static inline thread_local int cleared_here_ = 0;  // clears that this thread is within
};

MOORED_CONSTINIT inline ended_states the_ended;

/// Deletes a state that is over. On a thread that has no state, or has this one; not attached.
inline void delete_ended(adoption& its) noexcept {
  // A state that was left behind when no thread could be had for it is not counted in.
  if (its.counted_in == nullptr) its.counted_in = the_gate.enter(its.born_in);
  const bool freed =
      its.released && its.counted_in != nullptr &&
      the_gate.delete_state(its.born_in, [&its] { cpython::dead_state::remove(its.state); });
  finish_adoption(its, freed);
}

inline void ended_states::delete_left() noexcept {
  adoption* all = nullptr;
  {
    const locked lock(mutex_);
    all = std::exchange(over_, nullptr);
  }
  while (all != nullptr) {
    adoption& its = *all;
    all = its.next;
    delete_ended(its);
  }
}

}  // namespace detail
MOORED_NAMESPACE_END
