// channel_reader.hpp: what an event loop calls when a channel's descriptor is readable.
#pragma once

#include <Python.h>

namespace moored_core {

/// Makes the type Reader, a new reference; null with an exception. GIL held.
[[nodiscard]] PyObject* make_reader_type();

}  // namespace moored_core
