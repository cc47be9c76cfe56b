// lab/native/server/scheduling.hpp: makes the Python type that the asyncio delivery hands to the
// loop.
#pragma once

#include <nanobind/nanobind.h>

namespace moored::lab {

void bind_scheduled_event(nanobind::module_& module);

}  // namespace moored::lab
