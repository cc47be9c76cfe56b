// An attach in a library with the ordinary TLS model, as extensions are built.
#pragma once

#include <Python.h>

#include <cstddef>

// So many attaches, each with one `call` of `callback`; what that throws goes through. False, and
// no more, when one is refused. Any native thread, not attached.
extern "C" [[gnu::visibility("default")]] bool moored_lab_attach_ordinarily(std::size_t times,
                                                                            void (*call)(PyObject*),
                                                                            PyObject* callback);
