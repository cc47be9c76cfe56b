// known_scopes: a native thread that enters Python by pybind11 a known number of times.
#include <pybind11/pybind11.h>

#include <thread>

PYBIND11_MODULE(known_scopes, module) {
  module.def("run", [](const pybind11::function& call, int times) {
    pybind11::gil_scoped_release let_go;
    std::thread([&call, times] {
      for (int at = 0; at < times; ++at) {
        pybind11::gil_scoped_acquire in;
        call();
      }
    }).join();
  });
}
