// rows.hpp: the row of each thread in the capture, its slots, and its calls that are inside.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "capture_of_process.hpp"

namespace moored::run::recorder {

/// What a thread knows of its calls that are inside, beside its row in the file.
struct open_calls {
  static constexpr std::size_t most = 8;
  std::array<slot_row*, most> slot{};
  std::array<std::uint64_t, most> since{};
  std::array<std::uint64_t, most> waited{};  // by then
  std::array<bool, most> made{};             // a state, for it
  std::size_t depth = 0;
  std::uint64_t last_wait_ended = 0;
  std::uint64_t this_wait = 0;

  /// The slot of the call that is inside, or null where that has none.
  [[nodiscard]] slot_row* innermost() const noexcept {
    return depth == 0 || depth > most ? nullptr : slot[depth - 1];
  }
};

/// The last one is that of a thread which is still in a hook of an earlier recording.
inline constinit std::array<open_calls, most_threads + 1> all_open;

/// A thread's row in the capture that is written now: one of an earlier recording is none.
class current_row {
 public:
  current_row& operator=(thread_row* row) noexcept {
    row_ = row;
    return *this;
  }
  operator thread_row*() const noexcept { return is_current() ? row_ : nullptr; }
  thread_row* operator->() const noexcept { return row_; }

 private:
  [[nodiscard]] bool is_current() const noexcept {
    const auto begin =
        reinterpret_cast<std::uintptr_t>(the_capture.load(std::memory_order_relaxed));
    return reinterpret_cast<std::uintptr_t>(row_) - begin < sizeof(capture);
  }

  thread_row* row_ = nullptr;
};

/// The calling thread's; null before it has one, and from its end on. Its thread alone.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local current_row this_threads_row;

/// A row for the calling thread: a fresh one, or that of a thread that has ended; null where all
/// are in use, and while nothing is recorded. Any thread, with no GIL.
[[nodiscard, gnu::noinline]] thread_row* take_row() noexcept;

/// Any thread.
[[nodiscard]] inline thread_row* this_row() noexcept {
  thread_row* const row = this_threads_row;
  return __builtin_expect(static_cast<long>(row != nullptr), 1) ? row : take_row();
}

/// The calls of the thread with that row; its thread alone.
[[nodiscard]] inline open_calls& open_of(const thread_row& row) noexcept {
  const capture* const file = the_capture.load(std::memory_order_relaxed);
  const auto place = static_cast<std::size_t>(&row - file->threads);
  return all_open[place < most_threads ? place : most_threads];
}

/// The slot of that key, or null: the thread's slots, or the sites, are used up. Its thread alone,
/// which may follow its stack, and so holds no GIL.
[[nodiscard]] slot_row* slot_of(thread_row& row, std::uint64_t key, const void* caller,
                                const void* frame) noexcept;

}  // namespace moored::run::recorder
