// lab/native/load/peer.hpp: one connection to the server, with the frames that its socket has not
// taken yet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "../frame.hpp"
#include "../histogram.hpp"

namespace moored::lab {

class peer {
 public:
  // Connects to the loopback port, or throws std::system_error.
  explicit peer(std::uint16_t port);
  peer(peer&& other) noexcept;
  peer& operator=(peer&&) = delete;
  ~peer();

  void plan(const frame& next);

  // Writes what the socket takes, without waiting, and records how late each whole frame left.
  // False when the server has gone.
  [[nodiscard]] bool send(histogram& lateness);

  [[nodiscard]] bool has_backlog() const noexcept { return written_ < bytes_.size(); }
  [[nodiscard]] std::uint64_t sent() const noexcept { return sent_; }
  [[nodiscard]] std::uint64_t unsent() const noexcept { return planned_.size(); }
  [[nodiscard]] int fd() const noexcept { return fd_; }

 private:
  int fd_;
  std::vector<char> bytes_;  // planned frames; the first `written_` bytes are gone
  std::size_t written_ = 0;
  std::deque<std::int64_t> planned_;  // when each frame that is not wholly written was due
  std::size_t partial_ = 0;           // bytes written of the first of them
  std::uint64_t sent_ = 0;
};

}  // namespace moored::lab
