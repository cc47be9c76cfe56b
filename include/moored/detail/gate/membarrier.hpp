// moored/detail/gate/membarrier.hpp: a memory barrier on all threads of the process, made by one.
//
// What is entered often then needs no barrier of its own, only the compiler's: a thread writes that
// it is inside, and reads whether it may be. The thread that closes writes that no thread may be,
// has every thread of the process pass a barrier, and reads which of them are inside.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "../config.hpp"

MOORED_NAMESPACE_BEGIN
namespace detail {

// Of linux/membarrier.h, which older systems lack.
inline constexpr int membarrier_private = 1 << 3, membarrier_register_private = 1 << 4;

[[nodiscard]] inline bool membarrier(int command) noexcept {
#ifdef SYS_membarrier
  return syscall(SYS_membarrier, command, 0, 0) == 0;
#else
  (void)command;
  return false;
#endif
}

/// Has the kernel get ready for it, once in a process; a fork inherits that. False where it is
/// missing (before Linux 4.14) or forbidden (by a seccomp filter). Any thread.
[[nodiscard]] inline bool register_membarrier() noexcept {
  return membarrier(membarrier_register_private);
}

/// Every other thread of the process has passed a full memory barrier when this returns. Any thread
/// of a process that has registered.
inline void membarrier_on_all_threads() noexcept {
  if (membarrier(membarrier_private)) return;
  // Forbidden since. What a thread has written is seen by others within microseconds: only a
  // processor that keeps it back for longer than this would be overlooked.
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace detail
MOORED_NAMESPACE_END
