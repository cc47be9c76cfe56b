// moored/converter.hpp: C++ values that become Python objects. Specialise `converter` for your own
// types.
#pragma once

#include <Python.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace moored::inline v0 {

/// Becomes a Python `bytes`.
using bytes = std::vector<std::byte>;

/// A number and its payload; becomes the tuple (int, bytes).
struct message {
  std::int64_t number = 0;
  bytes payload;
};

/// How a T becomes a Python object: a new reference, or null with an exception. Called attached.
/// For a type that is not here, specialise it or give the channel a function.
template <class T>
struct converter;

namespace detail {

[[nodiscard]] inline PyObject* to_bytes(const std::byte* data, std::size_t size) noexcept {
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data),
                                   static_cast<Py_ssize_t>(size));
}

}  // namespace detail

template <std::integral T>
struct converter<T> {
  [[nodiscard]] static PyObject* to_python(T&& value) noexcept {
    if constexpr (std::same_as<T, bool>) {
      return PyBool_FromLong(value);
    } else if constexpr (std::signed_integral<T>) {
      return PyLong_FromLongLong(value);
    } else {
      return PyLong_FromUnsignedLongLong(value);
    }
  }
};

template <std::floating_point T>
struct converter<T> {
  [[nodiscard]] static PyObject* to_python(T&& value) noexcept {
    return PyFloat_FromDouble(static_cast<double>(value));
  }
};

/// Becomes a `str`. Bytes that are not UTF-8 become lone surrogates, as in os.fsdecode.
template <>
struct converter<std::string> {
  [[nodiscard]] static PyObject* to_python(std::string&& value) noexcept {
    return PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()),
                                "surrogateescape");
  }
};

template <>
struct converter<bytes> {
  [[nodiscard]] static PyObject* to_python(bytes&& value) noexcept {
    return detail::to_bytes(value.data(), value.size());
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

}  // namespace moored::inline v0
