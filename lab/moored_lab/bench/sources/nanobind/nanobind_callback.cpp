// nanobind_callback.cpp: the callback of an extension with nanobind.
#include <nanobind/nanobind.h>

#include <cstdint>

namespace nb = nanobind;

namespace {

void call(void* context) {
  const nb::gil_scoped_acquire attached;
  (*static_cast<nb::callable*>(context))();
}

}  // namespace

NB_MODULE(nanobind_callback, module) {
  nb::set_leak_warnings(false);
  // The callable lives from now on for as long as the process.
  module.def("make", [](const nb::callable& callable) {
    return nb::make_tuple(reinterpret_cast<std::intptr_t>(&call),
                          reinterpret_cast<std::intptr_t>(new nb::callable(callable)));
  });
}
