// moored/reference.hpp: an owning reference that any thread may move and let go, without the GIL.
#pragma once

#include <Python.h>

#include <utility>

#include "attach.hpp"

MOORED_NAMESPACE_BEGIN

/// Owns one reference to a Python object. Made attached; moved and destroyed by any thread.
///
/// It remembers the interpreter, and its life, in which it was made. On a thread that is not
/// attached to that one, the object is let go by the interpreter itself: by main at its next turn
/// in Python, in a subinterpreter at the next visit; so destroying it never waits for the GIL. If
/// the interpreter has gone meanwhile, the object is forgotten, and counted
/// (state_stats::references_forgotten).
class MOORED_PUBLIC_TYPE reference {
 public:
  reference() noexcept = default;
  /// A new reference to `object`, which may be null. Attached.
  MOORED_HIDDEN [[nodiscard]] static reference borrow(PyObject* object) noexcept {
    return reference(Py_XNewRef(object));
  }
  /// Takes the reference that the caller owns; null is nothing. Attached.
  MOORED_HIDDEN [[nodiscard]] static reference steal(PyObject* object) noexcept {
    return reference(object);
  }

  MOORED_HIDDEN reference(reference&& other) noexcept
      : object_(std::exchange(other.object_, nullptr)), home_(other.home_) {}
  MOORED_HIDDEN reference& operator=(reference&& other) noexcept {
    if (this == &other) return *this;
    PyObject* const before = std::exchange(object_, std::exchange(other.object_, nullptr));
    const detail::home was = std::exchange(home_, other.home_);
    if (before != nullptr) detail::drop(before, was);  // last: it may run Python
    return *this;
  }
  MOORED_HIDDEN ~reference() {
    if (object_ != nullptr) detail::drop(object_, home_);
  }

  /// Borrowed. Use it attached to its interpreter.
  MOORED_HIDDEN [[nodiscard]] PyObject* get() const noexcept { return object_; }
  /// The caller owns it now.
  MOORED_HIDDEN [[nodiscard]] PyObject* release() noexcept {
    return std::exchange(object_, nullptr);
  }
  MOORED_HIDDEN [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

  /// True when the calling thread is attached to the interpreter, and in the life, in which it was
  /// made. Any thread.
  MOORED_HIDDEN [[nodiscard]] bool is_here() const noexcept { return home_.is_here(); }
  /// Attaches the calling thread to that interpreter; the result tests false when it is gone. Any
  /// thread, attached or not.
  MOORED_HIDDEN [[nodiscard]] attachment try_attach() const noexcept {
    if (object_ == nullptr || !home_.is_of_this_life()) return attachment();
    if (home_.is_here()) return moored::try_attach();
    if (home_.is_main()) return moored::try_attach(interpreter::main());
    auto where = detail::subinterpreters::the().find(home_.interpreter_id());
    return where == nullptr ? attachment() : moored::try_attach(interpreter(std::move(where)));
  }
  /// As try_attach(), but throws interpreter_closed where that tests false.
  MOORED_HIDDEN [[nodiscard]] attachment attach() const {
    attachment attached = try_attach();
    if (!attached) throw interpreter_closed(attached.why());
    return attached;
  }

 private:
  MOORED_HIDDEN explicit reference(PyObject* object) noexcept : object_(object) {
    if (object != nullptr) home_ = detail::home::here();
  }

  PyObject* object_ = nullptr;
  detail::home home_;
};

MOORED_NAMESPACE_END
