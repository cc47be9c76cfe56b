// lab/native/server/server.hpp: the IO server as a whole: acceptor, IO threads, queue, main, and
// the running mode.
#pragma once

#include <Python.h>

#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "event_queue.hpp"
#include "handler.hpp"
#include "io_thread.hpp"
#include "main_thread.hpp"
#include "modes.hpp"
#include "wake_fd.hpp"

namespace moored::lab {

struct server_options {
  std::uint16_t port = 0;
  std::size_t threads = 1;
  std::size_t queue_limit = 65536;
  bool http = false;
  std::vector<int> watched;  // descriptors that end main's wait
};

// Made, used and destroyed by the main thread, attached.
class server {
 public:
  server(const server_options& options, const mode& first, PyObject* on_frame, PyObject* on_request,
         PyObject* call_soon_threadsafe);
  server(const server&) = delete;
  server& operator=(const server&) = delete;
  ~server();

  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
  [[nodiscard]] std::vector<pid_t> io_tids() const;
  [[nodiscard]] std::size_t connections() const;
  [[nodiscard]] std::size_t scheduled() const noexcept { return scheduled_.load(); }
  [[nodiscard]] int wake_descriptor() const noexcept { return main_wake_.fd(); }
  [[nodiscard]] int channel_descriptor() noexcept { return events_.told_by().fd(); }
  [[nodiscard]] main_thread& main() noexcept { return main_; }

  // Changes the mode while events arrive. Nothing is lost: each IO thread changes between two
  // deliveries, and what the old mode has left in the queue is delivered here.
  void switch_to(const mode& next);

  [[nodiscard]] server_stats stats() const;
  [[nodiscard]] latencies latency() const;

  // Takes every connection that a client has made so far, and no more after that.
  void stop_accepting();

  // Closes what is open and joins the IO threads. What is queued stays for main to drain.
  void stop();

 private:
  void accept();
  void adopt(io_thread& home, asio::ip::tcp::socket socket);
  [[nodiscard]] io_thread& next_thread() noexcept;
  [[nodiscard]] parts parts_for_delivery() noexcept;

  server_options options_;
  handler python_;
  PyObject* call_soon_threadsafe_;
  event_queue queue_;
  channel<event> events_;
  wake_fd main_wake_;
  event_stats main_stats_;
  event_stats channel_stats_;  // of the thread that runs the channel's handler: one at a time
  std::atomic<std::size_t> scheduled_{0};
  main_thread main_;
  std::vector<std::unique_ptr<io_thread>> threads_;
  std::optional<asio::ip::tcp::acceptor> acceptor_;  // runs on the first IO thread
  std::optional<asio::steady_timer> retry_;
  std::uint16_t port_ = 0;
  std::size_t next_ = 0;
};

}  // namespace moored::lab
