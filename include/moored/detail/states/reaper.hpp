// moored/detail/states/reaper.hpp: clears the states of ended threads, by a native thread that
// exists while there is something to clear.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <utility>

#include "thread_end.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

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
