// channel_source.cpp: a channel of numbers with native senders, for the tests of moored.Channel.
#include <moored/moored.hpp>

#include <pybind11/pybind11.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace py = pybind11;

namespace {

/// Sender s sends s * 1'000'000 + 0, 1, 2 ...; a negative number cannot be converted.
class source {
 public:
  source(std::size_t capacity, const std::string& when_full, const std::string& by,
         const std::string& name)
      : channel_({.name = name,
                  .capacity = capacity,
                  .when_full = moored::overflow_named(when_full).value(),
                  .by = moored::delivery_named(by).value()},
                 [](std::int64_t&& number) {
                   return number < 0 ? PyErr_Format(PyExc_ValueError, "negative")
                                     : PyLong_FromLongLong(number);
                 }) {}
  ~source() {
    stop_ = true;
    channel_.close();
    join();
  }

  [[nodiscard]] py::object capsule() const {
    PyObject* const made = channel_.capsule();
    if (made == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
  }

  /// Starts threads that send `each` numbers, or until stop() if negative.
  void start(int senders, std::int64_t each) {
    for (int i = 0; i < senders; ++i) {
      const std::int64_t first = 1'000'000 * next_++;
      threads_.emplace_back([this, first, each] {
        for (std::int64_t n = 0; (each < 0 || n < each) && !stop_; ++n) {
          ++came_[static_cast<std::size_t>(channel_.send(first + n % 1'000'000))];
        }
        --running_;
      });
      ++running_;
    }
  }
  void stop() { stop_ = true; }
  void join() {
    const moored::detachment detached;
    for (std::thread& thread : threads_)
      if (thread.joinable()) thread.join();
    threads_.clear();
  }
  [[nodiscard]] int running() const { return running_; }

  std::string send(std::int64_t number) {
    static const char* const names[] = {"queued", "dropped", "rejected", "closed", "no_memory"};
    return names[static_cast<std::size_t>(channel_.send(number))];
  }
  std::string send_from_thread(std::int64_t number) {
    std::string came;
    const moored::detachment detached;
    std::thread([&] { came = send(number); }).join();
    return came;
  }
  void close() { channel_.close(); }
  [[nodiscard]] py::tuple came() const {
    return py::make_tuple(came_[0].load(), came_[1].load(), came_[2].load(), came_[3].load());
  }

 private:
  moored::channel<std::int64_t> channel_;
  std::vector<std::thread> threads_;
  std::atomic<std::int64_t> came_[5]{};
  std::atomic<int> running_ = 0;
  std::atomic<bool> stop_ = false;
  std::int64_t next_ = 0;
};

}  // namespace

PYBIND11_MODULE(channel_source, module) {
  // However busy the machine is: what hangs is ended by the time limit of the test.
  moored::set_closing_bound(std::chrono::hours(1));
  py::class_<source>(module, "Source")
      .def(py::init<std::size_t, const std::string&, const std::string&, const std::string&>(),
           py::arg("capacity") = 65536, py::arg("when_full") = "block", py::arg("by") = "wake",
           py::arg("name") = "numbers")
      .def("__moored_channel__", &source::capsule)
      .def("start", &source::start, py::arg("senders"), py::arg("each"))
      .def("stop", &source::stop)
      .def("join", &source::join)
      .def("running", &source::running)
      .def("send", &source::send)
      .def("send_from_thread", &source::send_from_thread)
      .def("close", &source::close)
      .def("came", &source::came);
  module.def("no_channel", [] {
    moored::channel<void*> none;
    PyObject* const made = none.capsule();
    if (made == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
  });
}
