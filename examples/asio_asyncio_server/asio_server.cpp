// Server(): a TCP server of lines. Asio reads and writes on a thread of its own; the lines reach
// Python in batches, and Python answers whenever it likes.
#include <moored/interop/nanobind.hpp>
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <asio.hpp>

#include <memory>
#include <string>
#include <thread>
#include <utility>

namespace nb = nanobind;
using asio::ip::tcp;

class connection;

// One line, which waits for its answer. It keeps its connection open.
struct request {
  std::shared_ptr<connection> from;
  std::string line;

  void answer(const nb::bytes& text) const;
};

// Used on the Asio thread only, but for answer().
class connection : public std::enable_shared_from_this<connection> {
 public:
  connection(tcp::socket socket, moored::channel<request> requests)
      : socket_(std::move(socket)), requests_(std::move(requests)) {}

  void read() {
    asio::async_read_until(
        socket_, asio::dynamic_buffer(received_), '\n',
        [me = shared_from_this()](const asio::error_code& ended, std::size_t size) {
          if (ended) return;
          std::string line = me->received_.substr(0, size - 1);
          me->received_.erase(0, size);
          me->requests_.send({me, std::move(line)});
          me->read();
        });
  }

  // Any thread: the text goes back to the Asio thread.
  void answer(std::string text) {
    asio::post(socket_.get_executor(), [me = shared_from_this(), text = std::move(text)]() mutable {
      me->answers_ += std::move(text);
      if (!me->writing_) me->write();
    });
  }

 private:
  void write() {
    writing_ = !answers_.empty();
    if (!writing_) return;
    auto sending = std::make_shared<std::string>(std::exchange(answers_, {}));
    asio::async_write(
        socket_, asio::buffer(*sending),
        [me = shared_from_this(), sending](const asio::error_code& ended, std::size_t) {
          if (!ended) me->write();
        });
  }

  tcp::socket socket_;
  moored::channel<request> requests_;
  std::string received_, answers_;
  bool writing_ = false;
};

void request::answer(const nb::bytes& text) const {
  from->answer(std::string(text.c_str(), text.size()) + '\n');
}

class server {
 public:
  server() : requests_({.name = "requests"}, moored::by_nanobind<request>) {
    accept();
    thread_ = std::jthread([this] { context_.run(); });
  }
  ~server() { stop(); }

  [[nodiscard]] int port() const { return acceptor_.local_endpoint().port(); }
  [[nodiscard]] nb::object capsule() const { return nb::steal(requests_.capsule()); }

  void stop() {
    requests_.close();
    context_.stop();
    const moored::detachment detached;
    if (thread_.joinable()) thread_.join();
  }

 private:
  void accept() {
    acceptor_.async_accept([this](const asio::error_code& ended, tcp::socket socket) {
      if (ended) return;
      std::make_shared<connection>(std::move(socket), requests_)->read();
      accept();
    });
  }

  asio::io_context context_{1};
  moored::channel<request> requests_;
  tcp::acceptor acceptor_{context_, {asio::ip::address_v4::loopback(), 0}};
  std::jthread thread_;
};

NB_MODULE(asio_server, m) {
  moored::open();
  nb::class_<request>(m, "Request")
      .def_ro("line", &request::line)
      .def("answer", &request::answer, "Send this line back. Any thread, at any time.");
  nb::class_<server>(m, "Server")
      .def(nb::init<>())
      .def_prop_ro("port", &server::port)
      .def("__moored_channel__", &server::capsule)
      .def("stop", &server::stop);
}
