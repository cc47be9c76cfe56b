// Network(events_per_s): a thread that receives events, as a game's network thread does; each is
// the time at which it came, in ns of the monotonic clock.
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>

#include <chrono>
#include <cstdint>
#include <thread>

namespace nb = nanobind;

class network {
 public:
  explicit network(int events_per_s)
      : events_({.name = "network", .by = moored::delivery::poll}),
        thread_(
            [this, events_per_s](const std::stop_token& stop) { receive(stop, events_per_s); }) {}
  ~network() { stop(); }

  void stop() {
    thread_.request_stop();
    const moored::detachment detached;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] nb::object capsule() const { return nb::steal(events_.capsule()); }

 private:
  void receive(const std::stop_token& stop, int events_per_s) {
    auto due = std::chrono::steady_clock::now();
    while (!stop.stop_requested()) {
      due += std::chrono::nanoseconds(1'000'000'000 / events_per_s);
      std::this_thread::sleep_until(due);
      events_.send(std::chrono::steady_clock::now().time_since_epoch().count());
    }
  }

  moored::channel<std::int64_t> events_;
  std::jthread thread_;  // last: it uses the channel
};

NB_MODULE(network, m) {
  moored::open();
  nb::class_<network>(m, "Network")
      .def(nb::init<int>(), nb::arg("events_per_s"))
      .def("stop", &network::stop)
      .def("__moored_channel__", &network::capsule);
}
