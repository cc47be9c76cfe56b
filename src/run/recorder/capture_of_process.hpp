// capture_of_process.hpp: the capture that this process is recorded in, and how it is asked for.
#pragma once

#include <atomic>
#include <string>

#include "../capture_format.hpp"

namespace moored::run::recorder {

/// What start() was asked for; also for the child of a fork. Written before the recorder is on.
struct wishes {
  std::string path, command;  ///< The path without the number of the process behind it.
  bool keeps_states = false, is_urgent = false;
  bool is_alone = false;  ///< The children of a fork are not recorded.
};

/// Never destroyed: threads go on when the process comes to its exit.
[[nodiscard]] wishes& asked_for() noexcept;

/// Null while nothing is recorded.
inline constinit std::atomic<capture*> the_capture{nullptr};

/// Makes the file of this process and its header, and puts it into `the_capture`. False where that
/// cannot be, which it has said then. Before the recorder is on, or in the child of a fork.
[[nodiscard]] bool open_capture() noexcept;

/// Moves the second of the two moments by which ticks are read. Any thread.
void note_clock(capture_header& header) noexcept;

}  // namespace moored::run::recorder
