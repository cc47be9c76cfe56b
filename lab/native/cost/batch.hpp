// One operation, and one timed batch of it on a native thread of its own.
#pragma once

#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>

namespace moored::lab {

// What is measured. All three run on the same fresh native thread, which holds no GIL when it
// starts.
struct operation {
  std::string key;
  std::function<void()> before = {};        // not timed
  std::function<void(std::size_t)> repeat;  // timed: the operation, that many times
  std::function<void()> after = {};         // not timed; runs whenever before came through
};

// A way that this interpreter, or moored, refuses: a row without figures, not a failure.
struct refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Per operation, not per batch.
struct sample {
  double ns = 0;
  double page_faults = 0;
};

// The operation as a loop that the compiler can inline; the std::function is paid once a batch.
template <class Once>
[[nodiscard]] std::function<void(std::size_t)> repeated(Once once) {
  return [once](std::size_t times) {
    for (; times != 0; --times) once();
  };
}

// Runs `work` on a fresh native thread and waits for it; what it throws is thrown here.
// Fresh each time, so that no batch finds a thread state that another one left behind.
void on_native_thread(int cpu, const std::function<void()>& work);

// One batch, by the thread's own CPU clock: nothing measured here waits, so that clock gives the
// price and leaves out what the machine did for others meanwhile. `cpu` < 0 leaves the thread
// unpinned.
[[nodiscard]] sample run_batch(const operation& op, std::size_t times, int cpu);

// How many times make a batch of about this length.
[[nodiscard]] std::size_t calibrate(const operation& op, double batch_ns, int cpu);

}  // namespace moored::lab
