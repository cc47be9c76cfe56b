// A pybind11 module whose native thread nests moored::attach and py::gil_scoped_acquire both ways.
#include <moored/moored.hpp>

#include <pybind11/pybind11.h>

#include <thread>

namespace py = pybind11;

PYBIND11_MODULE(consumer, m) {
  moored::open();
  m.def("call_from_thread", [](const py::function& callback, int rounds) {
    const moored::detachment detached;
    std::thread([&] {
      for (int i = 0; i < rounds; ++i) {
        {
          const auto attached = moored::attach();
          const py::gil_scoped_acquire inner;
          callback();
        }
        {
          const py::gil_scoped_acquire outer;
          const auto attached = moored::attach();
          callback();
        }
      }
    }).join();
  });
}
