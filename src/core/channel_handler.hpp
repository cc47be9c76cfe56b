// channel_handler.hpp: where a channel's Python handler is held, so that the garbage collector can
// see it.
//
// The channel is a C++ object, into which the collector cannot look. If it owned the handler, then
// `self.channel.on_batch(self.handle)` would be a cycle that is never collected. So the Python
// object of the channel owns the handler, and the channel a link, which knows it weakly. A program
// that lets its Python object go and keeps the handler, for instance
// `moored.Channel(feed).on_batch(print)`, makes no such cycle: the handler moves into the link, and
// lives as long as the channel.
#pragma once

#include <Python.h>

#include "channel_calls.hpp"

namespace moored_core {

/// A member of a channel's Python object. GIL held for every function.
struct channel_handler {
  PyObject* held;  // owned: what holds the handler
  PyObject* link;  // owned: a weak reference to what the channel has

  /// Makes `handler` the channel's, or takes the channel's handler away if it is null. Returns the
  /// link, or None, as a new reference; null with an exception.
  [[nodiscard]] PyObject* set(PyObject* self, const channel_calls& calls,
                              PyObject* handler) noexcept;

  // For the slots of the Python object.
  [[nodiscard]] int traverse(visitproc visit, void* arg) const noexcept;
  void clear() noexcept;
  /// The Python object ends, and not in a cycle.
  void leave() noexcept;

  /// Makes the types. False with an exception.
  [[nodiscard]] static bool make_types() noexcept;

 private:
  void hand_over(PyObject* held, PyObject* link) noexcept;
};

}  // namespace moored_core
