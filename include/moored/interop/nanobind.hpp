// moored/interop/nanobind.hpp: events become Python objects by nanobind's casters.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>
#include <utility>

#include "../detail/config.hpp"

MOORED_NAMESPACE_BEGIN

/// A channel's conversion: `moored::channel<packet> packets(options, moored::by_nanobind<packet>)`.
template <class T>
[[nodiscard]] PyObject* by_nanobind(T&& value) {
  try {
    return nanobind::cast(std::move(value)).release().ptr();
  } catch (nanobind::python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  }
  return nullptr;
}

MOORED_NAMESPACE_END
