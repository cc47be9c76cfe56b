"""EventLoop: an asyncio loop that runs the handlers of channels while it waits.

A stock loop makes a callback of every readable descriptor, and runs it in its next turn. Here the
selector, which waits for the loop, calls the readers of channels itself and waits on. It does so
while nothing else is to be done, so that no order is changed; and when a handler asks something of
the loop the wait is over.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from . import _core

__all__ = ["EventLoop"]


class EventLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, with cheaper wakes by channels.

    In debug mode it is as any other loop, so that slow handlers are logged.
    """

    def __init__(self) -> None:
        self._delivering = DeliveringSelector(self)
        super().__init__(self._delivering)

    # All by which a callback can ask for something that is due before the wait is over; what other
    # threads ask for makes a descriptor readable.
    call_soon = _core.asks_loop(asyncio.SelectorEventLoop.call_soon)
    call_at = _core.asks_loop(asyncio.SelectorEventLoop.call_at)
    stop = _core.asks_loop(asyncio.SelectorEventLoop.stop)

    def add_reader(  # type: ignore[override]  # its type needs Python 3.11
        self, fd: Any, callback: Callable[..., Any], *args: Any
    ) -> None:
        """Call `callback` when the descriptor is readable."""
        super().add_reader(fd, callback, *args)
        if isinstance(callback, _core.Reader) and not args:
            self._delivering.call_while_waiting(fd, callback)


class DeliveringSelector(selectors.EpollSelector):
    """Calls the readers of channels while it waits."""

    def __init__(self, loop: EventLoop) -> None:
        super().__init__()
        self._loop = weakref.proxy(loop)
        self._readers: dict[int, Callable[[], object]] = {}

    def call_while_waiting(self, fd: int, reader: _core.Reader) -> None:
        """Call it until the descriptor is registered anew or unregistered."""
        # As for any callback, the context is that of the call of add_reader().
        self._readers[fd] = partial(contextvars.copy_context().run, reader)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait as any selector, and meanwhile call the readers of channels.

        Returns early, with nothing, when one of them has asked something of the loop. When other
        descriptors are ready, too, the loop calls all of them in its own order.
        """
        is_waiting = timeout is None or timeout > 0
        if self._readers and is_waiting and not self._loop.get_debug():
            fd = self.fileno()
            if not _core.deliver_or_wait(fd, self._readers, timeout, self._report):
                return []
            timeout = 0
        return super().select(timeout)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change what is waited for; the reader that is called from now on is the loop's."""
        key = super().modify(fileobj, events, data)
        self._readers.pop(key.fd, None)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Wait for it no more."""
        key = super().unregister(fileobj)
        self._readers.pop(key.fd, None)
        return key

    def close(self) -> None:
        """End it."""
        self._readers.clear()
        super().close()

    def _report(self, error: BaseException) -> None:
        message = "a reader of a channel raised"
        self._loop.call_exception_handler({"message": message, "exception": error})
