// lab/native/server/io_thread.hpp: one native thread with its own io_context, connections,
// event_stats and delivery.
#pragma once

#include <sys/types.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <thread>
#include <unordered_set>

#include "event.hpp"
#include "stats.hpp"

namespace moored::lab {

class connection;
class delivery;

class io_thread {
 public:
  io_thread(std::size_t number, std::shared_ptr<delivery> first);
  io_thread(const io_thread&) = delete;
  io_thread& operator=(const io_thread&) = delete;
  ~io_thread();

  // Any thread.
  [[nodiscard]] asio::io_context& context() noexcept { return context_; }
  [[nodiscard]] const event_stats& counted() const noexcept { return stats_; }
  [[nodiscard]] pid_t tid() const noexcept { return tid_; }
  [[nodiscard]] std::size_t connections() const noexcept { return open_.load(); }
  void expect_connection() noexcept { open_.fetch_add(1); }

  // Closes all connections and ends the thread. The caller must not hold the GIL: the thread may be
  // waiting for it.
  void stop();

  // This thread only.
  void adopt(std::shared_ptr<connection> peer);
  void forget(const std::shared_ptr<connection>& peer);
  void deliver(std::span<event> events);
  void use(std::shared_ptr<delivery> next);

 private:
  void run(std::size_t number) noexcept;

  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_{context_.get_executor()};
  std::shared_ptr<delivery> delivery_;
  event_stats stats_;
  std::unordered_set<std::shared_ptr<connection>> connections_;
  std::atomic<std::size_t> open_{0};
  std::atomic<pid_t> tid_{0};
  std::thread thread_;
};

}  // namespace moored::lab
