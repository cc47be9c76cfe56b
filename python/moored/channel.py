"""Channel: consume a native channel from plain Python or from an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    cast,
    get_args,
    overload,
)

from . import _core
from ._loop_delivery import (
    LoopDelivery,
    current_delivery,
    has_handler,
    set_handler,
    stop_delivery,
)
from ._loops import let_others_run, running_asyncio_loop
from ._stats import ChannelStats
from ._watches import Seats

if TYPE_CHECKING:
    import asyncio

__all__ = ["Channel", "ChannelClosed", "Delivery"]

T = TypeVar("T")
Delivery = Literal["poll", "wake", "enter", "interrupt", "adaptive"]

# Why an event did not reach Python, and which of the channel's numbers says how many.
_DROPPED = {
    "oldest": "dropped_oldest",
    "newest": "dropped_newest",
    "rejected": "rejected",
    "refused": "refused",
    "unconvertible": "unconvertible",
    "undelivered": "undelivered",
}


class ChannelClosed(Exception):
    """The channel is closed, and everything that was sent has been taken."""


class HasChannel(Protocol):
    """What an extension shows instead of a bare capsule."""

    def __moored_channel__(self) -> object:
        """Return the capsule of channel<T>::capsule()."""
        ...


class Channel(Generic[T]):
    """A native channel's Python side.

    `source` is the capsule that the extension made by `channel.capsule()`, or an object whose
    `__moored_channel__()` returns one. Several of these may share a channel, in any mix of threads
    and event loops: all hear of events and of the close, and each event goes to one of them. The
    channel has one handler, the last that was set by any of them.
    """

    def __init__(self, source: object) -> None:
        make = getattr(source, "__moored_channel__", None)
        self._native = _core.Channel(source if make is None else make())
        self._seats = Seats(self._native)
        self._busy = False
        self._descriptor: _core.Descriptor | None = None

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
                self._seats.give_up()
                return
            else:
                self._seats.block()

    def __aiter__(self) -> Channel[T]:
        return self

    async def __anext__(self) -> list[T]:
        """Return the next batch. A cancellation here loses no event."""
        if self._busy:
            # There was no wait for the last batch, so no other task has had a turn since.
            await let_others_run()
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
            if batch:
                return batch
            if closed:
                self._seats.give_up()
                return batch
            await self._seats.wait()
            self._busy = False

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

        `delivery` says by what: "wake" by the asyncio loop (the running one, or `loop`), "enter" by
        the sending thread, "interrupt" by a main thread that is busy in Python, "adaptive" by
        whichever of these is cheapest now, "poll" by `deliver()` alone. The handler gets no
        further batch once it has held the GIL for `hold` seconds in one delivery. With "wake",
        `linger` collects events for so many seconds before a further batch.

        An exception goes to the loop's exception handler, or to sys.unraisablehook; the next batch
        comes all the same. KeyboardInterrupt and SystemExit end the loop's run, as from any other
        callback.

        The handler stays when this object goes, for as long as the channel can have events. A cycle
        of the two, as in `self.channel.on_batch(self.handle)`, is collected.
        """
        if handler is None:
            set_handler(self._native, None)
            stop_delivery(self._native)
            return
        if not callable(handler):
            raise TypeError(f"the handler must be callable, not {type(handler).__name__}")
        if _is_async(handler):
            raise TypeError(
                "the handler is async, and would not be awaited: "
                "use `async for batch in channel`, or a plain function that starts a task"
            )
        _check_delivery(delivery)
        _check_seconds("hold", hold)
        _check_seconds("linger", linger)
        if linger and delivery != "wake":
            raise ValueError(f"linger={linger!r}: delivery {delivery!r} has none, only 'wake' has")
        loop = loop if loop is not None else running_asyncio_loop()
        if delivery == "wake" and loop is None:
            self._need_own_loop()
        set_handler(self._native, None)
        stop_delivery(self._native)
        self._native.deliver_by(delivery, hold, linger)
        if delivery in _BY_LOOP and loop is not None:
            LoopDelivery(self._native, loop)
        set_handler(self._native, handler)

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
        _check_delivery(how)
        if how in _BY_LOOP and has_handler(self._native) and current_delivery(self._native) is None:
            loop = running_asyncio_loop()
            if loop is not None:
                LoopDelivery(self._native, loop)
            elif how == "wake":
                self._need_own_loop()
        self._native.deliver_by(how, None, None)

    def _need_own_loop(self) -> None:
        if self._descriptor is None:
            raise RuntimeError(
                "delivery 'wake' needs an event loop: call on_batch within it, give loop=, "
                "watch fileno() yourself, or choose 'enter'"
            )

    # -- the rest ---------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Return a descriptor for an event loop of your own: readable when there are new events.

        It is this object's own, and ends with it. Call `acknowledge()` when it is readable, before
        taking; never read it. It is readable, too, when the channel has been closed.
        """
        if self._descriptor is None:
            self._descriptor = self._native.descriptor(True)
        return self._descriptor.fileno()

    def acknowledge(self) -> None:
        """Make the descriptor unreadable until the next event."""
        if self._descriptor is not None:
            self._descriptor.acknowledge()

    def stats(self) -> ChannelStats:
        """Return what has happened to the channel's events so far.

        At rest, sent is the sum of delivered, depth and dropped oldest, unconvertible and
        undelivered.
        """
        numbers: dict[str, Any] = self._native.stats()
        dropped = {reason: numbers.pop(key) for reason, key in _DROPPED.items()}
        return cast("ChannelStats", {"dropped": dropped, **numbers})

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


_BY_LOOP = ("wake", "adaptive")


def _check_delivery(how: str) -> None:
    if how not in get_args(Delivery):
        raise ValueError(
            f"unknown delivery {how!r}: choose poll, wake, enter, interrupt or adaptive"
        )


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not seconds >= 0:  # nan is not either
        raise ValueError(f"{name}={seconds!r}: give a number of seconds, 0 or more, or None")


def _is_async(handler: Callable[..., Any]) -> bool:
    # Not asyncio's own, which would import asyncio for programs that have no use for it.
    from inspect import iscoroutinefunction

    return iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__)
