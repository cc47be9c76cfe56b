// places.hpp: where the launcher finds its Python and its libraries.
#pragma once

#include <string>

namespace moored::launcher {

struct places {
  std::string python;     ///< Empty when it is not beside the launcher.
  std::string libraries;  ///< The folder; empty when it is not where installations have it.
};

/// The launcher is installed twice: as a script, beside its Python, and in the package, beside the
/// libraries.
[[nodiscard]] places look_around();

/// The folder of the PATH's first program of this name, with it; empty when there is none.
[[nodiscard]] std::string on_the_path(const std::string& program);

/// As in "python3.11".
extern const char* const python_name;

}  // namespace moored::launcher
