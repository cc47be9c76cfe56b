// known_pool: a pool of threads that enter Python by pybind11 a known number of times.
#include <pybind11/pybind11.h>

#include <thread>
#include <vector>

#include "known_times.h"

namespace {

/// One thread of the pool, which takes its own times.
struct worker {
  known_times sums{};

  void run(int times, long gap_ns) {
    const std::uint64_t begun = now_ns();
    for (int at = 0; at < times; ++at) {
      sleep_until(begun + static_cast<std::uint64_t>(at) * static_cast<std::uint64_t>(gap_ns));
      std::uint64_t in = 0, out = 0;
      const std::uint64_t before = now_ns();
      {
        const pybind11::gil_scoped_acquire acquire;
        in = now_ns();
        spin_until(in + INSIDE_NS);
        out = now_ns();
      }
      add_call(&sums, before, in, out, now_ns());
    }
  }
};

/// Returns calls, ns to come in and to leave, and ns in between, of all threads.
pybind11::tuple run_pool(int threads, int times, long gap_ns) {
  std::vector<worker> workers(static_cast<std::size_t>(threads));
  {
    const pybind11::gil_scoped_release release;
    std::vector<std::thread> running;
    for (worker& one : workers)
      running.emplace_back([&one, times, gap_ns] { one.run(times, gap_ns); });
    for (std::thread& one : running) one.join();
  }
  known_times all{};
  for (const worker& one : workers) {
    all.calls += one.sums.calls;
    all.outside_ns += one.sums.outside_ns;
    all.inside_ns += one.sums.inside_ns;
  }
  return pybind11::make_tuple(all.calls, all.outside_ns, all.inside_ns);
}

}  // namespace

PYBIND11_MODULE(known_pool, module) {
  module.def("run_pool", run_pool);
}
