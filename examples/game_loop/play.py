"""A game loop of 60 ticks a second, each busy for 80 % of its time, and events from the network.

With "poll" the loop takes them once in a tick. With "interrupt" (Python 3.13 and later) they are
handled in the middle of the tick's work, between two bytecodes of the main thread.
"""

import statistics
import sys
import time

from network import Network

import moored

TICK_S = 1 / 60
TICKS = 30


def play(delivery: str) -> tuple[int, float]:
    """Play for half a second; give the number of events and their median latency in us."""
    network = Network(events_per_s=1_000)
    channel = moored.Channel(network)
    late_ns = []

    def on_events(times: list[int]) -> None:
        now = time.monotonic_ns()
        late_ns.extend(now - came for came in times)

    channel.on_batch(on_events, delivery)
    due = time.monotonic()
    for _ in range(TICKS):
        end_of_work = due + 0.8 * TICK_S
        while time.monotonic() < end_of_work:  # physics, scripts, animation
            pass
        channel.deliver()
        due += TICK_S
        time.sleep(max(0.0, due - time.monotonic()))
    network.stop()
    channel.deliver()
    assert channel.stats()["delivered"] == channel.stats()["sent"] == len(late_ns)
    return len(late_ns), statistics.median(late_ns) / 1000


for delivery in ("poll", "interrupt") if sys.version_info >= (3, 13) else ("poll",):
    events, median_us = play(delivery)
    print(f"{delivery}: {events} events, median latency {median_us:.0f} us")
