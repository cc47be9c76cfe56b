// lab/native/server/event_queue.hpp: the bounded queue between the threads that read and the thread
// that delivers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <span>
#include <vector>

#include "event.hpp"
#include "stats.hpp"

namespace moored::lab {

class event_queue {
 public:
  explicit event_queue(std::size_t limit) : limit_(limit) {}

  // Any thread. Takes what fits, counts the rest as lost, and says whether the queue was empty
  // before: only then can its consumer be asleep.
  [[nodiscard]] bool push(std::span<event> events, event_stats& mine) {
    std::size_t fits = 0;
    bool was_empty = false;
    {
      const std::lock_guard lock(mutex_);
      was_empty = events_.empty();
      fits = std::min(events.size(), limit_ - std::min(limit_, events_.size()));
      for (event& e : events.first(fits)) events_.push_back(std::move(e));
    }
    if (fits < events.size()) mine.lose(events.subspan(fits));
    return was_empty;
  }

  // Any thread. Gives everything queued; `batch` comes back empty if there was nothing. The
  // caller's cleared vector becomes the next queue, so that neither side allocates once both have
  // grown.
  void take(std::vector<event>& batch) {
    batch.clear();
    const std::lock_guard lock(mutex_);
    events_.swap(batch);
  }

  [[nodiscard]] std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return events_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<event> events_;
  std::size_t limit_;
};

}  // namespace moored::lab
