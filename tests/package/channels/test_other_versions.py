"""Extensions that were built with another moored: their tables are shorter, or longer."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading

import pytest
from support.limits import HANG_S

import moored

NAME = b"moored.channel.1"
POINTER = ctypes.sizeof(ctypes.c_void_p)
SINCE = {"subscribe": 3}  # so many entries at the table's end

pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
pointer_in.restype = ctypes.c_void_p
pointer_in.argtypes = [ctypes.py_object, ctypes.c_char_p]
make_capsule = ctypes.pythonapi.PyCapsule_New
make_capsule.restype = ctypes.py_object
make_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

kept = []  # the tables; the capsules know them by address


def with_size(source, change):
    """A capsule whose table is `change` bytes longer. What is not in it is poison."""
    capsule = source.__moored_channel__()
    address = pointer_in(capsule, NAME)
    size = ctypes.c_uint32.from_address(address).value
    table = ctypes.create_string_buffer(b"\xff" * (size + 256), size + 256)
    ctypes.memmove(table, address, min(size, size + change))
    ctypes.c_uint32.from_buffer(table).value = size + change
    kept.append((capsule, table))
    return make_capsule(ctypes.addressof(table), NAME, None)


SIZES = {"older": -SINCE["subscribe"] * POINTER, "newer": 8 * POINTER}


@pytest.fixture(params=SIZES)
def make(request, native):
    source = native.Source()
    return source, lambda: moored.Channel(with_size(source, SIZES[request.param]))


def test_plain_threads(make):
    source, channel = make
    mine = channel()
    source.send(1)
    assert mine.wait(0)
    thread = threading.Thread(target=lambda: (source.send(2), source.close()))
    thread.start()
    assert [number for batch in mine for number in batch] == [1, 2]
    thread.join()


def test_a_descriptor(make):
    import select

    source, channel = make
    mine = channel()
    ready = select.poll()
    ready.register(mine.fileno(), select.POLLIN)
    mine.acknowledge()
    assert not ready.poll(0)
    source.send(1)
    assert ready.poll(0)
    mine.acknowledge()
    assert mine.take() == [1]
    assert not ready.poll(0)


def test_consumers_of_one_loop(make):
    source, channel = make

    async def main():
        channels = [channel() for _ in range(3)]
        waiting = [asyncio.ensure_future(one.get()) for one in channels]
        await asyncio.sleep(0)
        for number in range(2):
            source.send(number)
        done = []
        while len(done) < 2:
            await asyncio.sleep(0)
            done = [task for task in waiting if task.done()]
        source.close()
        await asyncio.wait_for(asyncio.wait(waiting), HANG_S)
        return sorted(type(task.exception()).__name__ for task in waiting)

    assert asyncio.run(main()) == ["ChannelClosed", "NoneType", "NoneType"]


def test_two_trio_tasks(make):
    trio = pytest.importorskip("trio")
    trio_testing = pytest.importorskip("trio.testing")
    source, channel = make
    seen = []

    async def main():
        async def consume():
            seen.append(await channel().get())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            nursery.start_soon(consume)
            await trio_testing.wait_all_tasks_blocked()
            source.send(1)
            source.send(2)

    trio.run(main)
    assert sorted(seen) == [1, 2]


def test_a_handler_beside_a_pending_get(make):
    source, channel = make
    seen = []

    async def main():
        mine = channel()
        getting = asyncio.ensure_future(mine.get())
        await asyncio.sleep(0)
        mine.on_batch(seen.extend)
        mine.on_batch(None)
        source.send(1)
        assert await asyncio.wait_for(getting, HANG_S) == 1
        mine.on_batch(seen.extend)
        source.send(2)
        while not seen:
            await asyncio.sleep(0)
        mine.on_batch(None)

    asyncio.run(main())
    assert seen == [2]


def test_a_cycle_is_collected(make):
    import weakref

    class Owner:
        def __init__(self, channel):
            self.channel = channel
            channel.on_batch(self.handle, "enter")

        def handle(self, batch):
            pass

    _, channel = make
    gone = weakref.ref(Owner(channel()))
    gc.collect()
    assert gone() is None


def test_what_is_older_than_any_is_refused(native):
    with pytest.raises(TypeError, match="built with an older moored"):
        moored.Channel(with_size(native.Source(), -8 * POINTER))
