// lab/native/load/peer.cpp: connecting, and writing without ever waiting for the server.
#include "peer.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "../clock.hpp"

namespace moored::lab {

namespace {

[[nodiscard]] std::system_error failed(const char* what) {
  return {errno, std::system_category(), what};
}

}  // namespace

peer::peer(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (fd_ < 0) throw failed("socket");
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int on = 1;
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 ||
      ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
      ::fcntl(fd_, F_SETFL, O_NONBLOCK) != 0) {
    const auto error = failed("connect");
    ::close(fd_);
    throw error;
  }
}

peer::peer(peer&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      bytes_(std::move(other.bytes_)),
      written_(other.written_),
      planned_(std::move(other.planned_)),
      partial_(other.partial_),
      sent_(other.sent_) {}

peer::~peer() {
  if (fd_ >= 0) ::close(fd_);
}

void peer::plan(const frame& next) {
  const std::size_t at = bytes_.size();
  bytes_.resize(at + frame::size);
  next.put(std::span<char, frame::size>(bytes_.data() + at, frame::size));
  planned_.push_back(next.planned_ns);
}

bool peer::send(histogram& lateness) {
  while (has_backlog()) {
    const ssize_t took =
        ::send(fd_, bytes_.data() + written_, bytes_.size() - written_, MSG_NOSIGNAL);
    if (took < 0) return errno == EAGAIN || errno == EINTR;
    written_ += static_cast<std::size_t>(took);
    partial_ += static_cast<std::size_t>(took);
    const std::int64_t now = now_ns();
    for (; partial_ >= frame::size; partial_ -= frame::size) {
      lateness.record(now - planned_.front());
      planned_.pop_front();
      ++sent_;
    }
  }
  bytes_.clear();
  written_ = 0;
  return true;
}

}  // namespace moored::lab
