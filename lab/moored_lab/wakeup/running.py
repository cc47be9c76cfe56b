"""Running: the server in this process, and what its Python main thread does in each mode."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any

from moored_lab import _server
from moored_lab.wakeup import handler
from moored_lab.wakeup.loops import has_uvloop, new_uvloop

MS = 1_000_000
TICK_NS = 1_000_000_000 // 60
"""Main's own work comes once in a tick, as that of a game does, and fills its share of it."""
STOPPING_TURN_NS = 10 * MS


@dataclass(frozen=True)
class ServerOptions:
    """What the server is started with."""

    mode: str
    threads: int = 1
    port: int = 0
    queue: int = 65_536
    http: bool = False
    main_busy: float = 0.0
    """The share of its time, in percent, that main spends on Python work of its own."""


class RunningServer:
    """The native server with its main thread; make and use it on the main thread only.

    It ends by stop(), or at the end of a `with`, or in the worst case before the interpreter does.
    """

    def __init__(
        self, options: ServerOptions, handle: handler.FrameHandler, watched: Sequence[int]
    ) -> None:
        self._work = OwnWork(options.main_busy) if options.main_busy > 0 else None
        self._loop = asyncio.new_event_loop()
        self._uvloop = new_uvloop() if has_uvloop() else None
        self._watched = list(watched)
        try:
            self._native = _server.Server(
                mode=options.mode,
                on_frame=handle,
                on_request=handler.make_http(handle),
                call_soon_threadsafe=self._loop.call_soon_threadsafe,
                port=options.port,
                threads=options.threads,
                queue=options.queue,
                http=options.http,
                watched=self._watched,
            )
        except BaseException:
            for loop in self._loops:
                loop.close()
            raise
        # The IO threads must be gone when the interpreter goes, however it came to that.
        self._end_threads = self._native.stop
        atexit.register(self._end_threads)
        self.mode = options.mode
        for loop in self._loops:
            loop.add_reader(self._native.wake_fd, self._native.drain)
            loop.add_reader(self._native.channel_fd, self._native.drain)
            for fd in self._watched:
                loop.add_reader(fd, loop.stop)

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(patience_s=0)

    @property
    def _loops(self) -> list[asyncio.AbstractEventLoop]:
        return [self._loop] if self._uvloop is None else [self._loop, self._uvloop]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._native.port)

    @property
    def io_tids(self) -> list[int]:
        """The thread ids of the IO threads."""
        return list(self._native.io_tids)

    def stats(self) -> dict[str, int]:
        """Tell the sums: received = delivered + lost + refused + queued, at rest."""
        own_work = self._work.done if self._work else 0
        return dict(self._native.stats()) | {"own_work": own_work}

    def latency(self) -> dict[str, float]:
        """Tell the latencies of the running phase, in microseconds."""
        return dict(self._native.latency())

    def serve(self, until_ns: int | None = None) -> bool:
        """Deliver until that time (False), or until a watched descriptor is readable (True)."""
        if self.mode == "channel-uvloop":
            assert self._uvloop is not None
            return self._serve_in_loop(self._uvloop, until_ns)
        if self.mode.startswith("asyncio-") or self.mode == "channel-asyncio":
            return self._serve_in_loop(self._loop, until_ns)
        while True:
            due_ns = self._work.slice() if self._work else None
            if self._native.serve(_sooner(until_ns, due_ns)):
                return True
            if until_ns is not None and monotonic_ns() >= until_ns:
                return False

    def switch(self, mode: str) -> dict[str, Any]:
        """Change the mode under load; return the stats, and the phase that ended."""
        self._native.switch_to(mode)
        self.mode = mode
        # What the mode before has handed to the loop runs now, unless this one hands over more and
        # more: then it runs when this one is served.
        if mode != "asyncio-threadsafe":
            self._run_scheduled()
        return {"stats": self.stats(), "latency": dict(self._native.end_phase())}

    def stop(self, patience_s: float) -> None:
        """Take no new connection, let the clients finish in that time, deliver, and end.

        A second stop does nothing.
        """
        if self._loop.is_closed():
            return
        self._native.watch_nothing()
        while self._watched:
            fd = self._watched.pop()
            for loop in self._loops:
                loop.remove_reader(fd)
        self._native.stop_accepting()
        patience_ends = monotonic_ns() + round(patience_s * 1e9)
        while self._native.connections and monotonic_ns() < patience_ends:
            self.serve(monotonic_ns() + STOPPING_TURN_NS)
        self._deliver_rest()  # requests that wait for an answer get it while they can
        self._end_threads()
        self._deliver_rest()
        for loop in self._loops:
            loop.close()
        atexit.unregister(self._end_threads)

    def _deliver_rest(self) -> None:
        self._native.drain()
        self._run_scheduled()

    def _run_scheduled(self) -> None:
        """Run what the IO threads have handed to the loop, whichever mode it is now."""
        while self._native.scheduled:
            self._loop.call_soon(self._loop.stop)
            self._loop.run_forever()

    def _serve_in_loop(self, loop: asyncio.AbstractEventLoop, until_ns: int | None) -> bool:
        turn: asyncio.Handle | None = None

        def take_turn(work: OwnWork) -> None:
            nonlocal turn
            seconds = max(0, work.slice() - monotonic_ns()) / 1e9
            turn = loop.call_later(seconds, take_turn, work)

        if self._work:
            turn = loop.call_soon(take_turn, self._work)
        timed_out = False

        def time_out() -> None:
            nonlocal timed_out
            timed_out = True
            loop.stop()

        end = None
        if until_ns is not None:
            end = loop.call_later(max(0, until_ns - monotonic_ns()) / 1e9, time_out)
        loop.run_forever()
        for timer in (turn, end):
            if timer:
                timer.cancel()
        return not timed_out


class OwnWork:
    """Main's own Python work: 60 slices a second that fill a share of the wall time."""

    def __init__(self, percent: float) -> None:
        self._slice_ns = round(TICK_NS * percent / 100)
        self._due_ns = monotonic_ns()
        self.done = 0
        """Units of work, each as long as the others when it is not interrupted."""

    def slice(self) -> int:
        """Work for one slice, if it is time for it; return when the next one is due."""
        start = monotonic_ns()
        if start < self._due_ns:
            return self._due_ns
        end = start + self._slice_ns
        while monotonic_ns() < end:
            sum(range(50))
            self.done += 1
        # From the plan, not from now, so that the share holds; what was missed is not made up.
        self._due_ns = max(self._due_ns + TICK_NS, monotonic_ns())
        return self._due_ns


@contextlib.contextmanager
def signal_descriptor() -> Iterator[int]:
    """Turn SIGTERM and SIGINT into a descriptor that becomes readable, for all waits alike."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before_fd = signal.set_wakeup_fd(writing)
    stops = (signal.SIGTERM, signal.SIGINT)
    # While uvloop runs, the wakeup descriptor is its own; the handler is called all the same.
    before = {each: signal.signal(each, lambda *_: os.write(writing, b"s")) for each in stops}
    try:
        yield reading
    finally:
        for each, what in before.items():
            signal.signal(each, what)
        signal.set_wakeup_fd(before_fd)
        os.close(reading)
        os.close(writing)


def _sooner(a: int | None, b: int | None) -> int | None:
    return min(x for x in (a, b) if x is not None) if (a, b) != (None, None) else None
