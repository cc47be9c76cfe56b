"""Ticks three times, and leaves a second ticker running when the program ends: that is safe."""

import threading

from ticker import Ticker

three = threading.Event()
local = threading.local()


def tick(count: int) -> None:
    """Print the count twice: the ticker's own, and one that lives in a threading.local."""
    local.count = getattr(local, "count", 0) + 1
    if count <= 3:
        print(f"tick {count}, seen {local.count}", flush=True)
    if count == 3:
        three.set()


ticker = Ticker(tick, seconds=0.01)
three.wait()
ticker.stop()
still_ticking = Ticker(lambda count: None, seconds=0.001)
