// moored._core: what Python sees of the library. Importing it opens the closing gate.
#include <moored/moored.hpp>
#include <moored/version.hpp>

#include <nanobind/nanobind.h>

#include <chrono>
#include <cmath>

namespace nb = nanobind;

NB_MODULE(_core, module) {
  if (!moored::open()) throw nb::python_error();
  module.attr("__version__") = MOORED_VERSION;

  module.def(
      "keep_thread", &moored::keep_thread,
      "Keep the calling thread's state until the thread ends. False where it cannot be kept.");
  module.def("release_thread", &moored::release_thread,
             "Let the calling thread's kept state go before the thread ends.");
  module.def(
      "set_closing_bound",
      [](double seconds) {
        // The bound is kept in milliseconds, and a day is as good as for ever at shutdown.
        if (!(seconds >= 0.0 && seconds <= 86400.0))
          throw nb::value_error("the bound is a number of seconds from 0 to 86400");
        moored::set_closing_bound(std::chrono::milliseconds(std::llround(seconds * 1000)));
      },
      nb::arg("seconds"), "How many seconds shutdown waits for native threads that are in Python.");
  module.def(
      "counters",
      [] {
        const moored::counters now = moored::count();
        nb::dict result;
        result["attaches"] = now.attaches;
        result["refusals"] = now.refusals;
        result["states_made"] = now.states_made;
        result["states_kept"] = now.states_kept;
        result["states_freed"] = now.states_freed;
        result["states_forgotten"] = now.states_forgotten;
        result["overdue"] = now.overdue;
        return result;
      },
      "What moored's own extension has done in this process, as a dict of counts.");
}
