// lab/native/server/main_thread.cpp: one wait for all modes: wake-ups, poll times and the control
// channel.
#include "main_thread.hpp"

#include <algorithm>

#include <moored/moored.hpp>

#include "../clock.hpp"
#include "event_queue.hpp"
#include "handler.hpp"
#include "stats.hpp"
#include "wake_fd.hpp"

namespace moored::lab {

namespace {

[[nodiscard]] std::optional<std::int64_t> sooner(std::optional<std::int64_t> a,
                                                 std::optional<std::int64_t> b) {
  if (a && b) return std::min(*a, *b);
  return a ? a : b;
}

[[nodiscard]] bool reached(std::optional<std::int64_t> moment_ns, std::int64_t now) {
  return moment_ns && now >= *moment_ns;
}

}  // namespace

main_thread::main_thread(const handler& python, event_queue& queue, channel<event>& events,
                         wake_fd& woken, event_stats& mine, const std::vector<int>& watched)
    : python_(python), queue_(queue), events_(events), woken_(woken), mine_(mine) {
  fds_.push_back({.fd = woken.fd(), .events = POLLIN, .revents = 0});
  fds_.push_back({.fd = events.told_by().fd(), .events = POLLIN, .revents = 0});
  for (const int fd : watched) fds_.push_back({.fd = fd, .events = POLLIN, .revents = 0});
}

void main_thread::idle_as(idling how) {
  how_ = how;
  next_poll_ns_.reset();
}

bool main_thread::serve(std::optional<std::int64_t> until_ns) {
  for (;;) {
    if (how_.poll_every_ns && !next_poll_ns_) next_poll_ns_ = now_ns() + *how_.poll_every_ns;
    wait(sooner(until_ns, next_poll_ns_));
    const std::int64_t now = now_ns();
    const bool poll_is_due = reached(next_poll_ns_, now);
    if (fds_[0].revents != 0 || poll_is_due) drain_queue();
    if (fds_[1].revents != 0 || poll_is_due) drain_channel();
    if (poll_is_due) next_poll_ns_.reset();
    if (watched_is_readable()) return true;
    if (reached(until_ns, now)) return false;
  }
}

void main_thread::drain() {
  drain_queue();
  drain_channel();
}

void main_thread::drain_channel() {
  events_.told_by().acknowledge();
  // Not until nothing is left: with more events than main can handle that never comes, and the
  // control channel is to be heard all the same.
  const std::uint64_t queued = events_.stats().depth;
  const std::uint64_t before = events_.stats().delivered;
  while (events_.deliver()) {
    if (events_.stats().delivered - before < queued) continue;
    events_.told_by().notify();  // the rest is for the next turn
    return;
  }
}

void main_thread::drain_queue() {
  // Reset first: an event queued after this signals again, one queued before is taken now.
  woken_.reset();
  python_.run_queued(queue_, batch_, mine_);
}

// ppoll rather than epoll: for two descriptors it costs no more, needs no registration, and its
// timeout is in nanoseconds, which the slices of a busy main need.
void main_thread::wait(std::optional<std::int64_t> until_ns) {
  const auto wait_without_gil = [&] {
    timespec left{};
    if (until_ns) left = as_timespec(std::max<std::int64_t>(0, *until_ns - now_ns()));
    const int ready = ::ppoll(fds_.data(), fds_.size(), until_ns ? &left : nullptr, nullptr);
    if (ready < 0)  // a signal, whose descriptor will be readable in the next round
      for (pollfd& each : fds_) each.revents = 0;
  };
  if (how_.lends) {
    const lending idle;
    wait_without_gil();
  } else {
    const detachment idle;
    wait_without_gil();
  }
}

bool main_thread::watched_is_readable() const noexcept {
  return std::any_of(fds_.begin() + wakes, fds_.end(),
                     [](const pollfd& each) { return each.revents != 0; });
}

}  // namespace moored::lab
