// moored._core: what Python sees of the library. Importing it opens the closing gate.
#include "channel.hpp"
#include "channel_reader.hpp"
#include "event_loop.hpp"
#include "foreign_thread.hpp"
#include "keeps_thread.hpp"
#include "run_beside.hpp"

#include <moored/moored.hpp>
#include <moored/version.hpp>

#include <nanobind/nanobind.h>

#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace nb = nanobind;

namespace {

using moored::run::run_stats;
using moored::run::run_table;
using moored_core::run_beside;

// Not by nanobind, whose functions are noexcept: Python may end the thread here by unwinding it.
PyObject* keep_thread(PyObject*, PyObject* arguments, PyObject* names) {
  int urgent = 0;
  std::array<char*, 2> keywords{const_cast<char*>("urgent"), nullptr};
  if (!PyArg_ParseTupleAndKeywords(arguments, names, "|$p:keep_thread", keywords.data(), &urgent))
    return nullptr;
  const bool keeps = moored_core::keep_foreign_thread();
  if (keeps && urgent != 0) moored::cpython::be_urgent();
  return PyBool_FromLong(keeps);
}

/// None, or why urgent attaches are not to be had here.
nb::object install_urgent() {
  const moored::urgent_support support = moored::install(moored::urgent);
  return support.why == nullptr ? nb::none() : nb::object(nb::str(support.why));
}

void set_urgent_budget(const nb::object& given) {
  const double share = PyFloat_AsDouble(given.ptr());
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  if (!(share >= 0.0 && share <= 1.0))
    throw nb::value_error("the budget is a share of time, from 0 to 1");
  moored::set_urgent_budget(share);
  if (const run_table* const run = run_beside()) run->set_urgent_budget(share);
}

PyMethodDef methods[] = {
    {"keep_thread", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(keep_thread)),
     METH_VARARGS | METH_KEYWORDS,
     "keep_thread(*, urgent=False)\n--\n\n"
     "Keep the calling thread's state until the thread ends, and say whether it is kept.\n\n"
     "For callbacks on foreign threads. On a thread that Python made it does nothing. With urgent, "
     "the thread's later callbacks get the GIL from a busy thread in microseconds, once "
     "install(urgent=True) was called."},
    {"deliver_or_wait", moored_core::deliver_or_wait, METH_VARARGS,
     "deliver_or_wait(epoll, readers, timeout, report, /)\n--\n\n"
     "Wait, and call the readers of what is ready. True when anything else is."},
    {nullptr, nullptr, 0, nullptr},
};

// What is of the wrong type is refused in Python's own words: nanobind would show its signatures.

void set_closing_bound(const nb::object& given) {
  const double seconds = PyFloat_AsDouble(given.ptr());
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  // The bound is kept in milliseconds, and a day is as good as for ever at shutdown.
  if (!(seconds >= 0.0 && seconds <= 86400.0))
    throw nb::value_error("the bound is a number of seconds from 0 to 86400");
  const std::chrono::milliseconds bound(std::llround(seconds * 1000));
  moored::set_closing_bound(bound);
  if (const run_table* const run = run_beside()) run->set_closing_bound(bound.count());
}

void set_kept_limit(const nb::object& given) {
  const Py_ssize_t states =
      PyNumber_AsSsize_t(given.ptr(), nullptr);  // a huge one is as any number
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  if (states < 0) throw nb::value_error("the limit is a number of states, or 0 for any number");
  moored::set_kept_limit(static_cast<std::size_t>(states));
}

void release_thread() {
  moored::release_thread();
  if (const run_table* const run = run_beside()) run->release_thread();
}

/// Of this copy of the library and of that of `moored run`, by whose library alone a state is kept
/// under it, also for keep_thread().
nb::dict stats() {
  const auto& names = moored::detail::state_stats_names;
  std::array<std::uint64_t, moored::detail::state_stats_names.size()> sums{};
  const moored::state_stats own = moored::stats();
  std::memcpy(sums.data(), &own, sizeof own);
  if (const run_table* const run = run_beside()) {
    const run_stats others = run->stats();
    std::array<std::uint64_t, sizeof others / sizeof(std::uint64_t)> added{};
    std::memcpy(added.data(), &others, sizeof others);
    for (std::size_t index = 0; index < added.size(); ++index) sums[index] += added[index];
  }
  const moored::chunk_stats chunks = moored::stats_of_chunks();
  nb::dict result;
  for (std::size_t index = 0; index < names.size(); ++index)
    result[names[index].data()] = sums[index];
  result["chunk_hits"] = chunks.hits;
  result["chunk_misses"] = chunks.misses;
  result["chunks_held"] = chunks.held;
  result["chunk_bytes"] = chunks.bytes_held;
  return result;
}

}  // namespace

NB_MODULE(_core, module) {
  if (!moored::open()) throw nb::python_error();
  // On a foreign thread it would be too late: up to 3.12 threading takes the thread that imports it
  // for the main one.
  nb::module_::import_("threading");
  moored_core::watch_forks();

  module.attr("__version__") = MOORED_VERSION;
  if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw nb::python_error();
  module.attr("Channel") = nb::steal(moored_core::make_channel_type());
  module.attr("Reader") = nb::steal(moored_core::make_reader_type());
  module.attr("asks_loop") = nb::steal(moored_core::make_asks_loop_type());
  module.attr("keeps_thread") = nb::steal(moored_core::make_keeps_thread_type());
  module.def("release_thread", &release_thread,
             "Let the calling thread's kept state go before the thread ends.");
  module.def("set_closing_bound", &set_closing_bound, nb::arg("seconds"),
             "How many seconds shutdown waits for native threads that are in Python.");
  module.def("set_kept_limit", &set_kept_limit, nb::arg("states"),
             "How many states native threads may keep; 0, the default, for any number.");
  module.def(
      "install", [] { return moored::install() != moored::cache_status::nothing_to_gain; },
      "Put the chunk cache in place. False when this Python has nothing to gain from it.");
  module.def("install_urgent", &install_urgent,
             "Have urgent threads ask for the GIL at once. None, or why that is not possible.");
  module.def("set_urgent_budget", &set_urgent_budget, nb::arg("share"),
             "How much of its time a busy thread may lose to urgent ones, from 0 to 1.");
  module.def(
      "stats", &stats,
      "What moored has done in this process, as a dict of counts: attaches and states, of its "
      "own extension and of `moored run`, and the process's chunk cache.");
}
