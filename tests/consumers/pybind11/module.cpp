// A pybind11 module whose native thread nests moored::attach and py::gil_scoped_acquire both ways.
#include <moored/interop/pybind11.hpp>
#include <moored/moored.hpp>

#include <pybind11/pybind11.h>

#include <thread>

struct packet {
  int number;
};

namespace py = pybind11;

PYBIND11_MODULE(consumer, m) {
  moored::open();
  py::class_<packet>(m, "Packet").def_readonly("number", &packet::number);
  m.def("packets", [](int count) {
    moored::channel<packet> packets({.name = "packets"}, moored::by_pybind11<packet>);
    {
      const moored::detachment detached;
      std::thread([&] {
        for (int number = 0; number < count; ++number) packets.send({number});
      }).join();
    }
    return py::reinterpret_steal<py::object>(packets.capsule());
  });
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
