"""Descriptors, handlers and cycles are given back; a child of a fork leaves its parent's alone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref

import pytest

import moored


def descriptors():
    gc.collect()
    listed = os.listdir("/proc/self/fd")
    return sorted(fd for fd in listed if is_open(int(fd)))


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False  # the listing's own
    return True


def new_loop(kind):
    if kind == "uvloop":
        return pytest.importorskip("uvloop").new_event_loop()
    if kind == "moored":
        return moored.EventLoop()
    return asyncio.new_event_loop()


KINDS = ["asyncio", "uvloop", "moored"]


@pytest.fixture(params=KINDS)
def loop(request):
    made = new_loop(request.param)
    made.run_until_complete(asyncio.sleep(0))
    yield made
    if not made.is_closed():
        made.close()


async def given_back(before):
    """Wait for that, for the loop keeps what a task raised for some turns."""
    while descriptors() != before:
        await asyncio.sleep(0)


async def a_pending_get(channel):
    getting = asyncio.ensure_future(channel.get())
    await asyncio.sleep(0)
    return getting


async def get_and_cancel(channel):
    getting = await a_pending_get(channel)
    getting.cancel()
    await asyncio.gather(getting, return_exceptions=True)


def test_when_the_channel_is_closed_and_empty(native, loop):
    async def consume():
        source = native.Source()
        channel = moored.Channel(source)
        source.send(1)
        source.close()
        assert [batch async for batch in channel] == [[1]]
        # And once with a wait, and with others that wait.
        source = native.Source()
        channel = moored.Channel(source)
        others = [await a_pending_get(channel) for _ in range(2)]
        asyncio.get_running_loop().call_soon(source.close)
        assert [batch async for batch in channel] == []
        await asyncio.gather(*others, return_exceptions=True)
        return source, channel

    async def main():
        before = descriptors()
        kept = [await consume() for _ in range(10)]
        own = 10  # a channel has one for its handler, as long as it lives
        assert len(descriptors()) <= len(before) + own
        del kept
        await given_back(before)

    loop.run_until_complete(main())


def test_when_a_closed_channel_is_not_looked_at_again(native, loop):
    source = native.Source()
    channel = moored.Channel(source)

    async def main():
        before = descriptors()
        await get_and_cancel(channel)
        assert len(descriptors()) == len(before) + 1
        source.close()
        await given_back(before)

    loop.run_until_complete(main())


def test_when_the_loop_is_closed(native, loop):
    source = native.Source()
    channel = moored.Channel(source)
    other = new_loop("asyncio")
    other.run_until_complete(asyncio.sleep(0))
    before = descriptors()
    other.run_until_complete(get_and_cancel(channel))
    other.close()
    loop.run_until_complete(get_and_cancel(channel))
    channel.on_batch(print, loop=loop)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert set(descriptors()) <= set(before)
    channel.on_batch(None)


def test_when_the_loop_is_closed_under_a_pending_get(native, loop):
    source = native.Source()
    channel = moored.Channel(source)
    before = descriptors()
    pending = loop.run_until_complete(a_pending_get(channel))
    loop.close()
    pending._log_destroy_pending = False
    del pending
    assert set(descriptors()) <= set(before)


def test_when_the_channels_python_objects_are_collected(native, loop):
    source = native.Source()

    async def main():
        before = descriptors()
        channels = [moored.Channel(source) for _ in range(5)]
        for channel in channels:
            await get_and_cancel(channel)
            channel.fileno()
        assert len(descriptors()) == len(before) + 6  # the loop has one for them all
        del channel, channels
        await given_back(before)
        # By another thread.
        channels = [moored.Channel(source)]
        await get_and_cancel(channels[0])
        thread = threading.Thread(target=channels.clear)
        thread.start()
        thread.join()
        await given_back(before)

    loop.run_until_complete(main())


def test_when_a_trio_run_ends(native):
    trio = pytest.importorskip("trio")
    source = native.Source()
    channel = moored.Channel(source)
    trio.run(trio.lowlevel.checkpoint)
    before = descriptors()

    async def main():
        with trio.move_on_after(0):
            await channel.get()
        within = descriptors()
        other = moored.Channel(source)
        with trio.move_on_after(0):
            await other.get()
        assert descriptors() == within  # the run has one for both

    trio.run(main)
    assert descriptors() == before


def test_when_a_channel_is_collected_in_a_trio_run(native):
    trio = pytest.importorskip("trio")
    source = native.Source()

    async def main():
        await trio.lowlevel.checkpoint()
        before = descriptors()
        channel = moored.Channel(source)
        with trio.move_on_after(0):
            await channel.get()
        assert len(descriptors()) == len(before) + 1
        del channel
        while descriptors() != before:
            await trio.lowlevel.checkpoint()  # trio keeps the cancellation for a turn

    trio.run(main)


def test_when_greenlets_have_ended(end_of):
    pytest.importorskip("gevent")
    ending = end_of("""
        import gc, gevent, os, moored, channel_source

        def descriptors():
            gc.collect()
            return len(os.listdir("/proc/self/fd"))

        def use():
            source = channel_source.Source()
            channel = moored.Channel(source)
            greenlets = [gevent.spawn(list, channel) for _ in range(2)]
            gevent.sleep(0)
            source.close()
            gevent.joinall(greenlets, raise_error=True)
            source = channel_source.Source()
            channel = moored.Channel(source)
            greenlet = gevent.spawn(list, channel)
            gevent.sleep(0)
            greenlet.kill()

        use()
        before = descriptors()
        for _ in range(10):
            use()
        print(descriptors() == before)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True\n", "")


class Connection:
    """What a program writes: an object with its channel, and a method as the handler."""

    def __init__(self, native, delivery, loop=None):
        self.seen = []
        self.source = native.Source()
        self.channel = moored.Channel(self.source)
        self.channel.on_batch(self.handle, delivery, loop=loop)

    def handle(self, batch):
        self.seen.extend(batch)


@pytest.mark.parametrize("delivery", ["enter", "poll", "adaptive"])
@pytest.mark.parametrize("is_closed", [False, True])
def test_a_cycle_through_the_handler_is_collected(native, delivery, is_closed):
    before = descriptors()
    connection = Connection(native, delivery)
    gone = weakref.ref(connection)
    gc.collect()
    connection.source.send_from_thread(7)
    connection.channel.deliver()
    assert connection.seen == [7]
    if is_closed:
        connection.source.close()
    del connection
    gc.collect()
    assert gone() is None
    assert descriptors() == before


def test_a_cycle_with_a_loop_is_collected_when_the_channel_is_closed(native, loop):
    async def main():
        connection = Connection(native, "wake")
        gone = weakref.ref(connection)
        source = connection.source
        del connection
        gc.collect()
        assert gone() is not None  # there may be events
        source.send(7)
        source.close()
        while gone() is not None:
            await asyncio.sleep(0)
            gc.collect()

    loop.run_until_complete(main())


def test_a_cycle_that_goes_leaves_the_handler_of_another(native):
    connection = Connection(native, "enter")
    gone = weakref.ref(connection)
    source, seen = connection.source, []
    other = moored.Channel(source)
    other.on_batch(seen.extend, "enter")
    del connection
    gc.collect()
    assert gone() is None
    source.send_from_thread(7)
    assert seen == [7]
    other.on_batch(None)


def test_events_wait_when_the_handler_has_gone_with_its_cycle(native):
    connection = Connection(native, "enter")
    source = connection.source
    del connection
    gc.collect()
    assert source.send_from_thread(7) == "queued"
    assert moored.Channel(source).take() == [7]


def test_a_handler_outlives_its_channel_object(native):
    source = native.Source()
    seen = []
    moored.Channel(source).on_batch(seen.extend, "enter")
    gc.collect()
    source.send_from_thread(1)
    assert seen == [1]
    moored.Channel(source).on_batch(None)
    source.send_from_thread(2)
    assert seen == [1]


def test_a_handler_that_outlived_its_channel_object_ends_with_the_channel(native):
    class Handler:
        def __call__(self, batch):
            pass

    before = descriptors()
    handler = Handler()
    gone = weakref.ref(handler)
    source = native.Source()
    moored.Channel(source).on_batch(handler, "enter")
    del handler
    assert gone() is not None
    del source
    gc.collect()
    assert gone() is None
    assert descriptors() == before


def test_a_handler_that_replaces_itself_gets_the_rest(native):
    source = native.Source()
    channel = moored.Channel(source)
    seen = []

    def first(batch):
        channel.on_batch(second, "enter")
        seen.append(("first", batch))

    def second(batch):
        seen.append(("second", batch))

    channel.on_batch(first, "enter")
    del first
    gc.collect()
    source.send_from_thread(1)
    source.send_from_thread(2)
    assert seen == [("first", [1]), ("second", [2])]
    channel.on_batch(None)


def test_reports_show_the_handler(end_of):
    ending = end_of("""
        import moored, channel_source
        source = channel_source.Source()
        channel = moored.Channel(source)

        def handler(batch):
            raise ValueError("by the test")

        channel.on_batch(handler, "enter")
        source.send_from_thread(1)
        channel.on_batch(None)
    """)
    assert ending.code == 0
    assert "<function handler at" in ending.err
    assert "ValueError: by the test" in ending.err


FORK = """
    import asyncio, os, select, warnings, moored, channel_source
    warnings.simplefilter("ignore")
    source = channel_source.Source()
    channel = moored.Channel(source)

    def in_child(function):
        pid = os.fork()
        if pid == 0:
            try:
                function()
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    def is_readable(channel):
        return bool(select.select([channel.fileno()], [], [], 0)[0])
"""


def test_a_child_that_acknowledges_leaves_the_parent_told(end_of):
    ending = end_of(
        FORK
        + """
    def child():
        assert is_readable(channel)  # closed
        channel.acknowledge()
        assert channel.take() == []

    channel.fileno()
    source.send(1)
    in_child(child)
    assert is_readable(channel)
    channel.acknowledge()
    assert channel.take() == [1]
    assert not is_readable(channel)
    source.send(2)
    assert is_readable(channel)
    assert channel.take() == [2]
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_leaves_the_loop_of_its_parent_alone(end_of, kind):
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    ending = end_of(
        FORK
        + f"""
    import gc
    kind = {kind!r}
    if kind == "uvloop":
        import uvloop
        loop = uvloop.new_event_loop()
    elif kind == "moored":
        loop = moored.EventLoop()
    else:
        loop = asyncio.new_event_loop()
    removed = []
    seen = []

    def child():
        global channel, other, waiting
        if kind != "uvloop":
            for name in ("unregister", "modify", "register"):
                setattr(loop._selector, name, lambda *_: os._exit(2))
        channel.on_batch(None)
        channel.on_batch(seen.extend, loop=loop)
        try:
            waiting.cancel()
            other.get().send(None)
        except moored.ChannelClosed:
            pass
        del channel, other, waiting
        gc.collect()

    async def main():
        global other, waiting
        channel.on_batch(seen.extend)
        other_source = channel_source.Source()
        other = moored.Channel(other_source)
        waiting = asyncio.ensure_future(other.get())
        await asyncio.sleep(0)
        in_child(child)
        source.send(1)
        while not seen:
            await asyncio.sleep(0)
        other_source.send(2)
        seen.append(await waiting)
        channel.on_batch(None)

    loop.run_until_complete(main())
    loop.close()
    print(seen)
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2]\n", "")


def test_a_child_can_run_a_loop_of_its_own(end_of):
    ending = end_of(
        FORK
        + """
    async def get(channel):
        getting = asyncio.ensure_future(channel.get())
        await asyncio.sleep(0)
        return await getting

    async def closed(channel):
        try:
            await channel.get()
        except moored.ChannelClosed:
            return True

    def child():
        assert asyncio.run(closed(channel))
        mine = channel_source.Source()
        asyncio.run(main(moored.Channel(mine), mine))

    async def main(channel, source):
        getting = asyncio.ensure_future(channel.get())
        await asyncio.sleep(0)
        source.send(5)
        assert await getting == 5

    asyncio.run(main(channel, source))
    in_child(child)
    asyncio.run(main(channel, source))
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "", "")
