// gil_wait.cpp: see gil_wait.hpp.
#include "weak_python.hpp"

#include "gil_wait.hpp"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <time.h>

#include <atomic>
#include <chrono>

#include "joiners.hpp"
#include "next.hpp"

namespace moored::run {

namespace {

using std::chrono::steady_clock;

/// How long an ending thread waits while the GIL stays with one holder: ten turns of at least the
/// usual switch interval. Turns, because on a busy machine both the holder and the thread that
/// waits lose time in which they do not run. See docs/design/thread-end.md.
constexpr std::chrono::milliseconds longest_turn{5};
constexpr int turns_before_giving_up = 10;
constexpr std::chrono::milliseconds bound = turns_before_giving_up * longest_turn;

constexpr const char* version = "GLIBC_2.3.2";
constinit next_function<int(pthread_cond_t*, pthread_mutex_t*, const timespec*)> next_timedwait(
    "pthread_cond_timedwait", version);
constinit next_function<int(pthread_cond_t*, pthread_mutex_t*)> next_wait("pthread_cond_wait",
                                                                          version);
constinit next_function<int(pthread_cond_t*)> next_signal("pthread_cond_signal", version);

// The GIL as its waiters show it; null before the first armed thread has waited.
constinit std::atomic<pthread_cond_t*> gil_condition{nullptr};
constinit std::atomic<pthread_mutex_t*> gil_mutex{nullptr};
/// How often it was let go of: its condition is signalled then. The mutex of the GIL is held.
constinit std::atomic<std::uint64_t> gil_drops{0};
/// Armed threads that wait.
constinit std::atomic<int> gil_waiters{0};
/// Of the drops, how many there were when a wait was last given up; none yet.
constexpr std::uint64_t never = UINT64_MAX;
constinit std::atomic<std::uint64_t> given_up_at{never};
/// The next holder that was asked to let go does not wait for the thread that has asked.
constinit std::atomic<bool> switch_excused{false};

struct armed_wait {
  explicit armed_wait(detail::adoption& one) noexcept : its(one) {}
  jmp_buf back{};
  detail::adoption& its;
  gil_outcome outcome = gil_outcome::taken;
  int turns = 0;  // since the GIL last changed hands
  std::uint64_t drops = 0;
  steady_clock::time_point since{};
};

[[gnu::tls_model("initial-exec")]] constinit thread_local armed_wait* armed = nullptr;

/// Out of the wait for the GIL, with its mutex held. What is left behind is CPython's frames alone.
[[noreturn]] void leave(armed_wait& wait, gil_outcome why, pthread_cond_t* condition,
                        pthread_mutex_t* mutex) {
  wait.outcome = why;
  excuse_from_switch(wait.its);
  next_signal.find()(condition);  // what woke this thread may have been meant for another
  pthread_mutex_unlock(mutex);
  armed = nullptr;
  _longjmp(wait.back, 1);
}

/// One turn of CPython's loop, which has found the GIL held. It is left here, before the wait: then
/// the holder has not let go yet, and learns of what is set here when it does.
int wait_armed(armed_wait& wait, pthread_cond_t* condition, pthread_mutex_t* mutex,
               const timespec* due) {
  using detail::the_ended;
  gil_condition.store(condition, std::memory_order_relaxed);
  gil_mutex.store(mutex, std::memory_order_release);
  if (detail::the_gate.gave_up_on(wait.its.born_in))
    leave(wait, gil_outcome::closed, condition, mutex);
  const std::uint64_t drops = gil_drops.load(std::memory_order_relaxed);
  const auto now = steady_clock::now();
  if (wait.turns == 0 || drops != wait.drops) {
    wait.since = now;
    wait.drops = drops;
    wait.turns = 0;
  }
  const bool in_vain = given_up_at.load(std::memory_order_relaxed) == drops;
  const bool is_over = wait.turns++ >= turns_before_giving_up && now - wait.since >= bound;
  if (!the_joiners.any_idle() && (in_vain || is_over)) {
    given_up_at.store(drops, std::memory_order_relaxed);
    leave(wait, gil_outcome::bound, condition, mutex);
  }
  gil_waiters.fetch_add(1, std::memory_order_seq_cst);
  the_ended.offer(wait.its, false);
  const timespec latest = cpython::not_later(*due, std::chrono::nanoseconds(longest_turn).count());
  const bool shortened = latest.tv_sec != due->tv_sec || latest.tv_nsec != due->tv_nsec;
  const int result = next_timedwait.find()(condition, mutex, &latest);
  gil_waiters.fetch_sub(1, std::memory_order_relaxed);
  if (!the_ended.withdraw(wait.its)) leave(wait, gil_outcome::claimed, condition, mutex);
  if (detail::the_gate.gave_up_on(wait.its.born_in))
    leave(wait, gil_outcome::closed, condition, mutex);
  if (result != ETIMEDOUT || shortened) return result == ETIMEDOUT ? 0 : result;
  wait.its.has_asked.store(true, std::memory_order_relaxed);  // CPython does it next
  return result;
}

/// The condition on which a holder that was asked waits for the switch lies beside that of the GIL.
[[nodiscard]] bool is_for_switches(const pthread_cond_t* condition) noexcept {
  constexpr std::uintptr_t near_the_gils = 512;
  const auto address = reinterpret_cast<std::uintptr_t>(condition);
  const auto gil = reinterpret_cast<std::uintptr_t>(gil_condition.load(std::memory_order_relaxed));
  return address > gil && address - gil < near_the_gils;
}

[[gnu::constructor]] void find() {
  (void)next_timedwait.find();
  (void)next_wait.find();
  (void)next_signal.find();
}

}  // namespace

gil_outcome take_gil(detail::adoption& its) {
  // The thread ends: nothing that it does is urgent any more, and an armed wait has to know of
  // every request that CPython makes for it.
  cpython::this_threads_wish.urgent = 0;
  armed_wait wait(its);
  if (_setjmp(wait.back) != 0) return wait.outcome;
  armed = &wait;
  PyEval_RestoreThread(its.state);
  armed = nullptr;
  return gil_outcome::taken;
}

void excuse_from_switch(const detail::adoption& its) noexcept {
  if (its.has_asked.load(std::memory_order_relaxed))
    switch_excused.store(true, std::memory_order_seq_cst);
}

void wake_gil_waiters() noexcept {
  if (gil_waiters.load(std::memory_order_seq_cst) == 0) return;
  pthread_mutex_t* const mutex = gil_mutex.load(std::memory_order_acquire);
  if (mutex == nullptr) return;
  pthread_mutex_lock(mutex);
  pthread_cond_broadcast(gil_condition.load(std::memory_order_relaxed));
  pthread_mutex_unlock(mutex);
}

void renew_gil_waits_after_fork() noexcept {
  gil_waiters.store(0);
  switch_excused.store(false);
  given_up_at.store(never);
}

extern "C" {

MOORED_EXPORT int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex,
                                         const timespec* due) {
  armed_wait* const wait = armed;
  if (MOORED_LIKELY(wait == nullptr)) return next_timedwait.find()(condition, mutex, due);
  return wait_armed(*wait, condition, mutex, due);
}

/// A holder of the GIL that was asked to let go waits here until another thread has taken it. It
/// looks no further when it is woken, so that it is enough to return.
MOORED_EXPORT int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex) {
  if (MOORED_UNLIKELY(switch_excused.load(std::memory_order_relaxed)) &&
      is_for_switches(condition) && switch_excused.exchange(false))
    return 0;
  return next_wait.find()(condition, mutex);
}

MOORED_EXPORT int pthread_cond_signal(pthread_cond_t* condition) noexcept {
  if (MOORED_UNLIKELY(condition == gil_condition.load(std::memory_order_relaxed)))
    gil_drops.store(gil_drops.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return next_signal.find()(condition);
}

}  // extern "C"

}  // namespace moored::run
