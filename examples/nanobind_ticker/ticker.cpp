// Ticker(callback, seconds): a native thread that calls Python every so many seconds.
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <thread>

namespace nb = nanobind;

class ticker {
 public:
  ticker(nb::callable callback, double seconds)
      : callback_(std::move(callback)),
        interval_(seconds),
        thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

  ~ticker() { stop(); }

  // Stops; returns when the last call has ended, or at once when that call is the one that stops
  // us.
  void stop() {
    thread_.request_stop();
    if (thread_.get_id() == std::this_thread::get_id()) return;
    const moored::detachment detached;  // the thread may be waiting for the GIL that we hold
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run(std::stop_token stop) {
    std::mutex mutex;
    std::condition_variable_any clock;
    std::unique_lock lock(mutex);
    for (int count = 1; !stop.stop_requested(); ++count) {
      if (!tick(count)) return;
      clock.wait_for(lock, stop, interval_, [] { return false; });
    }
  }

  // False once Python is shutting down: there is nothing left to call.
  bool tick(int count) {
    const moored::attachment attached = moored::try_attach();
    if (!attached) return false;
    try {
      callback_(count);
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("ticker callback");
    }
    return true;
  }

  friend int traverse(PyObject*, visitproc, void*);
  friend int clear(PyObject*);

  nb::callable callback_;
  std::chrono::duration<double> interval_;
  std::jthread thread_;  // last: it uses the others
};

// A callback often reaches its ticker through its module's globals: Python's garbage collector sees
// that cycle, and takes it apart, with these two.
int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  if (nb::inst_ready(self)) Py_VISIT(nb::inst_ptr<ticker>(self)->callback_.ptr());
  return 0;
}

int clear(PyObject* self) {
  auto* const mine = nb::inst_ptr<ticker>(self);
  mine->stop();
  mine->callback_.reset();
  return 0;
}

PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(clear)},
                       {0, nullptr}};

NB_MODULE(ticker, m) {
  moored::open();
  nb::class_<ticker>(m, "Ticker", nb::type_slots(slots))
      .def(nb::init<nb::callable, double>(), nb::arg("callback"), nb::arg("seconds"))
      .def("stop", &ticker::stop, "Stop ticking; returns when the last call has ended.");
}
