// moored/reference.hpp: an owning reference that any thread may move and let go, without the GIL.
#pragma once

#include <Python.h>

#include <utility>

#include "attach.hpp"
#include "interpreter.hpp"

namespace moored::inline v0 {

/// Owns one reference to a Python object. Made attached; moved and destroyed by any thread.
///
/// On a thread that is not attached the object is let go by the main thread, at its next turn in
/// Python, so that destroying it never waits for the GIL. If the interpreter has gone meanwhile,
/// the object is forgotten.
class reference {
 public:
  reference() noexcept = default;
  /// A new reference to `object`, which may be null.
  [[nodiscard]] static reference borrow(PyObject* object) noexcept {
    return reference(Py_XNewRef(object));
  }
  /// Takes the reference that the caller owns.
  [[nodiscard]] static reference steal(PyObject* object) noexcept { return reference(object); }

  reference(reference&& other) noexcept
      : object_(std::exchange(other.object_, nullptr)), made_in_(other.made_in_) {}
  reference& operator=(reference&& other) noexcept {
    if (this != &other) {
      let_go();
      object_ = std::exchange(other.object_, nullptr);
      made_in_ = other.made_in_;
    }
    return *this;
  }
  ~reference() { let_go(); }

  /// Borrowed. Use it attached.
  [[nodiscard]] PyObject* get() const noexcept { return object_; }
  /// The caller owns it now.
  [[nodiscard]] PyObject* release() noexcept { return std::exchange(object_, nullptr); }
  [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  explicit reference(PyObject* object) noexcept
      : object_(object), made_in_(detail::the_gate.now()) {}

  void let_go() noexcept {
    PyObject* const object = std::exchange(object_, nullptr);
    if (object == nullptr) return;
    if (detail::this_thread.is_attached()) {
      Py_DECREF(object);
      return;
    }
    // Nobody opened the gate: there is no telling whether Python still is, so do not ask.
    const detail::passage inside(made_in_);
    if (!inside) return;
    const auto drop = [](void* last) noexcept {
      Py_DECREF(static_cast<PyObject*>(last));
      return 0;
    };
    if (Py_AddPendingCall(drop, object) == 0) return;
    const attachment attached = try_attach();  // main is far behind with its pending calls
    if (attached) Py_DECREF(object);
  }

  PyObject* object_ = nullptr;
  detail::life made_in_ = 0;
};

}  // namespace moored::inline v0
