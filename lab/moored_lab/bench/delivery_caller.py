"""Measure one way to deliver, in a process of its own: one order in argv, one line of JSON out.

Runs on the measured interpreter. The peers lie in a folder of packages that is looked at last.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

order = json.loads(sys.argv[1])
sys.path.insert(0, order["modules"])
sys.path.append(order["packages"])

from delivery_load import Load, batch_ns, send_ns  # type: ignore[import-not-found]  # noqa: E402

import moored  # noqa: E402
from moored_lab.wakeup.handler import calibrate  # noqa: E402

Event = Any
PATIENCE_S = 10.0
"""On a busy machine the first event may come after the time that was asked for."""


class Measured:
    """The handler's side: how many, how late, and when it is over."""

    def __init__(self, load: Any) -> None:
        self._load = load
        self._done = load.done
        self._work = calibrate(order["handler_us"]).handle if order["handler_us"] else None
        self._timed = bool(order["rate"])
        self.late_ns: list[int] = []
        self._begun = self._end = self._cpu = 0.0

    def start(self, way: str, target: object = None, before: object = None) -> None:
        """Start the senders, and the time."""
        self._cpu, self._begun = time.process_time(), time.monotonic()
        self._end = self._begun + float(order["seconds"])
        self._load.start(way, target, before, order["senders"], order["wide"], order["rate"])

    def rest(self) -> float:
        """Give the seconds that are left, or the time until the next look."""
        return max(self._end - time.monotonic(), 0.001)

    def over(self) -> bool:
        """Say whether the time is up; it goes on for a while when nothing has come yet."""
        late = time.monotonic() - self._end
        _, done = self._load.counts()
        return late >= PATIENCE_S or (late >= 0 and bool(done))

    def told(self) -> dict[str, float | None]:
        """Say what has been measured since the start."""
        seconds = time.monotonic() - self._begun
        cpu = time.process_time() - self._cpu
        _, done = self._load.counts()
        late = sorted(self.late_ns)
        return {
            "events_per_s": done / seconds,
            "cpu_percent": 100 * cpu / seconds,
            "cpu_ns": 1e9 * cpu / max(done, 1),
            "p50_us": late[len(late) // 2] / 1000 if late else None,
            "p99_us": late[len(late) * 99 // 100] / 1000 if late else None,
        }

    def one(self, event: Event) -> None:
        """Handle one event."""
        if self._timed:
            self.late_ns.append(time.monotonic_ns() - event)
        if self._work is not None:
            self._work(event)
        self._done(1)

    def batch(self, events: Sequence[Event]) -> None:
        """Handle a batch: as one() does, event by event, if there is work to do."""
        timed, work = self._timed, self._work
        if timed or work is not None:
            for event in events:
                if timed:
                    self.late_ns.append(time.monotonic_ns() - event)
                if work is not None:
                    work(event)
        self._done(len(events))


def idle(measured: Measured, start: Callable[[], None]) -> None:
    """Sleep, while the senders run the handler."""
    start()
    while not measured.over():
        time.sleep(measured.rest())


def ensure(load: Any, measured: Measured) -> None:
    """Attach by a temporary state for each event."""
    idle(measured, lambda: measured.start("ensure", measured.one))


def kept(load: Any, measured: Measured) -> None:
    """Attach by a kept state for each event."""
    idle(measured, lambda: measured.start("kept", measured.one))


def enter(load: Any, measured: Measured) -> None:
    """Let one sender run the handler for all."""
    channel_of(load).on_batch(measured.batch, "enter")
    idle(measured, lambda: measured.start("channel"))


def adaptive(load: Any, measured: Measured) -> None:
    """Let the channel choose."""
    channel_of(load).on_batch(measured.batch, "adaptive")
    idle(measured, lambda: measured.start("channel"))


def wake(load: Any, measured: Measured) -> None:
    """Wait in a plain thread, and take."""
    channel = channel_of(load)
    measured.start("channel")
    while not measured.over():
        if channel.wait(measured.rest()):
            measured.batch(channel.take())


def poll(load: Any, measured: Measured) -> None:
    """Look every millisecond."""
    channel = channel_of(load)
    channel.delivery = "poll"
    measured.start("channel")
    while not measured.over():
        measured.batch(channel.take())
        time.sleep(0.001)


def nothing_woken(load: Any, measured: Measured) -> None:
    """Look so seldom that wakes cost nothing; what is left are the senders and the handler."""
    channel = channel_of(load)
    channel.delivery = "poll"
    measured.start("channel")
    while not measured.over():
        time.sleep(min(measured.rest(), 0.05))
        measured.batch(channel.take())
    measured.batch(channel.take())


def simple_queue(load: Any, measured: Measured) -> None:
    """Put each event into a queue of Python."""
    import queue

    waiting: queue.SimpleQueue[Event] = queue.SimpleQueue()
    measured.start("kept", waiting.put)
    while not measured.over():
        try:
            measured.one(waiting.get(timeout=0.05))
        except queue.Empty:
            continue


def zeromq(load: Any, measured: Measured) -> None:
    """Send each event through a socket in the process."""
    import struct

    zmq: Any = import_module("zmq")
    context = zmq.Context()
    pull = context.socket(zmq.PULL)
    pull.bind("inproc://events")
    pack, unpack = struct.Struct("q").pack, struct.Struct("q").unpack
    wide = order["wide"]
    here = threading.local()  # a socket belongs to one thread

    def send(event: Event) -> None:
        try:
            push = here.push
        except AttributeError:
            push = here.push = context.socket(zmq.PUSH)
            push.connect("inproc://events")
        push.send(event if wide else pack(event))

    measured.start("kept", send)
    while not measured.over():
        if pull.poll(50):
            event = pull.recv()
            measured.one(event if wide else unpack(event)[0])


ASYNCIO = "asyncio.new_event_loop"
UVLOOP = "uvloop.new_event_loop"
EVENT_LOOP = "moored.EventLoop"


def in_loop(maker: str, serve: Callable[[Any, Measured, Any], Any]) -> Callable[..., None]:
    """Run it in an event loop for the time."""

    def run(load: Any, measured: Measured) -> None:
        import asyncio

        async def main() -> None:
            loop = asyncio.get_running_loop()
            task = serve(load, measured, loop)
            if task is not None:
                task = asyncio.ensure_future(task)
                await asyncio.sleep(0)  # it starts the senders
            while not measured.over():
                await asyncio.sleep(measured.rest())
            if task is not None:
                task.cancel()

        module, _, name = maker.rpartition(".")
        make: Callable[[], Any] = getattr(import_module(module), name)
        make().run_until_complete(main())
        load.stop()

    return run


def threadsafe(way: str) -> Callable[[Any, Measured, Any], Any]:
    """Hand each event to the loop."""

    def serve(load: Any, measured: Measured, loop: Any) -> None:
        measured.start(way, loop.call_soon_threadsafe, measured.one)

    return serve


def on_batch(load: Any, measured: Measured, loop: Any) -> None:
    """Have the loop run the handler for batches."""
    channel_of(load).on_batch(measured.batch)
    measured.start("channel")


async def async_for(load: Any, measured: Measured, loop: Any) -> None:
    """Iterate in the loop."""
    channel = channel_of(load)
    measured.start("channel")
    async for events in channel:
        measured.batch(events)


async def janus_queue(load: Any, measured: Measured, loop: Any) -> None:
    """Put each event into a queue of janus."""
    queue: Any = import_module("janus").Queue()
    measured.start("kept", queue.sync_q.put)
    while True:
        measured.one(await queue.async_q.get())


async def culsans_queue(load: Any, measured: Measured, loop: Any) -> None:
    """Put each event into a queue of culsans."""
    queue: Any = import_module("culsans").Queue()
    measured.start("kept", queue.sync_q.put)
    while True:
        measured.one(await queue.async_q.get())


WAYS: dict[str, Callable[[Any, Measured], None]] = {
    "base": nothing_woken,
    "ensure": ensure,
    "kept": kept,
    "asyncio_ensure": in_loop(ASYNCIO, threadsafe("ensure")),
    "asyncio_kept": in_loop(ASYNCIO, threadsafe("kept")),
    "uvloop_ensure": in_loop(UVLOOP, threadsafe("ensure")),
    "uvloop_kept": in_loop(UVLOOP, threadsafe("kept")),
    "channel_asyncio": in_loop(ASYNCIO, on_batch),
    "channel_event_loop": in_loop(EVENT_LOOP, on_batch),
    "channel_async_for": in_loop(ASYNCIO, async_for),
    "channel_uvloop": in_loop(UVLOOP, on_batch),
    "channel_wake": wake,
    "channel_enter": enter,
    "channel_adaptive": adaptive,
    "channel_poll": poll,
    "simple_queue": simple_queue,
    "janus": in_loop(ASYNCIO, janus_queue),
    "culsans": in_loop(ASYNCIO, culsans_queue),
    "zeromq": zeromq,
}

_channels: list[Any] = []


def channel_of(load: Any) -> Any:
    """Give the load's channel its Python side, and keep it."""
    channel: Any = moored.Channel(load.capsule(order["wide"]))
    _channels.append(channel)
    return channel


def costs() -> dict[str, Any]:
    """Measure what one send costs, and one event of a batch, in several interleaved rounds."""
    rounds: dict[str, Any] = {"send": {}, "batch": []}
    for _ in range(order["rounds"]):
        for wide in (0, 1):
            for senders in (1, 2, 8):
                told = send_ns(senders, wide, 200_000 // senders)
                rounds["send"].setdefault(f"{senders} {wide}", []).append(told)
        rounds["batch"].append(batch_ns(lambda events: None, 2_000))
    return rounds


def main() -> None:
    """Measure, and say so; then leave as fast as one can, whatever peers have left running."""
    if order["way"] == "costs":
        print(json.dumps(costs()), flush=True)
        return
    load = Load()
    measured = Measured(load)
    WAYS[order["way"]](load, measured)
    print(json.dumps(measured.told()), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
