// pybind11_callback.cpp: the callback of an extension with pybind11.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

namespace py = pybind11;

namespace {

void call(void* context) {
  const py::gil_scoped_acquire attached;
  (*static_cast<py::function*>(context))();
}

}  // namespace

PYBIND11_MODULE(pybind11_callback, module) {
  // The function lives from now on for as long as the process.
  module.def("make", [](const py::function& callable) {
    return std::pair{reinterpret_cast<std::intptr_t>(&call),
                     reinterpret_cast<std::intptr_t>(new py::function(callable))};
  });
}
