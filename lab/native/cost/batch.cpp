// One timed batch of an operation on a native thread of its own.
#include "batch.hpp"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <ctime>
#include <exception>
#include <thread>

namespace moored::lab {
namespace {

[[nodiscard]] double thread_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

[[nodiscard]] long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_minflt;
}

// Not allowed is not an error: the figures are only noisier then.
void pin_this_thread(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<std::size_t>(cpu), &only);
  static_cast<void>(sched_setaffinity(0, sizeof only, &only));
}

// What a batch leaves behind is cleared away also when the callback raises: a thread that ended
// with the GIL held would hang all others.
struct always_after {
  const operation& op;
  explicit always_after(const operation& ended) : op(ended) {}
  always_after(const always_after&) = delete;
  always_after& operator=(const always_after&) = delete;
  ~always_after() {
    if (op.after) op.after();
  }
};

}  // namespace

void on_native_thread(int cpu, const std::function<void()>& work) {
  std::exception_ptr failure;
  std::thread([&] {
    try {
      pin_this_thread(cpu);
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  }).join();
  if (failure) std::rethrow_exception(failure);
}

sample run_batch(const operation& op, std::size_t times, int cpu) {
  sample per_operation;
  on_native_thread(cpu, [&] {
    if (op.before) op.before();
    const always_after cleared{op};
    op.repeat(
        std::min<std::size_t>(times, 16));  // this thread's malloc cache, stack pages and code
    const long faults_before = page_faults();
    const double ns_before = thread_cpu_ns();
    op.repeat(times);
    const double ns = thread_cpu_ns() - ns_before;
    const long faults = page_faults() - faults_before;
    per_operation = {ns / static_cast<double>(times),
                     static_cast<double>(faults) / static_cast<double>(times)};
  });
  return per_operation;
}

std::size_t calibrate(const operation& op, double batch_ns, int cpu) {
  std::size_t times = 16;
  for (;;) {
    const double ns = run_batch(op, times, cpu).ns * static_cast<double>(times);
    if (ns >= batch_ns / 4 || times >= (std::size_t{1} << 24)) {
      const double wanted = batch_ns * static_cast<double>(times) / std::max(ns, 1.0);
      return std::clamp<std::size_t>(static_cast<std::size_t>(wanted), 16, std::size_t{1} << 24);
    }
    times *= 4;
  }
}

}  // namespace moored::lab
