// channel.hpp: the native half of moored.Channel, over any extension's channel.
#pragma once

#include <Python.h>

namespace moored_core {

/// A new reference to the type Channel; null with an exception set. GIL held.
[[nodiscard]] PyObject* make_channel_type();

}  // namespace moored_core
