"""Watches: how the consumers of a channel in one event loop are told.

A loop has one watch for each descriptor that it watches, and all consumers in that loop share it:
no loop takes two readers for one descriptor. The loop alone keeps its watches, so that its end ends
them and gives their descriptors back. Each moored.Channel that waits in a loop has a seat at the
loop's watch; when the last seat is given up, the watch ends, too.

A channel that is closed is told of once. Nothing waits for it any more, so a watch that has heard
of the close tells its consumers, and ends.

The child of a fork inherits loops, whose epoll is the parent's. It leaves those alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from . import _core
from ._loops import NO_LOOP, current_gevent_hub, running_asyncio_loop, runs_trio

if TYPE_CHECKING:
    import asyncio

# Which channel, and whether it is the descriptor for its handler.
Key = tuple[int, bool]


W = TypeVar("W", bound="Watch")


class Delivery(Protocol):
    """What runs a channel's handler in a loop."""

    @property
    def is_direct(self) -> bool:
        """Whether the handler runs as soon as the descriptor is readable."""
        ...

    def on_readable(self) -> None:
        """Run the handler now or soon."""
        ...

    def on_left(self, error: BaseException | None) -> None:
        """Go on soon: the handler left something, or raised this."""
        ...

    def on_loop_end(self) -> None:
        """Have the handler run by others: the loop has gone."""
        ...


class Watch:
    """One descriptor in one loop, and the seats of the channels that use it."""

    def __init__(self, native: _core.Channel, for_handler: bool) -> None:
        self.descriptor = native.descriptor(not for_handler)
        self.ended = False
        self._seats: set[int] = set()
        self._process = os.getpid()
        if not native.can_subscribe:
            native.listen(True)  # so that an older moored tells of events that are polled for

    @property
    def is_inherited(self) -> bool:
        """Whether this is the child of a fork, and the watch is its parent's."""
        return os.getpid() != self._process

    @property
    def is_unused(self) -> bool:
        """Whether it can end."""
        return not self._seats

    def serves_here(self) -> bool:
        """Say whether it is a watch of the loop that runs now."""
        raise NotImplementedError

    def end(self) -> None:
        """Give the descriptor back. The loop's thread calls this."""
        raise NotImplementedError

    def end_soon(self) -> None:
        """End if it is not used. Any thread may call this."""
        raise NotImplementedError

    def take_seat(self, seat: int) -> None:
        """Add a seat."""
        self._seats.add(seat)

    def give_up_seat(self, seat: int) -> None:
        """Take a seat away. Any thread calls this, whichever collects a Channel."""
        self._seats.discard(seat)
        if self.is_unused and not self.ended and not self.is_inherited:
            self.end_soon()


class Seat(Generic[W]):
    """The place of one moored.Channel at a watch, which it does not keep."""

    def __init__(self, watch: W) -> None:
        self._watch = ref(watch)
        watch.take_seat(id(self))

    def watch_here(self) -> W | None:
        """Return its watch if that can be used by the loop that runs now."""
        watch = self._watch()
        return watch if watch is not None and not watch.ended and watch.serves_here() else None

    def __del__(self) -> None:
        watch = self._watch()
        if watch is not None:
            watch.give_up_seat(id(self))


class Seats:
    """The seats of one moored.Channel: one in each loop in which it waits."""

    def __init__(self, native: _core.Channel) -> None:
        self._native = native
        self._in_loops: WeakKeyDictionary[Any, Seat[AsyncioWatch] | Seat[TrioWatch]]
        self._in_loops = WeakKeyDictionary()
        self._last: Seat[AsyncioWatch] | Seat[TrioWatch] | None = None
        self._in_hubs: WeakKeyDictionary[Any, Seat[GeventWatch]] = WeakKeyDictionary()

    async def wait(self) -> None:
        """Return when there may be something to take, or the channel may be closed.

        Between the take that found nothing and this call, nothing else runs in the loop; an event
        that was sent since has made the descriptor readable.
        """
        watch = None if self._last is None else self._last.watch_here()
        if watch is None:
            watch = self._sit()
        await watch.wait()

    def block(self) -> None:
        """Block this thread, or, in a greenlet of gevent's, this greenlet alone."""
        hub = current_gevent_hub()
        if hub is None:
            self._native.wait(None)
            return
        seat = self._in_hubs.get(hub)
        watch = None if seat is None else seat.watch_here()
        if watch is None:
            watch = _gevent_watch(self._native, hub)
            self._in_hubs[hub] = Seat(watch)
        watch.wait()

    def give_up(self) -> None:
        """End the watches of the loop that runs now: the channel is closed and empty."""
        for seat in [*self._in_loops.values(), *self._in_hubs.values()]:
            watch = seat.watch_here()
            if watch is not None:
                watch.end()

    def _sit(self) -> AsyncioWatch | TrioWatch:
        loop = _current_trio_token() if runs_trio() else running_asyncio_loop()
        if loop is None:
            raise RuntimeError(NO_LOOP)
        seat = self._in_loops.get(loop)
        watch = None if seat is None else seat.watch_here()
        if watch is None:
            if runs_trio():
                watch = _trio_watch(self._native)
                seat = Seat(watch)
            else:
                watch = asyncio_watch(self._native, loop, False)
                seat = Seat(watch)
            self._in_loops[loop] = seat
        self._last = seat
        return watch


# -- asyncio and uvloop ---------------------------------------------------------------------------


class AsyncioWatch(Watch, _core.Reader):
    """A reader in an asyncio loop, as long as the loop lives: to register costs more than a wake.

    The loop calls it as it is, and a handler that is to run at once is run by native code. Nothing
    but the loop refers to this object for long. When the loop is closed it drops its callbacks and
    what they are called with, and so this ends.
    """

    def __init__(
        self, native: _core.Channel, loop: asyncio.AbstractEventLoop, for_handler: bool
    ) -> None:
        super().__init__(native, for_handler)
        _core.Reader.__init__(self, self.descriptor)
        # An extension with an older moored has one descriptor for waiters, too.
        self._has_no_waiters = for_handler and native.can_subscribe
        self._loop = loop
        self._waiters: set[asyncio.Future[None]] = set()
        self._delivery: Delivery | None = None
        self._fd = self.descriptor.fileno()
        loop.add_reader(self._fd, self)

    def on_told(self) -> None:
        """Wake those that wait, and have the handler run."""
        delivery = self._delivery
        if self.descriptor.channel_closed:
            self.end()
        else:
            self._wake()
        # What the handler raises may be kept for long, and keeps this frame.
        del self
        if delivery is not None:
            delivery.on_readable()

    def on_left(self, error: BaseException | None, /) -> None:
        """Have the delivery go on."""
        if self._delivery is not None:
            self._delivery.on_left(error)

    async def wait(self) -> None:
        """Return when the descriptor has been readable."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    @property
    def is_unused(self) -> bool:
        return super().is_unused and self._delivery is None

    def serves_here(self) -> bool:
        return running_asyncio_loop() is self._loop and not runs_trio()

    def deliver_to(self, delivery: Delivery | None) -> None:
        """Say what runs the handler; None for nothing."""
        self._delivery = delivery
        self.delivers = self._has_no_waiters and delivery is not None and delivery.is_direct
        if self.is_unused and not self.ended and not self.is_inherited:
            self.end_soon()

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._delivery = None
        self.delivers = False
        self._wake()
        if self.is_inherited:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self.descriptor.close()

    def end_soon(self) -> None:
        if running_asyncio_loop() is self._loop:
            self._end_if_unused()
        elif not self._loop.is_closed():
            with suppress(RuntimeError):  # it has been closed just now, and drops this
                self._loop.call_soon_threadsafe(self._end_if_unused)

    def _end_if_unused(self) -> None:
        if self.is_unused:
            self.end()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done() and not self._loop.is_closed():
                waiter.set_result(None)

    def __del__(self) -> None:
        # The loop was closed, or has gone. The descriptor ends with this object.
        delivery = getattr(self, "_delivery", None)
        if delivery is not None:
            delivery.on_loop_end()


_asyncio: WeakKeyDictionary[Any, WeakValueDictionary[Key, AsyncioWatch]] = WeakKeyDictionary()


def asyncio_watch(
    native: _core.Channel, loop: asyncio.AbstractEventLoop, for_handler: bool
) -> AsyncioWatch:
    """Return the loop's watch for the channel's consumers, or for its handler."""
    watches = _asyncio.get(loop)
    if watches is None:
        watches = _asyncio[loop] = WeakValueDictionary()
    # An extension with an older moored has one descriptor for both.
    key = native.key, for_handler and native.can_subscribe
    watch = watches.get(key)
    if watch is None or watch.ended or watch.is_inherited:
        watch = watches[key] = AsyncioWatch(native, loop, for_handler)
    return watch


# -- trio and gevent ------------------------------------------------------------------------------


class _TurnsWatch(Watch):
    """One waiter at a time watches the descriptor, and tells those that wait beside it.

    When it is cancelled, another one takes its turn.
    """

    def __init__(self, native: _core.Channel, forget: Callable[[], object]) -> None:
        super().__init__(native, False)
        self._forget = forget
        self._watching = False

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._forget()
        # The one that watches ends it when it has been told, which is about to happen: the channel
        # is closed. A descriptor is not closed while a loop watches it.
        if not self._watching and not self.is_inherited:
            self.descriptor.close()

    def end_soon(self) -> None:
        self.end()  # no task has the seat, so none waits, and no loop knows of the descriptor

    def _begin(self) -> None:
        self._watching = True

    def _stop(self) -> None:
        self._watching = False
        if self.ended and not self.is_inherited:
            self.descriptor.close()


class TrioWatch(_TurnsWatch):
    """The watch of a trio run. A system task keeps it, and ends it when the run ends."""

    def __init__(self, native: _core.Channel, forget: Callable[[], object]) -> None:
        super().__init__(native, forget)
        self._trio: Any = sys.modules["trio"]
        self._token = _current_trio_token()
        self._others = self._trio.lowlevel.ParkingLot()

    def serves_here(self) -> bool:
        return runs_trio() and _current_trio_token() is self._token

    async def wait(self) -> None:
        """Return when the descriptor has been readable, or another task is to watch it."""
        if self._watching:
            await self._others.park()
            return
        self._begin()
        try:
            await self._trio.lowlevel.wait_readable(self.descriptor.fileno())
            self.descriptor.acknowledge()
        finally:
            self._stop()
            self._others.unpark_all()


def _current_trio_token() -> Any:
    trio: Any = sys.modules["trio"]
    return trio.lowlevel.current_trio_token()


_trio: WeakKeyDictionary[Any, dict[Key, TrioWatch]] = WeakKeyDictionary()


async def _keep_until_the_run_ends(watches: dict[Key, TrioWatch]) -> None:
    trio: Any = sys.modules["trio"]
    try:
        await trio.sleep_forever()
    finally:
        for watch in list(watches.values()):
            watch.end()


def _trio_watch(native: _core.Channel) -> TrioWatch:
    token = _current_trio_token()
    watches = _trio.get(token)
    if watches is None:
        watches = _trio[token] = {}
        trio: Any = sys.modules["trio"]
        trio.lowlevel.spawn_system_task(_keep_until_the_run_ends, watches)
    key = native.key, False
    watch = watches.get(key)
    if watch is None or watch.is_inherited:
        watch = watches[key] = TrioWatch(native, lambda: watches.pop(key, None))
    return watch


class GeventWatch(_TurnsWatch):
    """The watch of a gevent hub, that is, of a thread. The hub's entry in the table keeps it."""

    def __init__(self, native: _core.Channel, hub: Any, forget: Callable[[], object]) -> None:
        # gevent loads its parts one by one, and need not have loaded this one.
        from importlib import import_module

        super().__init__(native, forget)
        self._hub = ref(hub)
        self._event: Any = import_module("gevent.event").Event
        self._told: Any = self._event()

    def serves_here(self) -> bool:
        hub = self._hub()
        return hub is not None and current_gevent_hub() is hub

    def wait(self) -> None:
        """Return when the descriptor has been readable, or another greenlet is to watch it."""
        if self._watching:
            self._told.wait()
            return
        hub: Any = self._hub()
        watcher = hub.loop.io(self.descriptor.fileno(), 1)
        self._begin()
        try:
            hub.wait(watcher)
            self.descriptor.acknowledge()
        finally:
            watcher.close()
            self._stop()
            told, self._told = self._told, self._event()
            told.set()


_gevent: WeakKeyDictionary[Any, dict[Key, GeventWatch]] = WeakKeyDictionary()


def _gevent_watch(native: _core.Channel, hub: Any) -> GeventWatch:
    watches = _gevent.get(hub)
    if watches is None:
        watches = _gevent[hub] = {}
    key = native.key, False
    watch = watches.get(key)
    if watch is None or watch.is_inherited:
        watch = watches[key] = GeventWatch(native, hub, lambda: watches.pop(key, None))
    return watch
