// plugin: a library that a program loads, calls and closes. Compiled with hidden visibility.
#include <moored/moored.hpp>

#define EXPORT extern "C" [[gnu::visibility("default")]]

/// Attached: the gate is open from now on.
EXPORT void open_gate() {
  if (!moored::open()) PyErr_Clear();
}

/// On a thread of Python's own or none: keeps what the thread has.
EXPORT int keep() {
  const moored::attachment attached = moored::try_attach();
  return attached ? moored::keep_thread() : 0;
}

/// Attached: has a handler told of an event, by a channel that stays.
EXPORT void tell(PyObject* handler) {
  moored::channel_options options;
  options.by = moored::delivery::enter;
  auto* const stays = new moored::channel<long>(options);
  stays->on_batch(handler);
  stays->send(1);
}

EXPORT void nothing() {}
