// bound_extension: the same as plain_extension, by pybind11 or by nanobind.
#include <thread>

#ifdef BY_PYBIND11
#include <pybind11/pybind11.h>
namespace binding = pybind11;
#define MODULE PYBIND11_MODULE
#else
#include <nanobind/nanobind.h>
namespace binding = nanobind;
#define MODULE NB_MODULE
#endif

static void call_many(const binding::object& callback, long times) {
  const binding::gil_scoped_release release;
  std::thread([&] {
    for (long at = 0; at < times; ++at) {
      const binding::gil_scoped_acquire acquire;
      callback();
    }
  }).join();
}

MODULE(native_extension, module) {
  module.def("call_many", call_many);
}
