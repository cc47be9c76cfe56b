// lab/native/server/frames.cpp: the lab's own protocol: frames of 64 bytes, one event each, never
// answered.
#include <utility>
#include <vector>

#include "../frame.hpp"
#include "connection.hpp"
#include "event.hpp"
#include "io_thread.hpp"

namespace moored::lab {

namespace {

class frames final : public connection {
 public:
  using connection::connection;

 private:
  std::size_t on_bytes(std::span<const char> bytes) override {
    std::size_t consumed = 0;
    for (; bytes.size() - consumed >= frame::size; consumed += frame::size) {
      const frame got = frame::from(bytes.subspan(consumed).first<frame::size>());
      events_.push_back({.sequence = got.sequence, .planned_ns = got.planned_ns, .request = {}});
    }
    home().deliver(events_);
    events_.clear();
    return consumed;
  }

  std::vector<event> events_;
};

}  // namespace

std::shared_ptr<connection> frames_connection(io_thread& home, asio::ip::tcp::socket socket) {
  return std::make_shared<frames>(home, std::move(socket));
}

}  // namespace moored::lab
