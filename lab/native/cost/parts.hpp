// The parts that a temporary thread state is made of, each alone, and the wholes that they add up
// to.
#pragma once

#include <Python.h>

#include <cstddef>
#include <vector>

#include "batch.hpp"

namespace moored::lab {

// The size of a thread state, as far as the public headers tell.
[[nodiscard]] std::size_t state_bytes();

// `empty` only returns, `uses_locals` uses threading.current_thread() and a threading.local.
// Both must outlive the operations.
[[nodiscard]] std::vector<operation> parts(PyObject* empty, PyObject* uses_locals);

}  // namespace moored::lab
