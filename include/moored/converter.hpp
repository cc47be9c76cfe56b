// moored/converter.hpp: C++ values that become Python objects. Specialise `converter` for your own
// types.
#pragma once

#include <Python.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "python_error.hpp"
#include "reference.hpp"

MOORED_NAMESPACE_BEGIN

/// Becomes a Python `bytes`.
using bytes = std::vector<std::byte>;

/// A number and its payload; becomes the tuple (int, bytes).
struct message {
  std::int64_t number = 0;
  bytes payload;
};

/// How a T becomes a Python object (a new reference, or null with an exception), and how one
/// becomes a T (or throws python_error). Called attached. For a type that is not here, specialise
/// it, or give the channel a function.
template <class T, class = void>
struct converter;

namespace detail {

[[nodiscard]] inline PyObject* to_bytes(const std::byte* data, std::size_t size) noexcept {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data),
                                   static_cast<Py_ssize_t>(size));
}

}  // namespace detail

template <class T>
struct converter<T, std::enable_if_t<std::is_integral_v<T>>> {
  static_assert(sizeof(T) <= sizeof(long long),
                "moored: an int of more than 64 bits has no converter");

  [[nodiscard]] static PyObject* to_python(T&& value) noexcept {
    if constexpr (std::is_same_v<T, bool>) {
      return PyBool_FromLong(value);
    } else if constexpr (std::is_signed_v<T>) {
      return PyLong_FromLongLong(value);
    } else {
      return PyLong_FromUnsignedLongLong(value);
    }
  }
  [[nodiscard]] static T from_python(PyObject* object) {
    if constexpr (std::is_same_v<T, bool>) {
      const int truth = PyObject_IsTrue(object);
      if (truth < 0) throw python_error::current();
      return truth != 0;
    } else if constexpr (std::is_signed_v<T>) {
      return checked(PyLong_AsLongLong(object));
    } else {
      return checked(PyLong_AsUnsignedLongLong(object));
    }
  }

 private:
  template <class Wide>
  [[nodiscard]] static T checked(Wide value) {
    if (value == static_cast<Wide>(-1) && PyErr_Occurred() != nullptr)
      throw python_error::current();
    if (value < std::numeric_limits<T>::min() || value > std::numeric_limits<T>::max())
      throw python_error("OverflowError", "OverflowError: the int does not fit its C++ type");
    return static_cast<T>(value);
  }
};

template <class T>
struct converter<T, std::enable_if_t<std::is_floating_point_v<T>>> {
  [[nodiscard]] static PyObject* to_python(T&& value) noexcept {
    return PyFloat_FromDouble(static_cast<double>(value));
  }
  [[nodiscard]] static T from_python(PyObject* object) {
    const double value = PyFloat_AsDouble(object);
    if (value == -1.0 && PyErr_Occurred() != nullptr) throw python_error::current();
    return static_cast<T>(value);
  }
};

/// Becomes a `str`. Bytes that are not UTF-8 become lone surrogates, as in os.fsdecode.
template <>
struct converter<std::string> {
  [[nodiscard]] static PyObject* to_python(std::string&& value) noexcept {
    return PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()),
                                "surrogateescape");
  }
  [[nodiscard]] static std::string from_python(PyObject* object) {
    Py_ssize_t size = 0;
    const char* const text = PyUnicode_AsUTF8AndSize(object, &size);
    if (text == nullptr) throw python_error::current();
    return {text, static_cast<std::size_t>(size)};
  }
};

template <>
struct converter<bytes> {
  [[nodiscard]] static PyObject* to_python(bytes&& value) noexcept {
    return detail::to_bytes(value.data(), value.size());
  }
  [[nodiscard]] static bytes from_python(PyObject* object) {
    char* data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(object, &data, &size) != 0) throw python_error::current();
    const auto* const first = reinterpret_cast<const std::byte*>(data);
    return {first, first + size};
  }
};

/// Whatever object it is.
template <>
struct converter<reference> {
  [[nodiscard]] static PyObject* to_python(reference&& value) noexcept {
    return value ? value.release() : Py_NewRef(Py_None);
  }
  [[nodiscard]] static reference from_python(PyObject* object) noexcept {
    return reference::borrow(object);
  }
};

/// For small payloads of one size: nothing is allocated to send them.
template <std::size_t size>
struct converter<std::array<std::byte, size>> {
  [[nodiscard]] static PyObject* to_python(std::array<std::byte, size>&& value) noexcept {
    return detail::to_bytes(value.data(), size);
  }
};

template <>
struct converter<message> {
  [[nodiscard]] static PyObject* to_python(message&& value) noexcept {
    return Py_BuildValue("(NN)", PyLong_FromLongLong(value.number),
                         detail::to_bytes(value.payload.data(), value.payload.size()));
  }
};

MOORED_NAMESPACE_END
