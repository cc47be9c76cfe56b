// references.hpp: redirects the references of all loaded objects to some functions, and takes that
// back.
//
// What a reference was is not remembered: it led to the real function, or would have when it was
// first used. A reference that leads elsewhere, to another tool's function, is left alone.
#pragma once

#include <cstddef>

namespace moored::run::attach {

struct replacement {
  const char* name;
  void* real;
  void* ours;
  bool only_in_makers;  ///< In those objects alone that make states by themselves (pybind11).
};

struct replacements {
  const replacement* first;
  std::size_t count;

  [[nodiscard]] const replacement* begin() const noexcept { return first; }
  [[nodiscard]] const replacement* end() const noexcept { return first + count; }
};

/// Has the objects that are loaded by now call ours, but for Python and this library; returns how
/// many references changed. Attached, so that Python loads nothing meanwhile; takes the loader's
/// lock.
std::size_t redirect(replacements all) noexcept;

/// Has them call the real ones again. As redirect().
std::size_t take_back(replacements all) noexcept;

}  // namespace moored::run::attach
