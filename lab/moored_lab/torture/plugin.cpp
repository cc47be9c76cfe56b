// plugin: a library with a moored of its own, hidden, that a program loads, calls and closes.
#include <moored/moored.hpp>

/// Enters Python, and keeps the thread's state. 0 when Python could not be entered.
extern "C" __attribute__((visibility("default"))) int enter() {
  const moored::attachment attached = moored::try_attach();
  if (!attached) return 0;
  return PyRun_SimpleString("sum(range(100))") == 0 ? 1 : 0;
}
