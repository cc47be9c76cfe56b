// What threads that have called Python, and idle, cost in memory.
#pragma once

#include <Python.h>

#include <cstddef>
#include <moored/moored.hpp>
#include <optional>

namespace moored::lab {

// How much the process grows by so many native threads at once, each of which calls `callback` once
// by that strategy, or does not call Python at all. The caller is attached. Once per process: the
// next threads find memory that these have left.
[[nodiscard]] std::ptrdiff_t growth_by(std::size_t threads, std::optional<strategy> how,
                                       PyObject* callback);

}  // namespace moored::lab
