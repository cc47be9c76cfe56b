"""Running a coroutine function in each event loop that is installed."""

from __future__ import annotations

import asyncio

import pytest


def asyncio_run(main):
    return asyncio.run(main())


def uvloop_run(main):
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def trio_run(main):
    return pytest.importorskip("trio").run(main)


def anyio_asyncio_run(main):
    return pytest.importorskip("anyio").run(main, backend="asyncio")


def anyio_trio_run(main):
    pytest.importorskip("trio")
    return pytest.importorskip("anyio").run(main, backend="trio")


LOOPS = [asyncio_run, uvloop_run, trio_run, anyio_asyncio_run, anyio_trio_run]
ASYNCIO_LOOPS = [asyncio_run, uvloop_run]
TRIO_LOOPS = [trio_run, anyio_trio_run]
