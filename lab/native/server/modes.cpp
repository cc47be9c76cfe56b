// lab/native/server/modes.cpp: the table of modes.
#include "modes.hpp"

#include <algorithm>
#include <array>

#include "../clock.hpp"

namespace moored::lab {

namespace {

using made = std::shared_ptr<delivery>;

made drop(const parts&) {
  return dropping();
}
made queue(const parts& p) {
  return queueing(p.queue);
}
made wake(const parts& p) {
  return waking(p.queue, p.main_wake);
}
made borrow(const parts& p) {
  return borrowing(p.python, p.queue, p.main_wake);
}
made combine(const parts& p) {
  return combining(p.python, p.queue);
}
made enter_urgently(const parts& p) {
  return entering_urgently(p.python);
}
made combine_urgently(const parts& p) {
  return combining_urgently(p.python, p.queue);
}
made schedule(const parts& p) {
  return scheduling(p.python, p.call_soon_threadsafe, p.main_stats, p.scheduled, p.limit);
}
template <strategy how>
made enter(const parts& p) {
  return entering(how, p.python);
}

template <moored::delivery how>
made send(const parts& p) {
  p.events.deliver_by(how);
  return sending(p.events);
}

constexpr idling until_woken{};
constexpr idling lending_its_state{.poll_every_ns = {}, .lends = true};
constexpr idling poll_every(std::int64_t ms) {
  return {.poll_every_ns = ms * ns_per_ms, .lends = false};
}

// In the asyncio and uvloop modes main runs a loop instead of idling here; `asyncio-reader` differs
// from `wake` in that, and `channel-asyncio` from `channel-wake`. An idle main does not see an
// interrupt, so there it looks by itself as well.
constexpr std::array all_modes{
    mode{"null", drop, until_woken},
    mode{"poll15", queue, poll_every(15)},
    mode{"poll5", queue, poll_every(5)},
    mode{"poll1", queue, poll_every(1)},
    mode{"wake", wake, until_woken},
    mode{"temporary", enter<strategy::temporary>, until_woken},
    mode{"kept", enter<strategy::kept>, until_woken},
    mode{"kept-urgent", enter_urgently, until_woken, true},
    mode{"shared", enter<strategy::shared>, until_woken},
    mode{"borrowed", borrow, lending_its_state},
    mode{"enter", combine, until_woken},
    mode{"enter-urgent", combine_urgently, until_woken, true},
    mode{"asyncio-threadsafe", schedule, until_woken},
    mode{"asyncio-reader", wake, until_woken},
    mode{"channel-poll", send<moored::delivery::poll>, poll_every(15)},
    mode{"channel-wake", send<moored::delivery::wake>, until_woken},
    mode{"channel-enter", send<moored::delivery::enter>, until_woken},
    mode{"channel-interrupt", send<moored::delivery::interrupt>, poll_every(15)},
    mode{"channel-adaptive", send<moored::delivery::adaptive>, until_woken},
    mode{"channel-asyncio", send<moored::delivery::wake>, until_woken},
    mode{"channel-uvloop", send<moored::delivery::wake>, until_woken},
};

}  // namespace

std::span<const mode> modes() noexcept {
  return all_modes;
}

const mode* mode_named(std::string_view name) noexcept {
  const auto found = std::ranges::find(all_modes, name, &mode::name);
  return found == all_modes.end() ? nullptr : &*found;
}

}  // namespace moored::lab
