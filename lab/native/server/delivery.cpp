// lab/native/server/delivery.cpp: the deliveries that need nothing but the queue and moored, each a
// small class.
#include "delivery.hpp"

#include <vector>

#include "event_queue.hpp"
#include "handler.hpp"
#include "wake_fd.hpp"

namespace moored::lab {

namespace {

class dropping_delivery final : public delivery {
 public:
  void deliver(std::span<event> events, event_stats& mine) override {
    for (event& e : events) {
      mine.deliver(e);
      if (e.request) e.request->answer(200, "");
    }
  }
};

class queueing_delivery final : public delivery {
 public:
  explicit queueing_delivery(event_queue& queue) : queue_(queue) {}

  void deliver(std::span<event> events, event_stats& mine) override {
    static_cast<void>(queue_.push(events, mine));
  }

 private:
  event_queue& queue_;
};

class waking_delivery final : public delivery {
 public:
  waking_delivery(event_queue& queue, wake_fd& main) : queue_(queue), main_(main) {}

  void deliver(std::span<event> events, event_stats& mine) override {
    if (queue_.push(events, mine)) main_.signal();
  }

 private:
  event_queue& queue_;
  wake_fd& main_;
};

// `Way` is a strategy, or urgent_t.
template <class Way>
class entering_delivery final : public delivery {
 public:
  entering_delivery(Way how, const handler& python) : how_(how), python_(python) {}

  void deliver(std::span<event> events, event_stats& mine) override {
    for (event& e : events) {
      const attachment inside = try_attach(how_);
      if (inside) {
        mine.enter();
        python_.run(e, mine);
      } else {
        mine.refuse({&e, 1});
      }
    }
  }

 private:
  Way how_;
  const handler& python_;
};

class borrowing_delivery final : public delivery {
 public:
  borrowing_delivery(const handler& python, event_queue& queue, wake_fd& main)
      : python_(python), when_busy_(queue, main) {}

  void deliver(std::span<event> events, event_stats& mine) override {
    for (event& e : events) {
      const attachment inside = try_attach(strategy::borrowed);
      if (inside) {
        mine.enter();
        python_.run(e, mine);
      } else if (inside.why() == refusal::not_idle) {
        when_busy_.deliver({&e, 1}, mine);
      } else {
        mine.refuse({&e, 1});
      }
    }
  }

 private:
  const handler& python_;
  waking_delivery when_busy_;
};

template <class Way>
class combining_delivery final : public delivery {
 public:
  combining_delivery(Way how, const handler& python, event_queue& queue)
      : how_(how), python_(python), queue_(queue) {}

  // Nothing is forgotten: a thread that queued looks afterwards whether another is inside, and one
  // that leaves looks afterwards whether something was queued. One of the two sees the other.
  void deliver(std::span<event> events, event_stats& mine) override {
    static_cast<void>(queue_.push(events, mine));
    while (queue_.size() != 0 && !occupied_.exchange(true)) {
      run_everything(mine);
      occupied_.store(false);
    }
  }

 private:
  void run_everything(event_stats& mine) {
    const attachment inside = try_attach(how_);
    if (inside) {
      python_.run_queued(queue_, batch_, mine);
    } else {
      queue_.take(batch_);
      mine.refuse(batch_);
    }
  }

  Way how_;
  const handler& python_;
  event_queue& queue_;
  std::atomic<bool> occupied_{false};
  std::vector<event> batch_;  // belongs to the one inside
};

class sending_delivery final : public delivery {
 public:
  explicit sending_delivery(channel<event>& events) : events_(events) {}

  void deliver(std::span<event> events, event_stats& mine) override {
    for (event& e : events) {
      event turned_away{.request = e.request};  // the channel does not give back what it rejects
      switch (events_.try_send(std::move(e))) {
        case sent::queued:
          break;
        case sent::closed:
          mine.refuse({&turned_away, 1});
          break;
        default:
          mine.lose({&turned_away, 1});
      }
    }
  }

 private:
  channel<event>& events_;
};

}  // namespace

std::shared_ptr<delivery> dropping() {
  return std::make_shared<dropping_delivery>();
}

std::shared_ptr<delivery> queueing(event_queue& queue) {
  return std::make_shared<queueing_delivery>(queue);
}

std::shared_ptr<delivery> waking(event_queue& queue, wake_fd& main) {
  return std::make_shared<waking_delivery>(queue, main);
}

std::shared_ptr<delivery> entering(strategy how, const handler& python) {
  return std::make_shared<entering_delivery<strategy>>(how, python);
}

std::shared_ptr<delivery> entering_urgently(const handler& python) {
  return std::make_shared<entering_delivery<urgent_t>>(urgent, python);
}

std::shared_ptr<delivery> borrowing(const handler& python, event_queue& queue, wake_fd& main) {
  return std::make_shared<borrowing_delivery>(python, queue, main);
}

std::shared_ptr<delivery> combining(const handler& python, event_queue& queue) {
  return std::make_shared<combining_delivery<strategy>>(strategy::kept, python, queue);
}

std::shared_ptr<delivery> combining_urgently(const handler& python, event_queue& queue) {
  return std::make_shared<combining_delivery<urgent_t>>(urgent, python, queue);
}

std::shared_ptr<delivery> sending(channel<event>& events) {
  return std::make_shared<sending_delivery>(events);
}

}  // namespace moored::lab
