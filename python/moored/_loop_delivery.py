"""A channel's handler, and running it in an asyncio loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

from ._loops import running_asyncio_loop
from ._watches import AsyncioWatch, asyncio_watch

if TYPE_CHECKING:
    import asyncio

    from . import _core

# A channel has one handler, and one loop at most runs it. The loop keeps the delivery.
_current: WeakValueDictionary[int, LoopDelivery] = WeakValueDictionary()
# What the channels keep for the handlers that were set from Python.
_handlers: WeakValueDictionary[int, Any] = WeakValueDictionary()


def set_handler(native: _core.Channel, handler: Callable[[list[Any]], object] | None) -> None:
    """Give the channel its handler, or take it away."""
    link = native.set_handler(handler)
    if link is None:
        _handlers.pop(native.key, None)
    else:
        _handlers[native.key] = link


def has_handler(native: _core.Channel) -> bool:
    """Say whether the channel has a handler, whichever moored.Channel set it."""
    return native.key in _handlers


class LoopDelivery:
    """Runs a channel's handler in a loop, when the handler's descriptor says so."""

    def __init__(self, native: _core.Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._native = native
        self._loop = loop
        self._linger: float = native.delivery()[2]
        self._next = -math.inf
        self._stopped = False
        self._watch: ref[AsyncioWatch] | None = None
        self._next_turn: Any = None
        if running_asyncio_loop() is loop:
            self._start()
        else:  # a loop's readers are its own thread's
            loop.call_soon_threadsafe(self._start)
        _current[native.key] = self

    def serves(self) -> bool:
        """Say whether its loop is there still."""
        return not self._stopped and not self._loop.is_closed()

    def stop(self) -> None:
        """Run the handler no more. Any thread may call this."""
        if self._stopped:
            return
        self._stopped = True
        if _current.get(self._native.key) is self:
            del _current[self._native.key]
            self._native.listen(False)
        watch = None if self._watch is None else self._watch()
        if watch is not None:
            watch.deliver_to(None)

    def on_loop_end(self) -> None:
        """Tell the channel that the loop has gone, so that `adaptive` enters from now on."""
        self._watch = None
        self.stop()

    @property
    def is_direct(self) -> bool:
        """Whether it delivers as soon as the descriptor is readable."""
        return not self._linger

    def on_readable(self) -> None:
        """Deliver, or, while it lingers, deliver later."""
        if self._linger and self._loop.time() < self._next:
            self._loop.call_at(self._next, self._deliver)
        else:
            self._deliver()

    def _start(self) -> None:
        if self._stopped:
            return
        if self._native.closed:  # nothing is told any more; what is queued is still delivered
            self._loop.call_soon(self._deliver)
            return
        watch = asyncio_watch(self._native, self._loop, True)
        watch.deliver_to(self)
        self._watch = ref(watch)
        self._native.listen(True)

    def _deliver(self) -> None:
        if self._stopped:
            return
        more = True  # also when the handler raises, whatever it raises
        try:
            more = self._native.deliver()
        except (SystemExit, KeyboardInterrupt):
            raise  # they end the loop's run, as from any other callback
        except BaseException as error:
            self._report(error)
        finally:
            if self._linger:
                self._next = self._loop.time() + self._linger
            if more:
                self._deliver_soon()

    def on_left(self, error: BaseException | None) -> None:
        """Go on: a delivery by native code has left something, or the handler raised this."""
        try:
            if error is not None:
                self._report(error)
        finally:
            self._deliver_soon()

    def _report(self, error: BaseException) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"the handler of channel {self._native.name!r} raised",
                "exception": error,
            }
        )

    def _deliver_soon(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon(self._deliver)


def current_delivery(native: _core.Channel) -> LoopDelivery | None:
    """Return what runs the channel's handler in a loop, whichever moored.Channel set it."""
    delivery = _current.get(native.key)
    return delivery if delivery is not None and delivery.serves() else None


def stop_delivery(native: _core.Channel) -> None:
    """Take the handler from the loop that runs it, if any."""
    delivery = _current.get(native.key)
    if delivery is not None:
        delivery.stop()
