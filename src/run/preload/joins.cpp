// joins.cpp: what a thread does that joins another one with the GIL held: it clears what ending
// threads offer, so that they need not wait for the GIL.
#include "weak_python.hpp"

#include "joiners.hpp"

#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "gil_wait.hpp"
#include "next.hpp"
#include "process.hpp"

namespace moored::run {

namespace {

using detail::the_ended;

constinit next_function<int(pthread_t, void**)> next_join{"pthread_join"};
constinit next_function<int(pthread_t, void**)> next_tryjoin{"pthread_tryjoin_np"};
constinit next_function<int(pthread_t, void**, const timespec*)> next_timedjoin{
    "pthread_timedjoin_np"};
constinit next_function<int(pthread_t, void**, clockid_t, const timespec*)> next_clockjoin{
    "pthread_clockjoin_np"};
constinit next_function<int(thrd_t, int*)> next_c11_join{"thrd_join"};

[[gnu::constructor]] void find() {
  (void)next_join.find();
  (void)next_tryjoin.find();
  (void)next_timedjoin.find();
  (void)next_clockjoin.find();
  (void)next_c11_join.find();
}

/// True when this thread may be waited for by one that ends: it is attached, and states are kept.
/// While it is attached, no other thread begins to keep one.
[[nodiscard]] bool may_be_needed() noexcept {
  return cpython::has_gil && detail::the_gate.kept.load(std::memory_order_relaxed) != 0 &&
         detail::is_attached_to_main(detail::this_thread);
}

/// One join by a thread that is attached to the main interpreter.
class attached_join {
 public:
  attached_join(pthread_t thread, void** result) noexcept : thread_(thread), result_(result) {
    the_joiners.enter();
    the_joiners.become_idle();
  }
  attached_join(const attached_join&) = delete;
  attached_join& operator=(const attached_join&) = delete;

  /// Without `until` there is no limit. A cancellation point. Not noexcept, and without a
  /// destructor: the thread may be unwound, by cancellation, and where it takes the GIL again.
  [[nodiscard]] int run(clockid_t clock, const timespec* due) {
    // The first look has the C library say what is wrong with the thread, if something is.
    for (std::int64_t slice = 0;;) {
      const unsigned long seen = moored_bell_rings(&the_joiners.bell);
      clear_offers();
      step_aside();
      const int ended = slice != 0 && the_threads.holds(thread_) ? wait_for_change(seen, clock, due)
                                                                 : look(slice, clock, due);
      come_back();
      if (ended != still_running) {
        leave();
        return ended;
      }
    }
  }
  /// One look.
  [[nodiscard]] int try_once() {
    clear_offers();
    step_aside();
    if (detached_ != nullptr) the_ended.wait_for_others(std::chrono::milliseconds(5));
    come_back();
    const int result = next_tryjoin.find()(thread_, result_);
    leave();
    return result;
  }

 private:
  static constexpr int still_running = -1;
  static constexpr std::int64_t first_slice = 50'000, longest_slice = 2'000'000;

  /// The thread that joins is cancelled, and what it does at its end expects it as it was.
  static void on_cancel(void* self) {
    static_cast<attached_join*>(self)->come_back();
    static_cast<attached_join*>(self)->leave();
  }
  void leave() noexcept {
    the_joiners.be_idle_no_more();
    the_joiners.leave();
  }

  /// Threads that end take this one for idle until it has claimed what they offer.
  void clear_offers() {
    while (detail::adoption* const its = the_ended.claim(detail::helper::joiner)) {
      the_joiners.be_idle_no_more();
      clear_for(*its);
      the_joiners.become_idle();
    }
  }

  /// A finaliser that has let go of the GIL wants it back: this thread, which waits, lets go of it
  /// as well.
  void step_aside() {
    if (!the_ended.others_clear()) return;
    the_joiners.be_idle_no_more();
    detached_ = PyEval_SaveThread();
  }
  void come_back() {
    if (detached_ == nullptr) return;
    PyEval_RestoreThread(std::exchange(detached_, nullptr));
    the_joiners.become_idle();
  }

  [[nodiscard]] int wait_for_change(unsigned long seen, clockid_t clock, const timespec* due) {
    const int result = moored_bell_wait(&the_joiners.bell, seen, clock, due, on_cancel, this);
    return result == ETIMEDOUT ? ETIMEDOUT : still_running;
  }

  /// The thread is not known, or nearly at its end: waits for it, but only so long as another may
  /// wait for this one.
  [[nodiscard]] int look(std::int64_t& slice, clockid_t clock, const timespec* due) {
    constexpr std::int64_t second = 1'000'000'000;
    clockid_t by = due == nullptr ? CLOCK_MONOTONIC : clock;
    timespec end{};
    clock_gettime(by, &end);
    end.tv_nsec += slice;
    if (end.tv_nsec >= second) {
      end.tv_nsec -= second;
      ++end.tv_sec;
    }
    const bool last = due != nullptr && (due->tv_sec != end.tv_sec ? due->tv_sec < end.tv_sec
                                                                   : due->tv_nsec <= end.tv_nsec);
    slice = slice == 0 ? first_slice : std::min(2 * slice, longest_slice);
    const int result = moored_clockjoin(next_clockjoin.find(), thread_, result_, by,
                                        last ? due : &end, on_cancel, this);
    return result == ETIMEDOUT && !last ? still_running : result;
  }

  pthread_t thread_;
  void** result_;
  PyThreadState* detached_ = nullptr;
};

}  // namespace

void clear_for(detail::adoption& its) noexcept {
  int cancel_state = 0;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
  excuse_from_switch(its);
  // A thread that has gone on without its state may have ended, and its number be another's.
  const pthread_t before =
      std::exchange(assumed_identity, its.left ? assumed_identity : its.thread);
  the_ended.clear(its);
  assumed_identity = before;
  if (the_ended.set_over(its)) detail::the_reaper.run();
  wake_gil_waiters();
  pthread_setcancelstate(cancel_state, nullptr);
}

extern "C" {

MOORED_EXPORT pthread_t pthread_self() noexcept {
  // thrd_current() is the same, and is not replaced.
  return MOORED_LIKELY(assumed_identity == 0) ? thrd_current() : assumed_identity;
}

MOORED_EXPORT int pthread_join(pthread_t thread, void** result) {
  if (!may_be_needed()) return next_join.find()(thread, result);
  attached_join join(thread, result);
  return join.run(CLOCK_MONOTONIC, nullptr);
}

MOORED_EXPORT int pthread_timedjoin_np(pthread_t thread, void** result, const timespec* due) {
  if (due == nullptr || !may_be_needed()) return next_timedjoin.find()(thread, result, due);
  attached_join join(thread, result);
  return join.run(CLOCK_REALTIME, due);
}

MOORED_EXPORT int pthread_clockjoin_np(pthread_t thread, void** result, clockid_t clock,
                                       const timespec* due) {
  const bool is_known = clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME;
  if (due == nullptr || !is_known || !may_be_needed())
    return next_clockjoin.find()(thread, result, clock, due);
  attached_join join(thread, result);
  return join.run(clock, due);
}

MOORED_EXPORT int pthread_tryjoin_np(pthread_t thread, void** result) noexcept {
  if (!may_be_needed()) return next_tryjoin.find()(thread, result);
  attached_join join(thread, result);
  return join.try_once();
}

MOORED_EXPORT int thrd_join(thrd_t thread, int* result) {
  if (!may_be_needed()) return next_c11_join.find()(thread, result);
  void* value = nullptr;
  attached_join join(thread, &value);
  if (join.run(CLOCK_MONOTONIC, nullptr) != 0) return thrd_error;
  if (result != nullptr) *result = static_cast<int>(reinterpret_cast<std::intptr_t>(value));
  return thrd_success;
}

}  // extern "C"

}  // namespace moored::run
