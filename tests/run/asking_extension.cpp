// asking_extension: a pybind11 extension whose native thread asks whether it has a state with a
// lock held that Python threads take with the GIL held, as an allocator does that records Python
// frames.
#include <pybind11/pybind11.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace {

std::mutex pool;
std::thread worker;
std::atomic<bool> stops{false};
std::atomic<long> asked{0}, answered{0};

void ask() {
  while (!stops) {
    const std::lock_guard<std::mutex> lock(pool);
    if (PyGILState_GetThisThreadState() != nullptr) ++answered;
    ++asked;
  }
}

}  // namespace

PYBIND11_MODULE(asking_extension, module) {
  module.def("start", [] { worker = std::thread(ask); });
  module.def("allocate", [] { const std::lock_guard<std::mutex> lock(pool); });
  module.def("stop", [] {
    stops = true;
    const pybind11::gil_scoped_release released;
    worker.join();
  });
  module.def("answers", [] { return std::make_pair(asked.load(), answered.load()); });
  module.def("call", [](const pybind11::object& callback, long times) {
    const pybind11::gil_scoped_release released;
    std::thread([&] {
      for (long at = 0; at < times; ++at) {
        const pybind11::gil_scoped_acquire acquired;
        callback();
      }
    }).join();
  });
}
