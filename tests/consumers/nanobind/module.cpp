// A nanobind module whose native thread nests moored::attach and nb::gil_scoped_acquire both ways.
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>

#include <thread>

namespace nb = nanobind;

NB_MODULE(consumer, m) {
  moored::open();
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
