"""Channel: consume a native channel from plain Python or from an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypedDict, TypeVar, overload

from . import _core
from ._readiness import AsyncReadiness, block_until_ready, running_asyncio_loop
from ._readiness import find_readiness as _find_readiness

if TYPE_CHECKING:
    import asyncio

__all__ = ["Channel", "ChannelClosed", "ChannelStats", "Delivery"]

T = TypeVar("T")
Delivery = Literal["poll", "wake", "enter", "interrupt", "adaptive"]

_STATS = (
    "sent",
    "delivered",
    "dropped_oldest",
    "dropped_newest",
    "rejected",
    "refused",
    "unconvertible",
    "undelivered",
    "batches",
    "largest_batch",
    "wakes",
    "interrupts",
    "entries",
    "waits",
    "depth",
)


class ChannelClosed(Exception):
    """The channel is closed, and everything that was sent has been taken."""


class Dropped(TypedDict):
    """Events that did not reach Python, by reason."""

    oldest: int
    newest: int
    rejected: int
    refused: int
    unconvertible: int
    undelivered: int


class ChannelStats(TypedDict):
    """What has happened to a channel's events."""

    sent: int
    delivered: int
    dropped: Dropped
    batches: int
    largest_batch: int
    wakes: int
    interrupts: int
    entries: int
    waits: int
    depth: int


class HasChannel(Protocol):
    """What an extension shows instead of a bare capsule."""

    def __moored_channel__(self) -> object:
        """Return the capsule of channel<T>::capsule()."""
        ...


class Channel(Generic[T]):
    """A native channel's Python side.

    `source` is the capsule that the extension made by `channel.capsule()`, or an object whose
    `__moored_channel__()` returns one. Several of these may share a channel; each event goes to
    one of them.
    """

    def __init__(self, source: object) -> None:
        make = getattr(source, "__moored_channel__", None)
        self._native = _core.Channel(source if make is None else make())
        self._readiness: AsyncReadiness | None = None
        self._busy = False
        self._on_loop: _LoopDelivery | None = None

    # -- taking -----------------------------------------------------------------------------------

    def take(self, limit: int | None = None) -> list[T]:
        """Take what is queued now, at most `limit` events, in order. Does not wait."""
        if limit is not None and limit < 0:
            raise ValueError(f"limit {limit}: give 0 or more, or None for all")
        return self._native.take(-1 if limit is None else limit)

    def wait(self, timeout: float | None = None) -> bool:
        """Block, without the GIL, until there is something to take or the channel is closed.

        False when `timeout` (seconds) was over first. Signals are handled meanwhile.
        """
        return self._native.wait(timeout)

    def __iter__(self) -> Iterator[list[T]]:
        """Iterate over batches, blocking between them, until the channel is closed and empty."""
        while True:
            # Asked first: an event may come between the take and the close.
            closed = self._native.closed
            batch: list[T] = self._native.take(-1)
            if batch:
                yield batch
            elif closed:
                return
            else:
                block_until_ready(self._native)

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> list[T]:
        """Return the next batch. A cancellation here loses no event."""
        if self._busy:
            # There was no wait for the last batch, so nobody else has had a turn since.
            await self._here().checkpoint()
        batch = await self._take_async(-1)
        if not batch:
            raise StopAsyncIteration
        return batch

    async def get(self) -> T:
        """Return the next event; ChannelClosed after the last. A cancellation loses no event."""
        batch = await self._take_async(1)
        if not batch:
            raise ChannelClosed(f"channel {self.name!r} is closed")
        return batch[0]

    async def _take_async(self, limit: int) -> list[T]:
        # Nothing is awaited between the take that got something and the return: a cancellation can
        # only come while there is nothing to lose.
        self._busy = True
        while True:
            closed = self._native.closed
            batch: list[T] = self._native.take(limit)
            if batch or closed:
                return batch
            await self._here().wait()
            self._busy = False

    def _here(self) -> AsyncReadiness:
        self._readiness = _find_readiness(self._native, self._readiness)
        return self._readiness

    # -- handlers ---------------------------------------------------------------------------------

    @overload
    def on_batch(
        self,
        handler: Callable[[list[T]], object],
        delivery: Delivery = ...,
        *,
        hold: float | None = ...,
        linger: float | None = ...,
        loop: asyncio.AbstractEventLoop | None = ...,
    ) -> None: ...

    @overload
    def on_batch(self, handler: None) -> None: ...

    def on_batch(
        self,
        handler: Callable[[list[T]], object] | None,
        delivery: Delivery = "wake",
        *,
        hold: float | None = None,
        linger: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Have `handler` called with lists of events; None takes the handler away.

        `delivery` says by whom: "wake" by the asyncio loop (the running one, or `loop`), "enter" by
        the sending thread, "interrupt" by a main thread that is busy in Python, "adaptive" by
        whichever of these is cheapest now, "poll" by nobody but `deliver()`. The handler gets no
        further batch once it has held the GIL for `hold` seconds in one delivery. With "wake",
        `linger` collects events for so many seconds before a further batch.

        An exception goes to the loop's exception handler, or to sys.unraisablehook; the next batch
        comes all the same.
        """
        if handler is None:
            self._stop_loop()
            self._native.set_handler(None)
            return
        if not callable(handler):
            raise TypeError(f"the handler must be callable, not {type(handler).__name__}")
        if _is_async(handler):
            raise TypeError(
                "the handler is async, and nobody would await it: "
                "use `async for batch in channel`, or a plain function that starts a task"
            )
        loop = loop if loop is not None else running_asyncio_loop()
        if delivery == "wake" and loop is None:
            raise RuntimeError(
                "delivery 'wake' needs an event loop: call on_batch within it, give loop=, "
                "or choose 'enter'"
            )
        self._stop_loop()
        self._native.set_handler(None)
        self._native.deliver_by(delivery, hold, linger)
        if delivery in ("wake", "adaptive") and loop is not None:
            self._on_loop = _LoopDelivery(self._native, loop)
        self._native.set_handler(handler)

    def deliver(self) -> bool:
        """Run the handler on what is queued, within `hold`; True when something is left."""
        return self._native.deliver()

    @property
    def delivery(self) -> Delivery:
        """How events reach the handler. Can be set while events flow."""
        how: Delivery = self._native.delivery()[0]
        return how

    @delivery.setter
    def delivery(self, how: Delivery) -> None:
        self._native.deliver_by(how, None, None)

    def _stop_loop(self) -> None:
        if self._on_loop is not None:
            self._on_loop.stop()
            self._on_loop = None

    # -- the rest ---------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return a descriptor for an event loop: readable while there is something to take.

        Call `acknowledge()` when it is readable, before taking; never read it.
        """
        return self._native.fileno()

    def acknowledge(self) -> None:
        """Make the descriptor unreadable until the next wake."""
        self._native.acknowledge()

    def stats(self) -> ChannelStats:
        """Return what has happened to the channel's events so far.

        At rest, sent is the sum of delivered, depth and dropped oldest, unconvertible and
        undelivered.
        """
        n = dict(zip(_STATS, self._native.stats(), strict=True))
        return {
            "sent": n["sent"],
            "delivered": n["delivered"],
            "dropped": {
                "oldest": n["dropped_oldest"],
                "newest": n["dropped_newest"],
                "rejected": n["rejected"],
                "refused": n["refused"],
                "unconvertible": n["unconvertible"],
                "undelivered": n["undelivered"],
            },
            "batches": n["batches"],
            "largest_batch": n["largest_batch"],
            "wakes": n["wakes"],
            "interrupts": n["interrupts"],
            "entries": n["entries"],
            "waits": n["waits"],
            "depth": n["depth"],
        }

    @property
    def name(self) -> str:
        """What the extension called it."""
        return self._native.name

    @property
    def closed(self) -> bool:
        """Whether it refuses events. There may be some to take still."""
        return self._native.closed

    def close(self) -> None:
        """Refuse events from now on. What was sent before can still be taken."""
        self._native.close()

    def __enter__(self) -> Channel[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.delivery
        return f"<moored.Channel {self.name!r}, {state}, {self.stats()['depth']} queued>"


class _LoopDelivery:
    """Runs a channel's handler in an asyncio loop, when its descriptor says so."""

    def __init__(self, native: _core.Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._native = native
        self._loop = loop
        self._linger = native.delivery()[2]
        self._next = 0.0
        self._stopped = False
        loop.add_reader(native.fileno(), self._on_readable)
        native.listen(True)

    def stop(self) -> None:
        self._stopped = True
        self._native.listen(False)
        if not self._loop.is_closed():
            self._loop.remove_reader(self._native.fileno())

    def _on_readable(self) -> None:
        self._native.acknowledge()
        if self._linger and self._loop.time() < self._next:
            self._loop.call_at(self._next, self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        if self._stopped:
            return
        try:
            more = self._native.deliver()
        except Exception as error:
            self._loop.call_exception_handler(
                {
                    "message": f"the handler of channel {self._native.name!r} raised",
                    "exception": error,
                }
            )
            more = True
        if self._linger:
            self._next = self._loop.time() + self._linger
        if more:
            self._loop.call_soon(self._deliver)


def _is_async(handler: Callable[..., Any]) -> bool:
    # Not asyncio's own, which would import asyncio for programs that have no use for it.
    from inspect import iscoroutinefunction

    return iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__)
