// moored_lab._cost: the measuring core of `moored lab cost`, `moored bench attach` and `moored
// bench state`, for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <moored/moored.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "batch.hpp"
#include "entries.hpp"
#include "memory.hpp"
#include "parts.hpp"
#include "visits.hpp"

namespace nb = nanobind;

namespace moored::lab {
namespace {

constexpr double batch_ns = 300'000;

// The operations of one command, measured a round at a time, so that Python keeps the progress bar,
// Ctrl-C and the statistics.
class bench {
 public:
  bench(std::vector<operation> operations, nb::object callbacks, int cpu)
      : callbacks_(std::move(callbacks)), cpu_(cpu) {
    const lending main_waits;  // detached; the borrowed strategy needs an idle thread's state
    for (operation& op : operations) {
      try {
        const std::size_t times = calibrate(op, batch_ns, cpu_);
        measured_.push_back({std::move(op), times});
      } catch (const refused& why) {
        refusals_.emplace_back(op.key, why.what());
      }
    }
  }

  // One batch of every operation, interleaved with those of the other rounds: key, ns, page faults.
  [[nodiscard]] std::vector<std::tuple<std::string, double, double>> round() const {
    const lending main_waits;
    std::vector<std::tuple<std::string, double, double>> samples;
    for (const auto& [op, times] : measured_) {
      const sample one = run_batch(op, times, cpu_);
      samples.emplace_back(op.key, one.ns, one.page_faults);
    }
    return samples;
  }

  [[nodiscard]] const std::vector<std::tuple<std::string, std::string>>& refusals() const {
    return refusals_;
  }

 private:
  struct calibrated {
    operation op;
    std::size_t times;
  };
  nb::object callbacks_;  // the operations hold bare pointers to them
  int cpu_;
  std::vector<calibrated> measured_;
  std::vector<std::tuple<std::string, std::string>> refusals_;
};

// A bare pointer to the callback is all that the thread has.
class bound_visits {
 public:
  bound_visits(const std::string& way, double rate, nb::callable callback)
      : callback_(std::move(callback)), visits_(way, rate, callback_.ptr()) {}

  void stop() { visits_.stop(); }
  [[nodiscard]] nb::dict waits() const {
    const latencies all = visits_.waits();
    nb::dict told;
    told["count"] = all.count();
    told["p50_us"] = all.quantile_ns(0.5) / 1e3;
    told["p99_us"] = all.quantile_ns(0.99) / 1e3;
    return told;
  }

 private:
  nb::callable callback_;
  visits visits_;
};

}  // namespace
}  // namespace moored::lab

NB_MODULE(_cost, module) {
  using moored::lab::bench;
  moored::open();
  module.attr("STATE_BYTES") = moored::lab::state_bytes();
  nb::class_<bench>(module, "Bench")
      .def("round", &bench::round, "One batch of every operation: (key, ns, page faults) each.")
      .def_prop_ro("refusals", &bench::refusals, "(key, why) of what cannot be measured here.");
  nb::class_<moored::lab::bound_visits>(module, "Visits", "A native thread that calls back.")
      .def(nb::init<const std::string&, double, nb::callable>(), nb::arg("way"), nb::arg("rate"),
           nb::arg("callback"))
      .def("stop", &moored::lab::bound_visits::stop)
      .def("waits", &moored::lab::bound_visits::waits, "What it waited for the GIL.");
  module.def("set_urgent_budget", &moored::set_urgent_budget, nb::arg("share"));
  module.def(
      "parts",
      [](nb::callable empty, nb::callable uses_locals, int cpu) {
        return bench(moored::lab::parts(empty.ptr(), uses_locals.ptr()),
                     nb::make_tuple(empty, uses_locals), cpu);
      },
      nb::arg("empty"), nb::arg("uses_locals"), nb::arg("cpu"),
      "The parts of a temporary thread state, and the wholes that they add up to.");
  module.def(
      "entries",
      [](nb::callable callback, int cpu) {
        return bench(moored::lab::entries(callback.ptr()), callback, cpu);
      },
      nb::arg("callback"), nb::arg("cpu"), "Every way into Python, side by side.");
  module.def(
      "growth_by",
      [](nb::callable callback, std::size_t threads, const std::string& how) {
        return moored::lab::growth_by(threads, moored::strategy_named(how), callback.ptr());
      },
      nb::arg("callback"), nb::arg("threads"), nb::arg("how"),
      "Bytes by which the process grows by idle threads that have called back once.");
}
