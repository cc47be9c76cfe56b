// lab/native/server/scheduling.cpp: the delivery through asyncio's call_soon_threadsafe, one
// callback for each event.
#include "scheduling.hpp"

#include <utility>

#include "delivery.hpp"
#include "handler.hpp"

namespace nb = nanobind;

namespace moored::lab {

namespace {

// What the loop calls: it counts like every other mode, on main's event_stats, because loops run on
// main.
class scheduled_event {
 public:
  scheduled_event(event what, const handler& python, event_stats& main,
                  std::atomic<std::size_t>& waiting)
      : what_(std::move(what)), python_(&python), main_(&main), waiting_(&waiting) {}

  void run() {
    waiting_->fetch_sub(1, std::memory_order_relaxed);
    python_->run(what_, *main_);
  }

 private:
  event what_;
  const handler* python_;
  event_stats* main_;
  std::atomic<std::size_t>* waiting_;
};

class scheduling_delivery final : public delivery {
 public:
  scheduling_delivery(const handler& python, PyObject* call_soon_threadsafe, event_stats& main,
                      std::atomic<std::size_t>& waiting, std::size_t limit)
      : python_(python),
        schedule_(call_soon_threadsafe),
        main_(main),
        waiting_(waiting),
        limit_(limit) {}

  void deliver(std::span<event> events, event_stats& mine) override {
    for (event& e : events) {
      if (waiting_.fetch_add(1, std::memory_order_relaxed) >= limit_) {
        waiting_.fetch_sub(1, std::memory_order_relaxed);
        mine.lose({&e, 1});
        continue;
      }
      const attachment inside = try_attach(strategy::temporary);
      if (!inside || !schedule(e, mine)) {
        waiting_.fetch_sub(1, std::memory_order_relaxed);
        mine.refuse({&e, 1});
      }
    }
  }

 private:
  // Fails when the loop is closed. The event is copied: if that happens it is still ours to refuse.
  [[nodiscard]] bool schedule(const event& what, event_stats& mine) const {
    mine.enter();
    try {
      const nb::handle call_soon_threadsafe = schedule_;
      call_soon_threadsafe(scheduled_event(what, python_, main_, waiting_));
      return true;
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("call_soon_threadsafe");
      return false;
    }
  }

  const handler& python_;
  PyObject* schedule_;
  event_stats& main_;
  std::atomic<std::size_t>& waiting_;
  std::size_t limit_;
};

}  // namespace

std::shared_ptr<delivery> scheduling(const handler& python, PyObject* call_soon_threadsafe,
                                     event_stats& main, std::atomic<std::size_t>& waiting,
                                     std::size_t limit) {
  return std::make_shared<scheduling_delivery>(python, call_soon_threadsafe, main, waiting, limit);
}

void bind_scheduled_event(nb::module_& module) {
  nb::class_<scheduled_event>(module, "ScheduledEvent",
                              "One event on its way through an asyncio loop: call it to deliver.")
      .def("__call__", &scheduled_event::run);
}

}  // namespace moored::lab
