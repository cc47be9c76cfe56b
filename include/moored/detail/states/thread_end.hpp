// moored/detail/states/thread_end.hpp: what becomes of an adopted state when its thread ends.
//
// Such a state is not freed by its own thread, which may be joined with the GIL held: the thread
// hands it to the reaper, a native thread that exists only while there is something to free.
//
// Without a GIL no other thread may clear a state (cpython::has_gil), and there is no GIL to wait
// for: there the thread frees it.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "../cpython/gilstate_slot.hpp"
#include "kept.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

/// One adopted state. Shared by the thread that keeps it (then by the reaper) and by a capsule in
/// the state's dict; the last of the two deletes it.
///
/// The capsule marks the state as adopted, so that only one of several copies of moored in a
/// process adopts it. And it is told when other code clears the state: Python at the end of its
/// own thread or of the interpreter, cffi for the threads that cffi keeps. From then on the state
/// is not ours to touch.
struct adoption {
  PyThreadState* state = nullptr;
  epoch born_in = 0;
  attendance* counted_in = nullptr;  ///< From the end of its thread until the state is freed.
  bool released = false;             ///< We clear the state ourselves. The GIL guards it.
  std::atomic<bool> cleared{false};  ///< Other code did.
  int rounds = 0;  ///< Of pthread-key destructors that its ending thread has gone through.
  adoption* next = nullptr;
  std::atomic<int> owners{2};

  void drop() noexcept {
    if (owners.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

/// Frees the states of threads that have ended.
///
/// Its members are never destroyed: the thread may still be waiting when the process ends.
class reaper {
 public:
  /// Called by a thread in its last moments, counted in at the gate. The count goes with the state.
  void take(adoption* dead) noexcept {
    dead->next = dead_.load(std::memory_order_relaxed);
    while (!dead_.compare_exchange_weak(dead->next, dead, std::memory_order_seq_cst)) {
    }
    if (running_.exchange(true, std::memory_order_seq_cst) || start()) return;
    running_.store(false, std::memory_order_release);
    give_up();
  }

  /// The child of a fork has no reaper, and CPython has freed the states of all other threads.
  void after_fork() noexcept {
    dead_.store(nullptr, std::memory_order_relaxed);
    running_.store(false, std::memory_order_relaxed);
  }

  /// A state of which this is the end: freed, or left to Python.
  static void finish(adoption* dead, bool freed) noexcept {
    (freed ? the_gate.freed : the_gate.forgotten).fetch_add(1, std::memory_order_relaxed);
    the_gate.kept.fetch_sub(1, std::memory_order_relaxed);
    attendance& here = *dead->counted_in;
    dead->drop();
    the_gate.leave_unused(here);
  }

 private:
  [[nodiscard]] bool start() noexcept {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    // The program's signals are not for this thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const auto main = [](void* self) -> void* {
      static_cast<reaper*>(self)->work();
      return nullptr;
    };
    const bool started = pthread_create(&thread, &attributes, main, this) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
    return started;
  }

  // Not noexcept: a late thread may be unwound, see versions.hpp.
  void work() {
    // A thread that lingers is one more thread at a fork; one that does not is made anew for every
    // thread that ends.
    constexpr int looks = 10;
    for (int idle = 0;;) {
      if (adoption* const batch = dead_.exchange(nullptr, std::memory_order_acq_rel)) {
        free(batch);
        idle = 0;
      } else if (++idle <= looks) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } else {
        // take() adds and then looks whether we run; we say that we do not, and then look again.
        running_.store(false, std::memory_order_seq_cst);
        if (dead_.load(std::memory_order_seq_cst) == nullptr || running_.exchange(true)) return;
        idle = 0;
      }
    }
  }

  /// The states are cleared with a state of the reaper's own attached, so that what their
  /// thread-locals do at their end, entering Python by another binding included, is done on a state
  /// that PyGILState knows. They are deleted without it, which CPython allows: from 3.12 on
  /// deleting a state takes away the PyGILState binding of the thread that does it.
  ///
  /// Without memory for the reaper's own state they are left to Python.
  void free(adoption* batch) {
    const auto token = the_gate.try_ensure(the_gate.now());
    const bool can_delete = token && cpython::dead_state::can_be_deleted();
    for (adoption* dead = batch; dead != nullptr; dead = dead->next) {
      if (dead->cleared || !can_delete) continue;
      dead->released = true;
      PyThreadState_Clear(dead->state);
    }
    if (token) PyGILState_Release(*token);
    while (batch != nullptr) {
      adoption* const dead = batch;
      batch = dead->next;
      if (dead->released) cpython::dead_state::remove(dead->state);
      finish(dead, dead->released);
    }
  }

  /// No thread could be made: the states stay until Python frees them with the interpreter.
  void give_up() noexcept {
    adoption* batch = dead_.exchange(nullptr, std::memory_order_acq_rel);
    while (batch != nullptr) {
      adoption* const dead = batch;
      batch = dead->next;
      finish(dead, false);
    }
  }

  std::atomic<adoption*> dead_{nullptr};
  std::atomic<bool> running_{false};
};

MOORED_CONSTINIT inline reaper the_reaper;

/// What the reaper does elsewhere, on the thread whose state it is. Counted in at the gate.
inline void free_without_gil(adoption* its) noexcept {
  const bool frees = !its->cleared;
  if (frees) {
    its->released = true;
    cpython::gilstate_slot::show(its->state);
    cpython::restore(its->state);
    PyThreadState_Clear(its->state);
    PyThreadState_DeleteCurrent();
  }
  reaper::finish(its, frees);
}

}  // namespace detail
MOORED_NAMESPACE_END
