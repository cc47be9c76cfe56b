// lab/native/server/connection.hpp: one TCP connection on its IO thread: reading, and closing once.
#pragma once

#include <array>
#include <asio/ip/tcp.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

namespace moored::lab {

class io_thread;

// Lives while its IO thread lists it; used on that thread only, unless a member says otherwise.
class connection : public std::enable_shared_from_this<connection> {
 public:
  connection(io_thread& home, asio::ip::tcp::socket socket)
      : home_(home), socket_(std::move(socket)) {}
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  virtual ~connection() = default;

  void read();
  void close();

 protected:
  // Gets all bytes not consumed yet and says how many it consumed now.
  virtual std::size_t on_bytes(std::span<const char> bytes) = 0;

  // False stops reading; the connection calls read() when it wants more.
  [[nodiscard]] virtual bool wants_more() const { return true; }

  // The peer has sent all that it will send.
  virtual void on_end() { close(); }

  [[nodiscard]] io_thread& home() const noexcept { return home_; }
  [[nodiscard]] asio::ip::tcp::socket& socket() noexcept { return socket_; }
  [[nodiscard]] bool is_open() const noexcept { return socket_.is_open(); }
  [[nodiscard]] bool is_reading() const noexcept { return reading_; }

 private:
  void on_read(std::size_t size);

  io_thread& home_;
  asio::ip::tcp::socket socket_;
  std::array<char, 16 * 1024> buffer_;
  std::size_t filled_ = 0;
  bool reading_ = false;
};

[[nodiscard]] std::shared_ptr<connection> frames_connection(io_thread& home,
                                                            asio::ip::tcp::socket socket);
[[nodiscard]] std::shared_ptr<connection> http_connection(io_thread& home,
                                                          asio::ip::tcp::socket socket);

}  // namespace moored::lab
