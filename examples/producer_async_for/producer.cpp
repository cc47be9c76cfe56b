// Producer(messages, capacity): a thread that delivers messages, as a message broker's client does,
// and waits when its consumer is behind.
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>
#include <thread>

namespace nb = nanobind;

class producer {
 public:
  producer(std::int64_t messages, std::size_t capacity)
      : messages_({.name = "messages", .capacity = capacity, .when_full = moored::overflow::block}),
        thread_([this, messages] { produce(messages); }) {}
  ~producer() {
    messages_.close();  // it may be waiting for room
    const moored::detachment detached;
    thread_.join();
  }

  [[nodiscard]] nb::object capsule() const { return nb::steal(messages_.capsule()); }

 private:
  void produce(std::int64_t messages) {
    for (std::int64_t offset = 0; offset < messages; ++offset) {
      const std::string text = "message " + std::to_string(offset);
      const auto* const first = reinterpret_cast<const std::byte*>(text.data());
      if (messages_.send({offset, {first, first + text.size()}}) != moored::sent::queued) return;
    }
    messages_.close();
  }

  moored::channel<moored::message> messages_;
  std::jthread thread_;  // last: it uses the channel
};

NB_MODULE(producer, m) {
  moored::open();
  nb::class_<producer>(m, "Producer")
      .def(nb::init<std::int64_t, std::size_t>(), nb::arg("messages"), nb::arg("capacity"))
      .def("__moored_channel__", &producer::capsule);
}
