// Stream(): a thread that plays a sound card: every 10 ms it has 480 samples for Python's meter. It
// never waits for another thread: when Python is late, the oldest block makes room.
#include <moored/moored.hpp>

#include <nanobind/nanobind.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <thread>

namespace nb = nanobind;

constexpr int rate = 48'000;
constexpr int samples = 480;
constexpr float amplitude = 0.5F;
using block = std::array<std::byte, samples * sizeof(float)>;

class stream {
 public:
  stream()
      : blocks_({.name = "audio", .capacity = 100, .when_full = moored::overflow::drop_oldest}),
        thread_([this](const std::stop_token& stop) { play(stop); }) {}
  ~stream() {
    thread_.request_stop();
    const moored::detachment detached;
    thread_.join();
  }

  [[nodiscard]] nb::object capsule() const { return nb::steal(blocks_.capsule()); }

 private:
  // What a sound card's callback does: no allocation, no GIL, no wait.
  void callback(int first) noexcept {
    block now;
    for (int i = 0; i < samples; ++i) {
      const float value = amplitude * std::sin(2.0F * 3.14159265F * 440.0F *
                                               static_cast<float>((first + i) % rate) / rate);
      std::memcpy(now.data() + static_cast<std::size_t>(i) * sizeof value, &value, sizeof value);
    }
    blocks_.try_send(now);
  }

  void play(const std::stop_token& stop) {
    auto due = std::chrono::steady_clock::now();
    for (int first = 0; !stop.stop_requested(); first = (first + samples) % rate) {
      due += std::chrono::microseconds(1'000'000LL * samples / rate);
      std::this_thread::sleep_until(due);
      callback(first);
    }
  }

  moored::channel<block> blocks_;
  std::jthread thread_;  // last: it uses the channel
};

NB_MODULE(audio, m) {
  moored::open();
  nb::class_<stream>(m, "Stream").def(nb::init<>()).def("__moored_channel__", &stream::capsule);
}
