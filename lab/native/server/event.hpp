// lab/native/server/event.hpp: what a connection reads and a handler gets, whichever protocol it
// came by.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace moored::lab {

// A request that waits for its answer. What delivers (or loses) the event answers, once, from any
// thread.
class request {
 public:
  request() = default;
  request(const request&) = delete;
  request& operator=(const request&) = delete;
  virtual ~request() = default;

  [[nodiscard]] virtual const std::string& method() const noexcept = 0;
  [[nodiscard]] virtual const std::string& path() const noexcept = 0;
  virtual void answer(int status, std::string body) = 0;
};

struct event {
  std::uint64_t sequence = 0;
  std::int64_t planned_ns = 0;            // when it was due: latency counts from here
  std::shared_ptr<lab::request> request;  // null for a frame, which gets no answer
};

}  // namespace moored::lab
