// keeps_thread.hpp: the decorator that keeps the calling thread's state.
#pragma once

#include <Python.h>

namespace moored_core {

/// A new reference to the type keeps_thread; null with an exception set. GIL held.
[[nodiscard]] PyObject* make_keeps_thread_type();

}  // namespace moored_core
