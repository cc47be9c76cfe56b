// lab/native/server/stats.hpp: what one thread did with events; the sums over all threads must add
// up.
#pragma once

#include <cstdint>
#include <span>

#include "../clock.hpp"
#include "../histogram.hpp"
#include "event.hpp"

namespace moored::lab {

// received = delivered + lost + refused + queued, whenever nothing is on its way.
struct server_stats {
  std::uint64_t received = 0;
  std::uint64_t delivered = 0;  // the handler ran
  std::uint64_t lost = 0;       // the queue was full
  std::uint64_t refused = 0;    // Python would not let us in any more
  std::uint64_t queued = 0;
  std::uint64_t entries = 0;  // times that a thread entered Python to deliver
};

// One per delivering thread, written by that thread alone, so that counting costs no locked
// instruction. On cache lines of its own: its neighbours belong to other threads.
class alignas(64) event_stats {
 public:
  void receive(std::uint64_t n) noexcept { received_.add(n); }
  void enter() noexcept { entries_.add(1); }

  // Called right before the handler: this moment ends the latency.
  void deliver(const event& what) noexcept {
    latency_.record(now_ns() - what.planned_ns);
    delivered_.add(1);
  }

  void lose(std::span<event> events) { turn_away(events, lost_, "the queue is full\n"); }
  void refuse(std::span<event> events) { turn_away(events, refused_, "closing\n"); }

  // From any thread.
  void add_to(server_stats& all) const noexcept {
    all.received += received_.read();
    all.delivered += delivered_.read();
    all.lost += lost_.read();
    all.refused += refused_.read();
    all.entries += entries_.read();
  }
  void add_to(latencies& all) const noexcept { latency_.add_to(all); }

 private:
  static void turn_away(std::span<event> events, single_writer_count& count, const char* why) {
    count.add(events.size());
    for (event& e : events)
      if (e.request) e.request->answer(503, why);
  }

  single_writer_count received_, delivered_, lost_, refused_, entries_;
  histogram latency_;
};

}  // namespace moored::lab
