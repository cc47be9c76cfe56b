// The ways into Python from a native thread, each with one call of a Python function inside.
#pragma once

#include <Python.h>

#include <moored/moored.hpp>
#include <string>
#include <vector>

#include "batch.hpp"

namespace moored::lab {

// Calls `callback` with no arguments, through a real Python frame; the GIL is held. Throws if it
// raises.
void call_python(PyObject* callback);

// The operation with a thread state of the thread's own around it, detached: from before to after.
[[nodiscard]] operation with_kept_state(operation op);
// The same, but attached: what is measured runs with the GIL held.
[[nodiscard]] operation with_gil_held(operation op);

// PyGILState_Ensure, the call, PyGILState_Release.
[[nodiscard]] operation ensure_and_call(std::string key, PyObject* callback);
// moored::try_attach, the call, the attachment's end.
[[nodiscard]] operation attach_and_call(std::string key, strategy way, PyObject* callback);

// Every way side by side, raw first: CPython's own calls and moored's. `callback` must outlive
// them, and some thread has to be inside a moored::lending while they run, or `borrowed` is
// refused.
[[nodiscard]] std::vector<operation> entries(PyObject* callback);

}  // namespace moored::lab
