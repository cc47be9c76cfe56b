// lab/native/server/connection.cpp: the read loop that both protocols share.
#include "connection.hpp"

#include <asio/buffer.hpp>
#include <asio/error.hpp>
#include <cstring>

#include "io_thread.hpp"

namespace moored::lab {

void connection::read() {
  reading_ = true;
  socket_.async_read_some(
      asio::buffer(buffer_.data() + filled_, buffer_.size() - filled_),
      [self = shared_from_this()](const asio::error_code& error, std::size_t size) {
        self->reading_ = false;
        if (!error)
          self->on_read(size);
        else if (error == asio::error::eof)
          self->on_end();
        else
          self->close();
      });
}

void connection::on_read(std::size_t size) {
  filled_ += size;
  const std::size_t consumed = on_bytes({buffer_.data(), filled_});
  filled_ -= consumed;
  std::memmove(buffer_.data(), buffer_.data() + consumed, filled_);
  if (is_open() && wants_more()) read();
}

void connection::close() {
  if (!is_open()) return;
  asio::error_code ignored;  // what the peer thinks of it changes nothing
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  home_.forget(shared_from_this());
}

}  // namespace moored::lab
