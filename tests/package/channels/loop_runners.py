"""Running a coroutine function in each event loop that is installed."""

from __future__ import annotations

import asyncio

import pytest

import moored


def asyncio_run(main):
    return asyncio.run(main())


def uvloop_run(main):
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def moored_run(main):
    loop = moored.EventLoop()
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


def needs(run):
    """Skip the test where the loop is not installed: for tests that run it on another thread."""
    modules = {uvloop_run: ["uvloop"], trio_run: ["trio"], anyio_asyncio_run: ["anyio"]}
    for module in modules.get(run, []) if run is not anyio_trio_run else ["anyio", "trio"]:
        pytest.importorskip(module)


LOOPS = [asyncio_run, uvloop_run, moored_run, trio_run, anyio_asyncio_run, anyio_trio_run]
ASYNCIO_LOOPS = [asyncio_run, uvloop_run, moored_run]
TRIO_LOOPS = [trio_run, anyio_trio_run]
