// lab/native/server/io_thread.cpp: the life of an IO thread, and the change of its delivery.
#include "io_thread.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <asio/post.hpp>
#include <string>
#include <utility>

#include "connection.hpp"
#include "delivery.hpp"

namespace moored::lab {

io_thread::io_thread(std::size_t number, std::shared_ptr<delivery> first)
    : delivery_(std::move(first)), thread_([this, number] { run(number); }) {
  tid_.wait(0);
}

io_thread::~io_thread() {
  stop();
}

void io_thread::run(std::size_t number) noexcept {
  sigset_t all;  // signals are main's business
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pthread_setname_np(pthread_self(), ("moored-io-" + std::to_string(number)).c_str());
  tid_ = gettid();
  tid_.notify_one();
  context_.run();
}

void io_thread::stop() {
  if (!thread_.joinable()) return;
  asio::post(context_, [this] {
    const auto open_now = connections_;  // close() takes them out of the set
    for (const auto& peer : open_now) peer->close();
    work_.reset();
  });
  thread_.join();
}

void io_thread::adopt(std::shared_ptr<connection> peer) {
  peer->read();
  connections_.insert(std::move(peer));
}

void io_thread::forget(const std::shared_ptr<connection>& peer) {
  if (connections_.erase(peer) != 0) open_.fetch_sub(1);
}

void io_thread::deliver(std::span<event> events) {
  if (events.empty()) return;
  stats_.receive(events.size());
  delivery_->deliver(events, stats_);
}

void io_thread::use(std::shared_ptr<delivery> next) {
  delivery_ = std::move(next);
  // A state kept for the last mode would make the next mode's temporary states free of charge.
  release_thread();
}

}  // namespace moored::lab
