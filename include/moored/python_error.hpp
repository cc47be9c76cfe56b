// moored/python_error.hpp: a Python exception as a C++ exception, with its traceback as text.
#pragma once

#include <Python.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "detail/cpython/calls.hpp"
#include "reference.hpp"

MOORED_NAMESPACE_BEGIN

/// Thrown where Python raised. It holds text alone, so it outlives the GIL and the interpreter.
class python_error : public std::runtime_error {
 public:
  python_error(std::string type, const std::string& traceback)
      : std::runtime_error(traceback), type_(std::move(type)) {}

  /// The name of the exception's class, as "ValueError".
  [[nodiscard]] const std::string& type() const noexcept { return type_; }

  /// Takes the exception that is set, which is none afterwards. Attached.
  [[nodiscard]] static python_error current() {
    return of(reference::steal(cpython::take_exception()).get());
  }

  /// Of an exception object. Attached.
  [[nodiscard]] static python_error of(PyObject* exception) {
    if (exception == nullptr) return {"SystemError", "no exception was set"};
    const std::string type = Py_TYPE(exception)->tp_name;
    std::string text = formatted(exception);
    if (text.empty()) {
      PyErr_Clear();
      text = type;
    }
    return {type, text};
  }

 private:
  [[nodiscard]] static std::string formatted(PyObject* exception) {
    const auto traceback = reference::steal(PyImport_ImportModule("traceback"));
    if (!traceback) return {};
    const auto trace = reference::steal(PyException_GetTraceback(exception));
    const auto lines = reference::steal(PyObject_CallMethod(
        traceback.get(), "format_exception", "OOO", reinterpret_cast<PyObject*>(Py_TYPE(exception)),
        exception, trace ? trace.get() : Py_None));
    const auto nothing = reference::steal(lines ? PyUnicode_FromString("") : nullptr);
    const auto all =
        reference::steal(nothing ? PyUnicode_Join(nothing.get(), lines.get()) : nullptr);
    const char* const text = all ? PyUnicode_AsUTF8(all.get()) : nullptr;
    return text == nullptr ? std::string() : std::string(text);
  }

  std::string type_;
};

MOORED_NAMESPACE_END
