// foreign_thread.cpp: tells foreign threads from those that Python made.
#include "foreign_thread.hpp"

#include <nanobind/nanobind.h>

#include <pthread.h>

namespace nb = nanobind;

namespace moored_core {

namespace {

using moored::detail::epoch;

/// Asks threading for the threads that it knows; asking for the current one would make it know this
/// one. A foreign thread that threading was asked about before is there as a dummy.
///
/// A thread of _thread.start_new_thread is unknown to threading, and counts as foreign: keeping it
/// is needless but does no harm.
bool is_foreign(unsigned long thread) {
  const nb::module_ threading = nb::module_::import_("threading");
  const nb::object dummy = threading.attr("_DummyThread");
  for (const nb::handle known : threading.attr("enumerate")()) {
    if (!known.attr("ident").equal(nb::int_(thread))) continue;
    // The child of a fork has the forking thread for its main one, up to 3.12 still as a dummy.
    return nb::isinstance(known, dummy) && !known.is(threading.attr("main_thread")());
  }
  return true;
}

}  // namespace

void watch_forks() {
  static const int failed = pthread_atfork(nullptr, nullptr, [] {
    this_threads_origin = {};
    forget_exceptions_after_fork();
  });
  (void)failed;
}

bool keep_foreign_thread_slowly(epoch now) {
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) return false;
  const moored::detail::passage inside(now);
  if (!inside) return false;
  origin& mine = this_threads_origin;
  if (mine.asked_in != now) {
    try {
      mine.foreign = is_foreign(PyThread_get_thread_ident());
      mine.asked_in = now;
    } catch (const nb::python_error&) {
      return false;  // threading has been taken apart: nothing is known, so nothing is kept
    }
  }
  return mine.foreign && moored::keep_thread();
}

}  // namespace moored_core
