// moored/detail/states/thread_end.hpp: what becomes of an adopted state when its thread ends.
//
// What a thread's locals held is to be finalised before the thread can be joined, as it is without
// moored, and yet the end of a thread must not wait for the GIL: it may be joined with the GIL
// held. So the thread offers its state, waits a bounded time for an attached thread to clear it,
// and deletes it, which needs no GIL. When the time is over it leaves the state behind.
// docs/design/thread-end.md has the whole.
//
// Here the state is offered in the last key round, and the attached thread is the reaper's, a
// native thread that exists while there is something to clear. `moored run` sees more: there a
// thread ends earlier, waits for the GIL by itself and gives up, and a joiner that holds the GIL
// clears (src/run/preload).
//
// Without a GIL no other thread may clear a state (cpython::has_gil), and there is no GIL to wait
// for: there the thread frees it.
#pragma once

#include <pthread.h>
#include <signal.h>

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

/// Clears the states of threads that do not do it by themselves, by a native thread that exists
/// only while there are some.
class reaper {
 public:
  /// How long an ending thread waits for it.
  std::atomic<std::chrono::milliseconds> patience{std::chrono::milliseconds(5)};

  /// Called by a thread in its last moments, counted in at the gate, whose PyGILState slot is
  /// empty. The count goes with the state.
  ///
  /// The thread waits for the reaper, and for the end of the reaper's thread, so that none is left
  /// when it has been joined. It does not when an earlier wait was in vain and the reaper has not
  /// had the GIL since: then threads are joined with the GIL held, one after the other.
  void take(adoption& its) noexcept {
    the_ended.offer(its, true);
    const bool waits = run() && !stuck_.load(std::memory_order_relaxed);
    const std::chrono::nanoseconds limit =
        waits ? patience.load(std::memory_order_relaxed) : std::chrono::milliseconds(0);
    const bool is_over = the_ended.wait(its, limit, [] { return false; });
    if (!is_over && leave_behind(its)) {
      if (waits) note_stuck();
      return;
    }
    delete_ended(its);
    the_ended.delete_left();
    join_finished();
  }

  /// A wait for the GIL was in vain, elsewhere: the next thread that ends does not wait.
  void note_stuck() noexcept { stuck_.store(true, std::memory_order_relaxed); }

  /// The thread, whose PyGILState slot is empty, goes on without its state, which is cleared when
  /// that can be done. False when that is over, and the thread is to delete it.
  [[nodiscard]] bool leave_behind(adoption& its) noexcept {
    if (!the_ended.leave(its)) return false;
    if (run()) return true;
    count_out(its);
    the_ended.delete_left();
    return true;
  }

  /// Sees to it that the states that were left behind are cleared and deleted: a thread is running
  /// afterwards, or none could be started. Any thread.
  bool run() noexcept {
    pthread_t finished{};
    bool has_finished = false;
    {
      const locked lock(the_ended.mutex_);
      if (phase_ == running) return true;
      has_finished = phase_ == unjoined;
      finished = thread_;
      phase_ = running;
    }
    if (has_finished) pthread_join(finished, nullptr);
    if (start()) return true;
    const locked lock(the_ended.mutex_);
    phase_ = none;
    return false;
  }

  /// Waits until no thread of the reaper's is there, at most so long. Not attached.
  void wait_for_end(deadline due) noexcept {
    {
      const locked lock(the_ended.mutex_);
      while (phase_ == running && !due.over()) {
        const auto rest = due.rest();
        if (!rest)
          the_ended.changed().wait(the_ended.mutex_);
        else if (!the_ended.changed().wait_for(the_ended.mutex_, *rest))
          due.slept(*rest);
      }
    }
    join_finished();
  }
  [[nodiscard]] bool is_there() noexcept {
    const locked lock(the_ended.mutex_);
    return phase_ != none;
  }

  /// Clears what was left behind. Attached to the main interpreter.
  void clear_left() noexcept {
    bool deletes = false;
    while (adoption* const its = the_ended.claim(helper::visitor)) {
      the_ended.clear(*its);
      deletes = the_ended.set_over(*its) || deletes;
    }
    if (deletes) run();
  }

  /// The child of a fork has no reaper.
  void after_fork() noexcept MOORED_UNCHECKED {
    phase_ = none;
    stuck_.store(false);
  }

 private:
  enum phase : std::uint8_t { none, running, unjoined };

  [[nodiscard]] bool start() noexcept {
    // The program's signals are not for this thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const auto main = [](void* self) -> void* {
      static_cast<reaper*>(self)->work();
      return nullptr;
    };
    const bool started = pthread_create(&thread, nullptr, main, this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
  }

  // Not noexcept: a late thread may be unwound, see versions.hpp.
  void work() {
    for (adoption* batch = nullptr;;) {
      the_ended.delete_left();
      bool ends = false;
      {
        const locked lock(the_ended.mutex_);
        while (batch != nullptr) {
          adoption& its = *batch;
          batch = its.next;
          the_ended.note_over(its);
        }
        // Those that wait for their states see the end of this thread in the same moment, and wait
        // for that.
        ends = the_ended.over_ == nullptr && !has_work();
        if (ends) {
          thread_ = pthread_self();
          phase_ = unjoined;
        }
      }
      the_ended.tell();
      if (ends) return;
      batch = clear_some();
    }
  }
  [[nodiscard]] bool has_work() const noexcept MOORED_REQUIRES(the_ended.mutex_) {
    for (const adoption* one = the_ended.first_; one != nullptr; one = one->next) {
      if (one->needs_help) return true;
    }
    return false;
  }

  /// The states are cleared with a state of the reaper's own attached, so that what their
  /// thread-locals do at their end, entering Python by another binding included, is done on a state
  /// that PyGILState knows. They are deleted without it, which CPython allows: from 3.12 on
  /// deleting a state takes away the PyGILState binding of the thread that does it.
  ///
  /// Without memory for the reaper's own state they are left to Python.
  [[nodiscard]] adoption* clear_some() noexcept {
    const auto token = the_gate.try_ensure(the_gate.now());
    stuck_.store(false, std::memory_order_relaxed);
    const bool can_delete = token && cpython::dead_state::find();
    adoption* batch = nullptr;
    while (adoption* const its = the_ended.claim(helper::reaper)) {
      if (can_delete) the_ended.clear(*its);
      its->next = batch;
      batch = its;
    }
    if (token) cpython::release(*token);
    return batch;
  }

  void join_finished() noexcept {
    pthread_t finished{};
    {
      const locked lock(the_ended.mutex_);
      if (phase_ != unjoined) return;
      finished = thread_;
      phase_ = none;
    }
    pthread_join(finished, nullptr);
  }

  /// No thread could be started: the next thread that adopts a state clears this one, and the end
  /// of the interpreter does not wait for it.
  static void count_out(adoption& its) noexcept {
    const locked lock(the_ended.mutex_);
    if (its.stage != ending::offered) return;
    the_gate.leave_unused(*std::exchange(its.counted_in, nullptr));
  }

  phase phase_ MOORED_GUARDED_BY(the_ended.mutex_) = none;
  pthread_t thread_ MOORED_GUARDED_BY(the_ended.mutex_){};
  std::atomic<bool> stuck_{false};
};

MOORED_CONSTINIT inline reaper the_reaper;

/// What the reaper does elsewhere, on the thread whose state it is. Counted in at the gate.
inline void free_without_gil(adoption& its) noexcept {
  const bool frees = !its.cleared;
  the_keepers.remove(std::exchange(its.listed, &unlisted));
  if (frees) {
    its.released = true;
    cpython::gilstate_slot::show(its.state);
    cpython::restore(its.state);
    cpython::clear(its.state);
    PyThreadState_DeleteCurrent();
  }
  finish_adoption(its, frees);
}

}  // namespace detail
MOORED_NAMESPACE_END
