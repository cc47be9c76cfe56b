// counts.hpp: what the threads of a case did, and the report of it when the process ends.
//
// The report is written after Python: only then is everything counted.
#pragma once

#include <moored/channel.hpp>
#include <moored/moored.hpp>

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace torture {

using namespace std::chrono_literals;

constexpr auto patience = 20s;        // for a thread's end, after Python's
constexpr auto little_patience = 1s;  // if some were too late: those never end

struct sums {
  std::atomic<std::uint64_t> calls{0};       // Python functions that native threads called
  std::atomic<std::uint64_t> refusals{0};    // and attaches that they were refused
  std::atomic<std::uint64_t> failures{0};    // and what should have been one of both
  std::atomic<std::uint64_t> attempts{0};    // sends
  std::atomic<std::uint64_t> taken{0};       // events that handlers saw
  std::atomic<std::uint64_t> farewells{0};   // attaches by the user's own thread_local destructors
  std::atomic<std::uint64_t> visits{0};      // calls in a subinterpreter
  std::atomic<std::uint64_t> overstayed{0};  // threads that stayed inside until shutdown gave up
  std::atomic<std::uint64_t> objects{0};     // whose last reference a detached thread let go
  std::atomic<std::uint64_t> finalised{0};   // and whose destructors ran
};

// No function-local statics: a fork may come while another thread makes one, and the child then
// waits for that thread for ever.
inline sums the_sums;

/// Which life of the interpreter this is. A callable of an earlier one is gone.
inline std::atomic<int> the_life{0};

using events = moored::channel<std::int64_t>;

// Never destroyed: native threads live longer than static storage.
inline auto& the_channels = *new std::vector<events*>;  // one a life; the last one is this life's
inline auto& joined = *new std::vector<pthread_t>;

inline int report_fd = -1;
inline pid_t reporter = 0;
inline std::atomic<bool> senders_stop{false};

[[nodiscard]] inline unsigned long unjoined() {
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += (moored::stats().overdue == 0 ? patience : little_patience) / 1s;
  unsigned long left = 0;
  for (const pthread_t thread : joined) {
    if (pthread_timedjoin_np(thread, nullptr, &until) != 0) ++left;
  }
  return left;
}

struct numbers {
  std::string text;
  bool in_send;  // an attempt is not counted yet
};

/// A consistent set: threads that Python does not wait for may still be at it.
[[nodiscard]] inline numbers look() {
  const sums& mine = the_sums;
  const std::uint64_t attempts = mine.attempts;
  const moored::state_stats now = moored::stats();
  moored::channel_stats all;
  for (const events* const channel : the_channels) {
    const moored::channel_stats one = channel->stats();
    all.sent += one.sent;
    all.delivered += one.delivered;
    all.dropped_oldest += one.dropped_oldest;
    all.dropped_newest += one.dropped_newest;
    all.rejected += one.rejected;
    all.refused += one.refused;
    all.undelivered += one.undelivered;
    all.unconvertible += one.unconvertible;
    all.depth += one.depth;
  }
  const std::pair<const char*, std::uint64_t> said[] = {
      {"attaches", now.attaches},
      {"refused_attaches", now.refusals},
      {"made", now.states_made},
      {"adopted", now.states_adopted},
      {"kept", now.states_kept},
      {"freed", now.states_freed},
      {"forgotten", now.states_forgotten},
      {"overdue", now.overdue},
      {"calls", mine.calls},
      {"refusals", mine.refusals},
      {"failures", mine.failures},
      {"farewells", mine.farewells},
      {"visits", mine.visits},
      {"overstayed", mine.overstayed},
      {"objects", mine.objects},
      {"finalised", mine.finalised},
      {"references_forgotten", now.references_forgotten},
      {"attempts", attempts},
      {"taken", mine.taken},
      {"sent", all.sent},
      {"delivered", all.delivered},
      {"dropped_oldest", all.dropped_oldest},
      {"dropped_newest", all.dropped_newest},
      {"rejected", all.rejected},
      {"refused", all.refused},
      {"undelivered", all.undelivered},
      {"unconvertible", all.unconvertible},
      {"depth", all.depth},
  };
  std::string text;
  for (const auto& [name, value] : said)
    text += ", \"" + std::string(name) + "\": " + std::to_string(value);
  const std::uint64_t unsent = all.dropped_newest + all.rejected + all.refused;
  return {text, attempts != all.sent + unsent};
}

[[gnu::destructor]] inline void report() {
  if (report_fd < 0 || reporter != getpid()) return;
  senders_stop = true;
  const unsigned long left = unjoined();
  numbers seen = look();
  // The same for 50 ms; on a busy machine a thread may be in the middle of something for a while.
  for (int looks = 0, alike = 0; looks < 2000 && (alike < 10 || seen.in_send); ++looks) {
    std::this_thread::sleep_for(5ms);
    const numbers before = std::exchange(seen, look());
    alike = seen.text == before.text ? alike + 1 : 0;
  }
  const std::string text = "{\"unjoined\": " + std::to_string(left) + seen.text + "}\n";
  if (write(report_fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) _exit(99);
}

}  // namespace torture
