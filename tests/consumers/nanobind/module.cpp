// A nanobind module whose native thread nests moored::attach and nb::gil_scoped_acquire both ways.
#include <moored/interop/nanobind.hpp>
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>

#include <thread>

struct packet {
  int number;
};

namespace nb = nanobind;

NB_MODULE(consumer, m) {
  moored::open();
  nb::class_<packet>(m, "Packet").def_ro("number", &packet::number);
  m.def("packets", [](int count) {
    moored::channel<packet> packets({.name = "packets"}, moored::by_nanobind<packet>);
    {
      const moored::detachment detached;
      std::thread([&] {
        for (int number = 0; number < count; ++number) packets.send({number});
      }).join();
    }
    return nb::steal(packets.capsule());
  });
  m.def("call_from_thread", [](const nb::callable& callback, int rounds) {
    const moored::detachment detached;
    std::thread([&] {
      for (int i = 0; i < rounds; ++i) {
        {
          const auto attached = moored::attach();
          const nb::gil_scoped_acquire inner;
          callback();
        }
        {
          const nb::gil_scoped_acquire outer;
          const auto attached = moored::attach();
          callback();
        }
      }
    }).join();
  });
}
