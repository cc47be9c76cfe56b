// lab/native/server/server.cpp: accepting, handing out connections, switching modes and stopping.
#include "server.hpp"

#include <asio/packaged_task.hpp>
#include <asio/post.hpp>
#include <chrono>
#include <future>
#include <span>
#include <utility>

#include "connection.hpp"

namespace moored::lab {

using asio::ip::tcp;

server::server(const server_options& options, const mode& first, PyObject* on_frame,
               PyObject* on_request, PyObject* call_soon_threadsafe)
    : options_(options),
      python_(on_frame, on_request),
      call_soon_threadsafe_(call_soon_threadsafe),
      queue_(options.queue_limit),
      events_({.name = "lab",
               .capacity = options.queue_limit,
               .when_full = overflow::reject,
               .by = moored::delivery::poll}),
      main_(python_, queue_, events_, main_wake_, main_stats_, options.watched) {
  events_.on_batch([this](std::span<event> batch) {
    channel_stats_.enter();
    for (event& each : batch) python_.run(each, channel_stats_);
  });
  events_.listen(true);
  const auto shared = first.make(parts_for_delivery());
  for (std::size_t number = 0; number < options.threads; ++number)
    threads_.push_back(std::make_unique<io_thread>(number, shared));
  main_.idle_as(first.main);

  const tcp::endpoint here(asio::ip::address_v4::loopback(), options.port);
  acceptor_.emplace(threads_.front()->context(), here);
  retry_.emplace(threads_.front()->context());
  port_ = acceptor_->local_endpoint().port();
  Py_INCREF(call_soon_threadsafe_);
  asio::post(acceptor_->get_executor(), [this] { accept(); });
}

server::~server() {
  stop();
  Py_DECREF(call_soon_threadsafe_);
}

parts server::parts_for_delivery() noexcept {
  return {.python = python_,
          .queue = queue_,
          .events = events_,
          .main_wake = main_wake_,
          .main_stats = main_stats_,
          .call_soon_threadsafe = call_soon_threadsafe_,
          .scheduled = scheduled_,
          .limit = options_.queue_limit};
}

io_thread& server::next_thread() noexcept {
  return *threads_[next_++ % threads_.size()];
}

void server::accept() {
  io_thread& home = next_thread();
  acceptor_->async_accept(home.context(),
                          [this, &home](const asio::error_code& error, tcp::socket socket) {
                            if (!acceptor_->is_open()) return;
                            if (!error) {
                              adopt(home, std::move(socket));
                              accept();
                            } else {
                              // Out of descriptors, most likely: come back when some may be free,
                              // rather than spin.
                              retry_->expires_after(std::chrono::milliseconds(10));
                              retry_->async_wait([this](const asio::error_code& cancelled) {
                                if (!cancelled && acceptor_->is_open()) accept();
                              });
                            }
                          });
}

void server::adopt(io_thread& home, tcp::socket socket) {
  asio::error_code ignored;  // without it answers are only later
  socket.set_option(tcp::no_delay(true), ignored);
  home.expect_connection();
  asio::post(home.context(), [this, &home, peer = std::move(socket)]() mutable {
    home.adopt(options_.http ? http_connection(home, std::move(peer))
                             : frames_connection(home, std::move(peer)));
  });
}

std::vector<pid_t> server::io_tids() const {
  std::vector<pid_t> tids;
  for (const auto& thread : threads_) tids.push_back(thread->tid());
  return tids;
}

std::size_t server::connections() const {
  std::size_t all = 0;
  for (const auto& thread : threads_) all += thread->connections();
  return all;
}

void server::switch_to(const mode& next) {
  // Once prepared, a channel that enters is urgent as well, in modes that are to show it as it is
  // without: so there nothing may be spent on it.
  if (next.is_urgent) static_cast<void>(install(urgent));
  set_urgent_budget(next.is_urgent ? cpython::gil_budget::default_share : 0);
  const auto shared = next.make(parts_for_delivery());
  std::vector<std::future<void>> changed;
  for (const auto& thread : threads_)
    changed.push_back(
        asio::post(thread->context(),
                   std::packaged_task<void()>([shared, &io = *thread] { io.use(shared); })));
  {
    const detachment so_that_they_can_finish;
    for (const auto& each : changed) each.wait();
  }
  main_.idle_as(next.main);
  main_.drain();
}

server_stats server::stats() const {
  server_stats all;
  for (const auto& thread : threads_) thread->counted().add_to(all);
  main_stats_.add_to(all);
  channel_stats_.add_to(all);
  all.queued = queue_.size() + scheduled() + events_.stats().depth;
  return all;
}

latencies server::latency() const {
  latencies all;
  for (const auto& thread : threads_) thread->counted().add_to(all);
  main_stats_.add_to(all);
  channel_stats_.add_to(all);
  return all;
}

void server::stop_accepting() {
  if (!acceptor_ || !acceptor_->is_open()) return;
  auto done = asio::post(acceptor_->get_executor(), std::packaged_task<void()>([this] {
                           asio::error_code none_left;
                           acceptor_->non_blocking(true);
                           while (!none_left) {
                             io_thread& home = next_thread();
                             tcp::socket socket = acceptor_->accept(home.context(), none_left);
                             if (!none_left) adopt(home, std::move(socket));
                           }
                           acceptor_->close();
                           retry_->cancel();
                         }));
  const detachment so_that_it_can_finish;
  done.wait();
}

void server::stop() {
  stop_accepting();
  const detachment so_that_they_can_finish;
  for (const auto& thread : threads_) thread->stop();
}

}  // namespace moored::lab
