// moored/version.hpp: the one place where the version number lives; CMake and the Python package
// read it.
#pragma once

#define MOORED_VERSION "0.1.0"
