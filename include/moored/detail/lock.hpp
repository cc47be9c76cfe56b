// moored/detail/lock.hpp: mutexes that clang's thread-safety analysis knows, and what must happen
// without them.
//
// The rule: no lock of ours is held over anything that may run Python, run another's destructor, or
// wait for the GIL. A thread that has the GIL may want the same lock. Three things keep it: the
// analysis (`make lint`), `outlasting`, and in debug builds a count of the locks that a thread
// holds, which everything that may run foreign code looks at.
#pragma once

#include <pthread.h>

#include <cassert>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <utility>

#include "config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

#ifdef NDEBUG
inline void count_lock(int) noexcept {}
inline void expect_no_lock() noexcept {}
#else
MOORED_CONSTINIT inline thread_local int locks_held = 0;
inline void count_lock(int change) noexcept {
  locks_held += change;
}
/// Called before anything that may run Python, run another's destructor, or wait for the GIL.
inline void expect_no_lock() noexcept {
  assert(locks_held == 0 && "a lock of moored's is held over foreign code");
}
#endif

class condition;

class MOORED_CAPABILITY mutex {
 public:
  constexpr mutex() noexcept = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  void lock() noexcept MOORED_ACQUIRE() {
    mutex_.lock();
    count_lock(1);
  }
  void unlock() noexcept MOORED_RELEASE() {
    count_lock(-1);
    mutex_.unlock();
  }
  /// In the child of a fork, where the thread that held it does not exist. Called by the only
  /// thread that there is.
  void renew() noexcept { new (&mutex_) std::mutex; }
  /// For mutexes that are held for some ns: a thread that finds it taken looks again before it
  /// sleeps. To be called before any other use.
  void expect_short_waits() noexcept {
#ifdef __GLIBC__
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(mutex_.native_handle(), &attributes);
    pthread_mutexattr_destroy(&attributes);
#endif
  }

 private:
  friend class condition;
  std::mutex mutex_;
};

/// Holds a mutex for a scope.
class MOORED_SCOPED_CAPABILITY locked {
 public:
  explicit locked(mutex& held) noexcept MOORED_ACQUIRE(held) : held_(held) { held_.lock(); }
  ~locked() MOORED_RELEASE() { held_.unlock(); }
  locked(const locked&) = delete;
  locked& operator=(const locked&) = delete;

 private:
  mutex& held_;
};

/// As std::condition_variable, for mutexes of ours.
class condition {
 public:
  condition() noexcept = default;
  condition(const condition&) = delete;
  condition& operator=(const condition&) = delete;

  void notify_one() noexcept { condition_.notify_one(); }
  void notify_all() noexcept { condition_.notify_all(); }
  void wait(mutex& held) noexcept MOORED_REQUIRES(held) {
    std::unique_lock<std::mutex> lock(held.mutex_, std::adopt_lock);
    count_lock(-1);
    condition_.wait(lock);
    count_lock(1);
    (void)lock.release();
  }
  /// False when the time was over.
  bool wait_for(mutex& held, std::chrono::nanoseconds time) noexcept MOORED_REQUIRES(held) {
    std::unique_lock<std::mutex> lock(held.mutex_, std::adopt_lock);
    count_lock(-1);
    const auto came = condition_.wait_for(lock, time);
    count_lock(1);
    (void)lock.release();
    return came == std::cv_status::no_timeout;
  }
  /// In the child of a fork: its waiters are not here, and a condition that has waiters cannot be
  /// destroyed.
  void renew() noexcept { new (&condition_) std::condition_variable; }

 private:
  std::condition_variable condition_;
};

/// What leaves a container under its lock. It is made before the lock is taken, filled under it,
/// and destroyed after it, for what it holds may run Python or another's destructor; there is
/// nothing else that can be done with it.
template <class T>
class outlasting {
 public:
  outlasting() = default;
  outlasting(const outlasting&) = delete;
  outlasting& operator=(const outlasting&) = delete;
  ~outlasting() { expect_no_lock(); }

  /// Takes what `place` holds and leaves there what was made by T(). Called under the lock of
  /// `place`.
  void take(T& place) noexcept { std::swap(held_, place); }

 private:
  T held_{};
};

}  // namespace detail
MOORED_NAMESPACE_END
