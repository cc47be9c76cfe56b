// lab/native/server/main_thread.hpp: the Python main thread's wait: idle in the OS without the GIL,
// then drain.
#pragma once

#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <moored/moored.hpp>

#include "event.hpp"

namespace moored::lab {

class event_queue;
class handler;
class event_stats;
class wake_fd;

// What main does with its idle time in a mode.
struct idling {
  std::optional<std::int64_t> poll_every_ns;  // look at the queue this often, unasked
  bool lends = false;                         // others may borrow main's thread state meanwhile
};

// Used by the main thread only, which is attached when it calls.
class main_thread {
 public:
  // Waits also end when one of `watched` (the control channel, a signal's fd) can be read.
  main_thread(const handler& python, event_queue& queue, channel<event>& events, wake_fd& woken,
              event_stats& mine, const std::vector<int>& watched);

  void idle_as(idling how);

  // Waits and delivers until `until_ns` (false) or until a watched descriptor can be read (true).
  [[nodiscard]] bool serve(std::optional<std::int64_t> until_ns);

  // Delivers what is queued now, in the queue and in the channel.
  void drain();

  // From now on waits end by time only.
  void watch_nothing() { fds_.erase(fds_.begin() + wakes, fds_.end()); }

 private:
  void drain_queue();
  void drain_channel();
  void wait(std::optional<std::int64_t> until_ns);
  [[nodiscard]] bool watched_is_readable() const noexcept;

  const handler& python_;
  static constexpr std::ptrdiff_t wakes = 2;

  event_queue& queue_;
  channel<event>& events_;
  wake_fd& woken_;
  event_stats& mine_;
  std::vector<pollfd> fds_;  // the first are woken_ and the channel's, the others are watched
  idling how_;
  std::optional<std::int64_t> next_poll_ns_;
  std::vector<event> batch_;
};

}  // namespace moored::lab
