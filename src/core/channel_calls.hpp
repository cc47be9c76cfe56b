// channel_calls.hpp: the table in a channel's capsule, and the capsule, which keeps it alive.
#pragma once

#include <Python.h>

// First: the table stands on its macros.
#include <moored/delivery.hpp>

#include <moored/detail/channel/capsule.hpp>

#include <cstddef>

namespace moored_core {

/// A channel as another extension shows it. Plain data, for it is a member of Python objects, whose
/// memory is all zero at first. GIL held for every function.
struct channel_calls {
  using table = moored::channel_capsule;

  PyObject* capsule;  // owned
  const table* functions;

  /// Those of the first version of the table. It has grown since, at its end.
  static constexpr std::size_t least_size = offsetof(table, subscribe);

  void hold(const channel_calls& other) noexcept {
    capsule = Py_NewRef(other.capsule);
    functions = other.functions;
  }
  void let_go() noexcept { Py_CLEAR(capsule); }

  [[nodiscard]] const table* operator->() const noexcept { return functions; }
  [[nodiscard]] void* channel() const noexcept { return functions->channel; }

  /// Whether each consumer can have a descriptor of its own. False for an extension that was built
  /// with an older moored.
  [[nodiscard]] bool can_subscribe() const noexcept {
    return functions->size >= offsetof(table, unsubscribe) + sizeof functions->unsubscribe;
  }
};

}  // namespace moored_core
