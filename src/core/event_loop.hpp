// event_loop.hpp: the native half of moored.EventLoop.
#pragma once

#include <Python.h>

namespace moored_core {

/// deliver_or_wait(epoll, readers, timeout, report): see event_loop.cpp. GIL held.
[[nodiscard]] PyObject* deliver_or_wait(PyObject* module, PyObject* arguments);

/// Makes the type asks_loop, a new reference; null with an exception. GIL held.
[[nodiscard]] PyObject* make_asks_loop_type();

}  // namespace moored_core
