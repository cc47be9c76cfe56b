// channel_descriptor.hpp: a descriptor by which a channel tells an event loop.
#pragma once

#include <Python.h>

#include "channel_calls.hpp"

namespace moored_core {

/// A new Descriptor, or null with an exception. With `subscribed` it is a consumer's own, which its
/// end closes, if the channel has such; otherwise the channel's one, for the loop that runs the
/// handler. GIL held.
[[nodiscard]] PyObject* make_descriptor(const channel_calls& calls, bool subscribed);

/// Makes a Descriptor unreadable until the next wake. GIL held.
void acknowledge(PyObject* descriptor) noexcept;

/// The calls of a Descriptor's channel, as long as it lives. GIL held.
[[nodiscard]] const channel_calls& calls_of_descriptor(PyObject* descriptor) noexcept;

/// The type, borrowed; null before it is made.
[[nodiscard]] PyTypeObject* descriptor_type() noexcept;

/// Makes the type, a borrowed reference; null with an exception. GIL held.
[[nodiscard]] PyObject* make_descriptor_type();

}  // namespace moored_core
