// moored/detail/gate/refusal.hpp: why a thread could not be attached.
#pragma once

#include <cstdint>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN

/// Why an attach was refused.
enum class refusal : std::uint8_t {
  none,            ///< It was not: the thread is attached.
  no_interpreter,  ///< There is no running interpreter in this process.
  closing,         ///< The interpreter has started to shut down.
  stale_thread,    ///< 3.15: this thread kept a state of an interpreter that is gone, and CPython
                   ///< still shows it.
  not_idle,        ///< borrowed: no thread is lending its state right now.
  unsupported,     ///< shared, borrowed: cannot be made safe with this build of Python.
  no_memory,       ///< A thread state could not be made: no memory, or no thread to make it on.
};

[[nodiscard]] constexpr const char* describe(refusal why) noexcept {
  switch (why) {
    case refusal::none:
      return "attached";
    case refusal::no_interpreter:
      return "there is no running Python interpreter";
    case refusal::closing:
      return "the Python interpreter is shutting down";
    case refusal::stale_thread:
      return "this thread still shows a state of an interpreter that is gone";
    case refusal::not_idle:
      return "no thread is lending its state";
    case refusal::unsupported:
      return "this strategy cannot be made safe with this Python";
    case refusal::no_memory:
      return "no memory for a thread state";
  }
  return "unknown";
}

MOORED_NAMESPACE_END
