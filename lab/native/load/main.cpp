// lab/native/load/main.cpp: the load sender: open-loop Poisson arrivals, which no stalled server
// can slow down.
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "../clock.hpp"
#include "../frame.hpp"
#include "../histogram.hpp"
#include "options.hpp"
#include "peer.hpp"

namespace moored::lab {

namespace {

// How long the sender tries, at the end, to get rid of what the server has not taken.
constexpr std::int64_t flush_bound_ns = 10 * ns_per_s;
// No sleep is longer, so that a SIGTERM that comes right before one is noticed.
constexpr std::int64_t longest_sleep_ns = 50 * ns_per_ms;

volatile sig_atomic_t stop_asked = 0;

// The moments at which events are due, and what was due so far.
class schedule {
 public:
  schedule(const load_options& options, std::int64_t start_ns)
      : random_(options.seed),
        gap_s_(options.rate),
        end_ns_(start_ns + std::llround(options.seconds * 1e9)),
        next_ns_(static_cast<double>(start_ns)) {
    advance();
  }

  [[nodiscard]] std::int64_t next_ns() const { return std::llround(next_ns_); }
  [[nodiscard]] bool over() const { return next_ns() >= end_ns_; }

  // Planned by the clock alone: an event that could not be sent in time keeps the time it was due.
  void plan_until(std::int64_t now, std::vector<peer>& peers) {
    for (; next_ns() <= now && !over(); advance())
      peers[random_() % peers.size()].plan({.sequence = sequence_++, .planned_ns = next_ns()});
  }

 private:
  void advance() { next_ns_ += gap_s_(random_) * 1e9; }

  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_s_;
  std::int64_t end_ns_;
  double next_ns_;
  std::uint64_t sequence_ = 0;
};

[[nodiscard]] bool send_all(std::vector<peer>& peers, histogram& lateness) {
  bool connected = true;
  for (peer& each : peers) connected = each.send(lateness) && connected;
  return connected;
}

// Sleeps until then, or until a socket that was full has room again.
void wait_until(std::int64_t then_ns, const std::vector<peer>& peers) {
  std::vector<pollfd> full;
  for (const peer& each : peers)
    if (each.has_backlog()) full.push_back({.fd = each.fd(), .events = POLLOUT, .revents = 0});
  const std::int64_t now = now_ns();
  then_ns = std::min(then_ns, now + longest_sleep_ns);
  if (full.empty()) {
    const timespec then = as_timespec(then_ns);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, nullptr);
  } else {
    const timespec left = as_timespec(std::max<std::int64_t>(0, then_ns - now));
    ::ppoll(full.data(), full.size(), &left, nullptr);
  }
}

[[nodiscard]] bool run(const load_options& options, std::vector<peer>& peers, histogram& lateness) {
  const std::int64_t start = now_ns();
  std::printf("{\"event\":\"started\",\"monotonic_ns\":%lld}\n", static_cast<long long>(start));
  std::fflush(stdout);
  schedule due(options, start);
  bool connected = true;
  while (connected && !stop_asked && !due.over()) {
    wait_until(due.next_ns(), peers);
    due.plan_until(now_ns(), peers);
    connected = send_all(peers, lateness);
  }
  const std::int64_t give_up = now_ns() + flush_bound_ns;
  const auto backlog = [&] {
    return std::any_of(peers.begin(), peers.end(), [](const peer& p) { return p.has_backlog(); });
  };
  while (connected && backlog() && now_ns() < give_up) {
    wait_until(give_up, peers);
    connected = send_all(peers, lateness);
  }
  return connected;
}

void report(const std::vector<peer>& peers, const histogram& lateness) {
  std::uint64_t sent = 0;
  std::uint64_t unsent = 0;
  for (const peer& each : peers) {
    sent += each.sent();
    unsent += each.unsent();
  }
  latencies late;
  lateness.add_to(late);
  std::printf(
      "{\"event\":\"done\",\"sent\":%llu,\"unsent\":%llu,\"sent_late_p50_us\":%.1f,"
      "\"sent_late_p99_us\":%.1f}\n",
      static_cast<unsigned long long>(sent), static_cast<unsigned long long>(unsent),
      late.quantile_ns(0.5) / 1e3, late.quantile_ns(0.99) / 1e3);
}

void pin_to(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (const int cpu : cpus) CPU_SET(static_cast<unsigned>(cpu), &wanted);
  if (sched_setaffinity(0, sizeof wanted, &wanted) != 0)
    throw std::invalid_argument("--cpu: this machine does not let the sender run on these CPUs");
}

void prepare_process(const load_options& options) {
  pin_to(options.cpus);
  prctl(PR_SET_TIMERSLACK, 1UL);  // the default would send everything up to 50 us late
  struct sigaction stop {};
  stop.sa_handler = [](int) { stop_asked = 1; };
  sigaction(SIGTERM, &stop, nullptr);
  sigaction(SIGINT, &stop, nullptr);
}

}  // namespace

}  // namespace moored::lab

int main(int argc, char** argv) {
  using namespace moored::lab;
  try {
    const load_options options = parse_load_options(argc, argv);
    prepare_process(options);
    std::vector<peer> peers;
    for (std::size_t n = 0; n < options.connections; ++n) peers.emplace_back(options.port);
    histogram lateness;
    const bool connected = run(options, peers, lateness);
    report(peers, lateness);
    if (!connected) std::fprintf(stderr, "load: the server closed a connection\n");
    return connected ? 0 : 1;
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "load: %s\n", error.what());
    return 2;
  } catch (const std::system_error& error) {
    std::fprintf(stderr, "load: %s: is the server running on that port?\n", error.what());
    return 1;
  }
}
