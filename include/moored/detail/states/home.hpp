// moored/detail/states/home.hpp: the interpreter, and its life, to which an object belongs.
//
// Everything that may outlive a life of the interpreter, or be met by a thread that is attached to
// another one, remembers its home and asks it: references, calls, channels, promises.
#pragma once

#include <Python.h>

#include <cstdint>

#include "../gate/thread_record.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

class home {
 public:
  /// Of nothing: never there.
  constexpr home() noexcept = default;
  /// The calling thread's. Attached.
  [[nodiscard]] static home here() noexcept {
    return home(PyInterpreterState_GetID(PyInterpreterState_Get()), the_gate.now());
  }
  /// The main interpreter of now. Any thread.
  [[nodiscard]] static home main() noexcept { return home(main_id, the_gate.now()); }

  [[nodiscard]] bool is_main() const noexcept { return interpreter_ == main_id; }
  [[nodiscard]] std::int64_t interpreter_id() const noexcept { return interpreter_; }
  [[nodiscard]] epoch since() const noexcept { return since_; }

  /// True while the main interpreter is in the life in which this was made. A subinterpreter may
  /// have ended earlier; its own gate knows. Any thread.
  [[nodiscard]] bool is_of_this_life() const noexcept {
    return interpreter_ != none && same_life(since_, the_gate.now());
  }
  /// True when the calling thread is attached to it. Any thread.
  [[nodiscard]] bool is_here() const noexcept {
    if (!is_of_this_life()) return false;
    PyInterpreterState* const there = attached_interpreter(this_thread);
    return there != nullptr && PyInterpreterState_GetID(there) == interpreter_;
  }

 private:
  static constexpr std::int64_t none = -1;
  static constexpr std::int64_t main_id = 0;

  constexpr home(std::int64_t interpreter, epoch since) noexcept
      : interpreter_(interpreter), since_(since) {}

  std::int64_t interpreter_ = none;
  epoch since_ = 0;
};

}  // namespace detail
MOORED_NAMESPACE_END
