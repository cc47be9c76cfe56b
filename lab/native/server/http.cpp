// lab/native/server/http.cpp: HTTP/1.1 requests as events: keep-alive, and pipelining with answers
// in order.
#include <asio/buffer.hpp>
#include <asio/post.hpp>
#include <asio/write.hpp>
#include <atomic>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "../clock.hpp"
#include "connection.hpp"
#include "event.hpp"
#include "http_parser.hpp"
#include "io_thread.hpp"

namespace moored::lab {

namespace {

using asio::ip::tcp;

// A connection stops reading while this many of its requests wait for their answers.
constexpr std::size_t most_unanswered = 1024;

[[nodiscard]] const char* reason(int status) noexcept {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    default:
      return "Service Unavailable";
  }
}

class http final : public connection {
 public:
  http(io_thread& home, tcp::socket socket) : connection(home, std::move(socket)) {}

 private:
  // One request, from parsing until its answer is written. It may outlive the connection.
  class exchange final : public request {
   public:
    exchange(std::weak_ptr<http> owner, parsed_request parsed)
        : owner_(std::move(owner)), parsed_(std::move(parsed)) {}

    [[nodiscard]] const std::string& method() const noexcept override { return parsed_.method; }
    [[nodiscard]] const std::string& path() const noexcept override { return parsed_.path; }

    void answer(int status, std::string body) override {
      status_ = status;
      body_ = std::move(body);
      answered_.store(true, std::memory_order_release);
      if (const auto owner = owner_.lock()) owner->write_soon();
    }

    [[nodiscard]] bool answered() const noexcept {
      return answered_.load(std::memory_order_acquire);
    }
    [[nodiscard]] bool last() const noexcept { return !parsed_.keep_alive; }

    void append_to(std::string& out) const {
      out += "HTTP/1.1 " + std::to_string(status_) + ' ' + reason(status_) +
             "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(body_.size()) +
             (last() ? "\r\nConnection: close\r\n\r\n" : "\r\nConnection: keep-alive\r\n\r\n");
      if (parsed_.method != "HEAD") out += body_;
    }

   private:
    std::weak_ptr<http> owner_;
    parsed_request parsed_;
    int status_ = 0;
    std::string body_;
    std::atomic<bool> answered_{false};
  };

  [[nodiscard]] std::shared_ptr<http> self() {
    return std::static_pointer_cast<http>(shared_from_this());
  }

  std::size_t on_bytes(std::span<const char> bytes) override {
    const int status =
        parser_.feed(bytes, [this](parsed_request parsed) { ask(std::move(parsed), events_); });
    home().deliver(events_);
    events_.clear();
    if (status != 0) reject(status);
    return bytes.size();
  }

  [[nodiscard]] bool wants_more() const override {
    return !ended_ && unanswered_.size() < most_unanswered;
  }

  void on_end() override {
    ended_ = true;
    write();
  }

  void ask(parsed_request parsed, std::vector<event>& events) {
    auto asked = std::make_shared<exchange>(self(), std::move(parsed));
    unanswered_.push_back(asked);
    events.push_back(
        {.sequence = sequence_++, .planned_ns = now_ns(), .request = std::move(asked)});
  }

  // A request that cannot be read is no event; it is answered in its turn, and ends the connection.
  void reject(int status) {
    ended_ = true;
    parsed_request unreadable{.method = "GET", .path = "", .keep_alive = false};
    auto asked = std::make_shared<exchange>(self(), std::move(unreadable));
    unanswered_.push_back(asked);
    asked->answer(status, std::string(reason(status)) + "\n");
  }

  // Any thread. A burst of answers makes one pass over the connection, as a burst of events makes
  // one wake.
  void write_soon() {
    if (!write_is_posted_.exchange(true))
      asio::post(home().context(), [me = self()] { me->write(); });
  }

  void write() {
    write_is_posted_.store(false);
    if (writing_ || !is_open()) return;
    bool last = false;
    while (!last && !unanswered_.empty() && unanswered_.front()->answered()) {
      last = unanswered_.front()->last();
      unanswered_.front()->append_to(out_);
      unanswered_.pop_front();
    }
    if (!out_.empty()) send(last);
    if (ended_ && !writing_ && unanswered_.empty()) close();
    if (is_open() && !is_reading() && wants_more()) read();
  }

  void send(bool last) {
    writing_ = true;
    asio::async_write(socket(), asio::buffer(out_),
                      [me = self(), last](const asio::error_code& error, std::size_t) {
                        me->writing_ = false;
                        me->out_.clear();
                        if (error || last)
                          me->close();
                        else
                          me->write();
                      });
  }

  http_parser parser_;
  std::uint64_t sequence_ = 0;
  std::deque<std::shared_ptr<exchange>> unanswered_;
  std::vector<event> events_;
  std::string out_;
  std::atomic<bool> write_is_posted_{false};
  bool ended_ = false;  // no further request will be read
  bool writing_ = false;
};

}  // namespace

std::shared_ptr<connection> http_connection(io_thread& home, tcp::socket socket) {
  return std::make_shared<http>(home, std::move(socket));
}

}  // namespace moored::lab
