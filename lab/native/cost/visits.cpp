#include "visits.hpp"

#include <time.h>

#include <memory>
#include <string>

#include "../clock.hpp"
#include "batch.hpp"
#include "entries.hpp"

namespace moored::lab {

namespace {

// Until the next visit is due, and gives when that was. A visit that was missed is left out: one
// right behind the other would find the GIL before main is awake, and no wait.
[[nodiscard]] std::int64_t sleep_until(std::int64_t due_ns, std::int64_t gap_ns) noexcept {
  const std::int64_t now = now_ns();
  if (now >= due_ns) due_ns = now + gap_ns;
  const timespec due = as_timespec(due_ns);
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, nullptr);
  return due_ns;
}

}  // namespace

visits::visits(std::string_view way, double rate, PyObject* callback) : callback_(callback) {
  if (way == "urgent") {
    const urgent_support support = install(urgent);
    if (support.by != urgent_means::request) throw refused(support.why);
  }
  if (way == "interrupt") {
    try {
      events_.deliver_by(delivery::interrupt);
    } catch (const unsupported& error) {
      throw refused(error.what());
    }
    events_.on_batch([this](view<std::int64_t> batch) {
      for (const std::int64_t sent : batch) {
        waits_.record(now_ns() - sent);
        call_python(callback_);
        answered_.fetch_add(1, std::memory_order_release);
      }
    });
  }
  thread_ = std::thread(&visits::run, this, way, static_cast<std::int64_t>(ns_per_s / rate));
}

void visits::stop() {
  if (!thread_.joinable()) return;
  stops_.store(true, std::memory_order_release);
  {
    const detachment so_that_it_can_finish;
    thread_.join();
  }
  events_.close();
}

latencies visits::waits() const noexcept {
  latencies all;
  waits_.add_to(all);
  return all;
}

void visits::run(std::string_view way, std::int64_t gap_ns) {
  for (std::int64_t due = now_ns() + gap_ns; !stops_.load(std::memory_order_acquire);
       due = sleep_until(due, gap_ns) + gap_ns)
    visit(way);
}

void visits::visit(std::string_view way) {
  if (way == "interrupt") return interrupt();
  const std::int64_t wished = now_ns();
  if (way == "ensure") {
    const PyGILState_STATE token = PyGILState_Ensure();
    waits_.record(now_ns() - wished);
    call_python(callback_);
    PyGILState_Release(token);
    return;
  }
  const attachment inside = way == "urgent" ? try_attach(urgent) : try_attach();
  if (!inside) return;
  waits_.record(now_ns() - wished);
  call_python(callback_);
}

// One at a time, as with the others: the next event is sent when main has taken this one.
void visits::interrupt() {
  const std::uint64_t before = answered_.load(std::memory_order_acquire);
  if (events_.send(now_ns()) != sent::queued) return;
  while (answered_.load(std::memory_order_acquire) == before &&
         !stops_.load(std::memory_order_acquire)) {
    const timespec moment{.tv_sec = 0, .tv_nsec = 20 * ns_per_us};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &moment, nullptr);
  }
}

}  // namespace moored::lab
