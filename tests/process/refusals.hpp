// process/refusals.hpp: what the OS and the allocators refuse while a test says so.
//
// The executable that faults.cpp is in has C library functions and allocators of its own. Each of
// them passes to the real one unless it is armed.
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>

#include <moored/detail/config.hpp>

namespace moored_test {

/// A call that can be made to fail, by whichever thread makes it.
class fault {
 public:
  static constexpr std::int64_t for_ever = INT64_MAX;

  /// Of the calls from now on the first `passing` pass, then `failing` fail with `error`.
  void arm(int error, std::int64_t failing = for_ever, std::int64_t passing = 0) noexcept {
    disarm();
    error_ = error;
    until_ = failing == for_ever ? for_ever : passing + failing;
    from_ = passing;
  }
  void disarm() noexcept {
    from_ = for_ever;
    calls_ = 0;
    failed_ = 0;
  }
  /// How many calls have failed since it was armed.
  [[nodiscard]] std::int64_t failed() const noexcept { return failed_; }

  /// How many calls there have been since then.
  [[nodiscard]] std::int64_t calls() const noexcept { return calls_; }

  /// For the call itself: true, with errno set, when it is to fail.
  [[nodiscard]] bool strikes() noexcept {
    if (from_ == for_ever) return false;
    const std::int64_t call = calls_++;
    if (call < from_ || call >= until_) return false;
    ++failed_;
    errno = error_;
    return true;
  }
  [[nodiscard]] int error() const noexcept { return error_; }

 private:
  std::atomic<int> error_{0};
  std::atomic<std::int64_t> from_{for_ever}, until_{0}, calls_{0}, failed_{0};
};

struct faults {
  fault eventfd;
  fault read, write;  ///< Of an eventfd; those of other descriptors are not refused.
  fault pthread_create, pthread_atfork, pthread_key_create;
  fault operator_new;   ///< On the threads that are in a `without_memory` scope.
  fault python_memory;  ///< PyMem_Raw, PyMem and PyObject; see own_python_memory(). Likewise.
};
MOORED_CONSTINIT inline faults the_faults;

/// Which threads the allocators' faults strike: moored's side of a test, not the test's own.
MOORED_CONSTINIT inline thread_local bool memory_is_short = false;
/// All of them.
MOORED_CONSTINIT inline std::atomic<bool> memory_is_short_everywhere{false};

/// For a scope the calling thread gets no memory of one kind, by default from its first call on.
template <fault faults::*Kind>
class short_of {
 public:
  explicit short_of(std::int64_t failing = fault::for_ever, std::int64_t passing = 0) noexcept {
    (the_faults.*Kind).arm(ENOMEM, failing, passing);
    memory_is_short = true;
  }
  ~short_of() {
    memory_is_short = false;
    (the_faults.*Kind).disarm();
  }
  short_of(const short_of&) = delete;
  short_of& operator=(const short_of&) = delete;
};
using without_memory = short_of<&faults::operator_new>;
using without_python_memory = short_of<&faults::python_memory>;

/// Puts allocators that can fail upon Python's. Before Py_Initialize.
void own_python_memory() noexcept;

/// What CLOCK_MONOTONIC shows: the real time, plus an offset; or one moment for ever.
struct monotonic_clock {
  static void jump(std::chrono::nanoseconds forward) noexcept;
  static void stop() noexcept;
};

}  // namespace moored_test
