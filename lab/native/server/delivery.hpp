// lab/native/server/delivery.hpp: how the events that an IO thread has read reach the Python
// handler.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>

#include <moored/moored.hpp>

#include "event.hpp"
#include "stats.hpp"

namespace moored::lab {

class event_queue;
class handler;
class wake_fd;

// One way to deliver. IO threads share it and call it at the same time; each brings its own
// event_stats.
class delivery {
 public:
  delivery() = default;
  delivery(const delivery&) = delete;
  delivery& operator=(const delivery&) = delete;
  virtual ~delivery() = default;

  virtual void deliver(std::span<event> events, event_stats& mine) = 0;
};

// Reads and drops: the cost of the IO alone.
[[nodiscard]] std::shared_ptr<delivery> dropping();

// Leaves the events in the queue for the next thread that looks.
[[nodiscard]] std::shared_ptr<delivery> queueing(event_queue& queue);

// Queues, and wakes main if it may be asleep.
[[nodiscard]] std::shared_ptr<delivery> waking(event_queue& queue, wake_fd& main);

// Enters Python on the IO thread for each event, by the given strategy.
[[nodiscard]] std::shared_ptr<delivery> entering(strategy how, const handler& python);

// The same by its kept state, and asks a busy main for the GIL at once.
[[nodiscard]] std::shared_ptr<delivery> entering_urgently(const handler& python);

// Enters with the state of the idle main thread; while main is not idle, queues and wakes it.
[[nodiscard]] std::shared_ptr<delivery> borrowing(const handler& python, event_queue& queue,
                                                  wake_fd& main);

// Queues; the first thread in enters with its kept state and runs the events of all.
[[nodiscard]] std::shared_ptr<delivery> combining(const handler& python, event_queue& queue);
// The same, and asks a busy main for the GIL at once.
[[nodiscard]] std::shared_ptr<delivery> combining_urgently(const handler& python,
                                                           event_queue& queue);

// Sends each event into the channel, whose delivery is the mode's. What does not fit is lost.
[[nodiscard]] std::shared_ptr<delivery> sending(channel<event>& events);

// Hands each event to asyncio's call_soon_threadsafe, from a temporary state, as most bindings do
// today. `waiting` counts the events that the loop has not run yet; beyond `limit` they are lost.
[[nodiscard]] std::shared_ptr<delivery> scheduling(const handler& python,
                                                   PyObject* call_soon_threadsafe,
                                                   event_stats& main,
                                                   std::atomic<std::size_t>& waiting,
                                                   std::size_t limit);

}  // namespace moored::lab
