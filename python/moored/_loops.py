"""Which event loop runs in this thread.

No event loop is imported here: a program that has not imported one does not run in it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

NO_LOOP = (
    "no event loop runs here that moored knows: use asyncio, uvloop, trio or anyio, "
    "or watch channel.fileno() yourself"
)


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


def runs_trio() -> bool:
    """Say whether a trio task runs in this thread.

    Both can be there: asyncio hosts trio in its guest mode, and trio hosts asyncio by trio-asyncio.
    sniffio knows which of them has the word now.
    """
    trio: Any = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_run():
        return False
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is None:
        return running_asyncio_loop() is None
    try:
        return bool(sniffio.current_async_library() == "trio")
    except sniffio.AsyncLibraryNotFoundError:
        return False


def current_gevent_hub() -> Any | None:
    """Return gevent's hub if a greenlet of this thread can wait in it, or None."""
    gevent: Any = sys.modules.get("gevent")
    if gevent is None or gevent.getcurrent().parent is None:
        return None
    return gevent.get_hub()


async def let_others_run() -> None:
    """Give the other tasks of the running loop a turn."""
    if runs_trio():
        await sys.modules["trio"].lowlevel.checkpoint()
    elif running_asyncio_loop() is not None:
        await sys.modules["asyncio"].sleep(0)
