// What a native thread waits for the GIL when it visits a Python that is busy.
#pragma once

#include <Python.h>

#include <atomic>
#include <cstdint>
#include <string_view>
#include <thread>

#include <moored/moored.hpp>

#include "../histogram.hpp"

namespace moored::lab {

// A native thread that wants to call a Python function so many times a second, until it is stopped.
// It does not make up for what it could not do in time.
class visits {
 public:
  // `way` is "ensure", "kept", "urgent" or "interrupt"; throws refused for one that cannot be had
  // here. The caller is attached, and `callback` outlives this.
  visits(std::string_view way, double rate, PyObject* callback);
  ~visits() { stop(); }
  visits(const visits&) = delete;
  visits& operator=(const visits&) = delete;

  // Ends the thread; the caller is attached.
  void stop();

  // From the wish to the call's first instruction.
  [[nodiscard]] latencies waits() const noexcept;

 private:
  void run(std::string_view way, std::int64_t gap_ns);
  void visit(std::string_view way);
  void interrupt();

  PyObject* callback_;
  channel<std::int64_t> events_;
  histogram waits_;
  std::atomic<std::uint64_t> answered_{0};
  std::atomic<bool> stops_{false};
  std::thread thread_;
};

}  // namespace moored::lab
