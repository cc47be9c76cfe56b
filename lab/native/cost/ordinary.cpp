// An attach in a library with the ordinary TLS model: its copy of moored looks its thread up.
#include "ordinary.hpp"

#include <moored/moored.hpp>

#ifdef MOORED_INITIAL_EXEC_TLS
#error "this is the row for libraries without it"
#endif

bool moored_lab_attach_ordinarily(std::size_t times, void (*call)(PyObject*), PyObject* callback) {
  for (; times != 0; --times) {
    const moored::attachment python = moored::try_attach();
    if (!python) return false;
    call(callback);
  }
  return true;
}
