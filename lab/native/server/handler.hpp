// lab/native/server/handler.hpp: the Python functions that every mode calls, and the one place that
// calls them.
#pragma once

#include <Python.h>

#include <vector>

#include "event.hpp"
#include "event_queue.hpp"
#include "stats.hpp"

namespace moored::lab {

// Holds two Python callables: on_frame(sequence) and on_request(method, path, sequence) -> bytes.
// Made, used and destroyed by threads that are attached.
class handler {
 public:
  handler(PyObject* on_frame, PyObject* on_request);
  handler(const handler&) = delete;
  handler& operator=(const handler&) = delete;
  ~handler();

  // Delivers one event. A handler that raises is reported as unraisable; its event counts as
  // delivered.
  void run(event& what, event_stats& mine) const;

  // Delivers everything in the queue, as one entry. `batch` is scratch space that the caller keeps.
  void run_queued(event_queue& queue, std::vector<event>& batch, event_stats& mine) const;

 private:
  PyObject* on_frame_;
  PyObject* on_request_;
};

}  // namespace moored::lab
