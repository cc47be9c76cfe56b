"""Waiting until a channel has something to take, in each kind of event loop.

No event loop is imported here: who has not imported one is not running in it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from . import _core


class AsyncReadiness(Protocol):
    """What a channel awaits when there is nothing to take."""

    def serves_here(self) -> bool:
        """Say whether it belongs to the event loop that runs now."""
        ...

    async def wait(self) -> None:
        """Return when there may be something to take, or the channel may be closed."""
        ...

    async def checkpoint(self) -> None:
        """Let the others have a turn."""
        ...


def running_asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop (or uvloop) that runs in this thread, if any."""
    imported: Any = sys.modules.get("asyncio")
    if imported is None:
        return None
    try:
        loop: asyncio.AbstractEventLoop = imported.get_running_loop()
    except RuntimeError:
        return None
    return loop


def find_readiness(native: _core.Channel, known: AsyncReadiness | None) -> AsyncReadiness:
    """Return the readiness for the loop that runs now: `known`, if it is that, or a new one."""
    if known is not None and known.serves_here():
        return known
    loop = running_asyncio_loop()
    if loop is not None:
        if isinstance(known, _Asyncio):
            known.stop()
        return _Asyncio(native, loop)
    if _runs_trio():
        return _Trio(native)
    raise RuntimeError(
        "no event loop runs here that moored knows: use asyncio, uvloop, trio or anyio, "
        "or watch channel.fileno() yourself"
    )


class _Asyncio:
    """A reader on the loop for as long as the loop lives: registering costs more than a wake."""

    def __init__(self, native: _core.Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._native = native
        self._loop = loop
        self._waiters: dict[asyncio.Future[None], None] = {}
        loop.add_reader(native.fileno(), self._on_readable)
        native.listen(True)

    def serves_here(self) -> bool:
        return running_asyncio_loop() is self._loop

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._native.fileno())

    async def wait(self) -> None:
        # Between the take that found nothing and this, nothing else ran on the loop; an event that
        # was sent since then has made the descriptor readable.
        waiter = self._loop.create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    async def checkpoint(self) -> None:
        await sys.modules["asyncio"].sleep(0)

    def _on_readable(self) -> None:
        self._native.acknowledge()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Trio:
    def __init__(self, native: _core.Channel) -> None:
        self._native = native
        native.listen(True)

    def serves_here(self) -> bool:
        return running_asyncio_loop() is None and _runs_trio()

    async def wait(self) -> None:
        trio: Any = sys.modules["trio"]
        await trio.lowlevel.wait_readable(self._native.fileno())
        self._native.acknowledge()

    async def checkpoint(self) -> None:
        trio: Any = sys.modules["trio"]
        await trio.lowlevel.checkpoint()


def _runs_trio() -> bool:
    trio: Any = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def block_until_ready(native: _core.Channel) -> None:
    """Block this thread, or, in a greenlet of gevent's, this greenlet alone."""
    gevent: Any = sys.modules.get("gevent")
    if gevent is not None and gevent.getcurrent().parent is not None:
        native.listen(True)
        gevent.socket.wait_read(native.fileno())
        native.acknowledge()
    else:
        native.wait(None)
