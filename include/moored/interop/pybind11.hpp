// moored/interop/pybind11.hpp: events become Python objects by pybind11's casters.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <utility>

#include "../detail/config.hpp"

MOORED_NAMESPACE_BEGIN

/// A channel's conversion: `moored::channel<packet> packets(options, moored::by_pybind11<packet>)`.
template <class T>
[[nodiscard]] PyObject* by_pybind11(T&& value) {
  try {
    return pybind11::cast(std::move(value)).release().ptr();
  } catch (pybind11::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_TypeError, error.what());
  }
  return nullptr;
}

MOORED_NAMESPACE_END
