// places.hpp: where the launcher finds its Python and its libraries.
#pragma once

#include <string>

namespace moored::launcher {

struct places {
  std::string python;     ///< The one that moored was installed with; empty when that is unknown.
  std::string libraries;  ///< The folder; empty when it is not where installations have it.
};

/// The launcher is installed twice: as a script, and in the package, beside the libraries. A native
/// program is no script whose first line an installer could rewrite to name the Python. But
/// moored-python beside it is one, and in a virtual environment the Python itself is beside it.
/// Elsewhere a Python of the right name need not have moored, and another one is never run.
[[nodiscard]] places look_around();

/// The folder of the PATH's first program of this name, with it; empty when there is none.
[[nodiscard]] std::string on_the_path(const std::string& program);

/// As in "python3.11".
extern const char* const python_name;

}  // namespace moored::launcher
