"""moored.Channel in asyncio, uvloop, trio, anyio and gevent."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from loop_runners import ASYNCIO_LOOPS, LOOPS, anyio_trio_run, trio_run

import moored

TOTAL = 3000


@pytest.fixture
def source(native):
    return native.Source(capacity=100)


def close_when_sent(source):
    thread = threading.Thread(target=lambda: (source.join(), source.close()))
    thread.start()
    return thread


@pytest.mark.parametrize("run", LOOPS)
def test_async_for_gives_every_event(source, run):
    channel = moored.Channel(source)

    async def main():
        source.start(2, TOTAL)
        closer = close_when_sent(source)
        seen = [number async for batch in channel for number in batch]
        closer.join()
        return seen

    seen = run(main)
    assert sorted(seen) == [s * 1_000_000 + n for s in range(2) for n in range(TOTAL)]


@pytest.mark.parametrize("run", LOOPS)
def test_get_gives_one_event_and_says_when_there_are_no_more(source, run):
    channel = moored.Channel(source)

    async def main():
        source.start(1, 50)
        closer = close_when_sent(source)
        seen = [await channel.get() for _ in range(50)]
        with pytest.raises(moored.ChannelClosed):
            await channel.get()
        closer.join()
        return seen

    assert run(main) == list(range(50))


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
def test_a_cancelled_get_loses_nothing(source, run):
    channel = moored.Channel(source)

    async def main():
        source.start(2, TOTAL)
        closer = close_when_sent(source)
        seen = []
        while True:
            task = asyncio.ensure_future(channel.get())
            await asyncio.sleep(0)
            task.cancel()
            try:
                seen.append(await task)
            except asyncio.CancelledError:
                pass
            except moored.ChannelClosed:
                break
        closer.join()
        return seen

    seen = run(main)
    assert sorted(seen) == [s * 1_000_000 + n for s in range(2) for n in range(TOTAL)]


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
def test_a_cancelled_waiter_leaves_the_event_to_the_others(source, run):
    channel = moored.Channel(source)

    async def main():
        waiting = [asyncio.ensure_future(channel.get()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        source.send(7)
        done, _ = await asyncio.wait(waiting[1:], return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [7]
        channel.close()
        rest = await asyncio.gather(*waiting, return_exceptions=True)
        return Counter(type(result) for result in rest)

    assert run(main) == {asyncio.CancelledError: 1, int: 1, moored.ChannelClosed: 1}


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
@pytest.mark.parametrize("linger", [None, 0.001])
def test_on_batch_runs_the_handler_in_the_loop(source, run, linger):
    channel = moored.Channel(source)
    seen = []
    threads = set()

    async def main():
        everything = asyncio.get_running_loop().create_future()

        def handler(batch):
            seen.extend(batch)
            threads.add(threading.get_ident())
            if len(seen) == 2 * TOTAL:
                everything.set_result(None)

        channel.on_batch(handler, linger=linger)
        source.start(2, TOTAL)
        await everything
        channel.on_batch(None)

    run(main)
    source.join()
    assert threads == {threading.get_ident()}
    assert sorted(seen) == [s * 1_000_000 + n for s in range(2) for n in range(TOTAL)]


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
def test_what_a_handler_raises_goes_to_the_loops_handler(source, run):
    channel = moored.Channel(source)
    reports = []
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        twice = loop.create_future()

        def handler(batch):
            seen.extend(batch)
            if len(seen) == 2:
                twice.set_result(None)
            raise ValueError("by the test")

        channel.on_batch(handler)
        source.send_from_thread(1)
        while not seen:
            await asyncio.sleep(0)
        source.send_from_thread(2)
        await twice
        await asyncio.sleep(0)
        channel.on_batch(None)

    run(main)
    assert seen == [1, 2]
    assert [type(report["exception"]) for report in reports] == [ValueError, ValueError]
    assert "'numbers'" in reports[0]["message"]


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
def test_a_channel_moves_to_the_loop_that_asks(source, run):
    channel = moored.Channel(source)

    async def main():
        getting = asyncio.ensure_future(channel.get())
        await asyncio.sleep(0)
        source.send_from_thread(1)
        return await getting

    assert [run(main), run(main)] == [1, 1]


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
def test_deliveries_can_be_switched_while_events_flow(source, run):
    channel = moored.Channel(source)
    seen = []

    async def main():
        channel.on_batch(seen.extend, "adaptive")
        source.start(2, TOTAL)
        turn = 0
        while source.running() or channel.stats()["depth"]:
            channel.delivery = ("enter", "wake", "adaptive")[turn % 3]
            turn += 1
            await asyncio.sleep(0)
        source.join()
        channel.on_batch(None)

    run(main)
    assert sorted(seen) == [s * 1_000_000 + n for s in range(2) for n in range(TOTAL)]


def test_without_a_loop_async_is_told_in_words(source):
    channel = moored.Channel(source)
    coroutine = channel.get()
    with pytest.raises(RuntimeError, match="no event loop runs here"):
        coroutine.send(None)


def test_trio_cancels_without_loss(source):
    trio = pytest.importorskip("trio")
    channel = moored.Channel(source)

    async def main():
        source.start(1, 200)
        closer = close_when_sent(source)
        seen = []
        while True:
            with trio.move_on_after(0):
                try:
                    seen.append(await channel.get())
                except moored.ChannelClosed:
                    break
            await trio.lowlevel.checkpoint()
        closer.join()
        return seen

    assert trio.run(main) == list(range(200))


def test_in_a_greenlet_only_the_greenlet_waits(end_of):
    pytest.importorskip("gevent")
    ending = end_of("""
        import gevent, gevent.socket, moored, channel_source
        source = channel_source.Source()
        channel = moored.Channel(source)
        seen, ticks = [], []

        def consume():
            for batch in channel:
                seen.extend(batch)

        def tick():
            ticks.append(len(seen))
            source.send_from_thread(7)
            while not seen:
                gevent.sleep(0)
            channel.close()

        gevent.joinall([gevent.spawn(consume), gevent.spawn(tick)])
        print(seen, ticks)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "[7] [0]\n", "")


@pytest.mark.parametrize("run", LOOPS)
def test_a_channel_that_is_never_empty_leaves_turns_to_others(source, run):
    channel = moored.Channel(source)

    async def main():
        others = []

        async def count_turns():
            while not channel.closed:
                others.append(1)
                await checkpoint()

        if run in (trio_run, anyio_trio_run):
            trio = pytest.importorskip("trio")
            checkpoint = trio.lowlevel.checkpoint
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_turns)
                await iterate(others)
        else:

            async def checkpoint():
                await asyncio.sleep(0)

            task = asyncio.ensure_future(count_turns())
            await iterate(others)
            await task

    async def iterate(others):
        source.send(0)
        async for _ in channel:
            source.send(0)  # there is always one more
            if len(others) >= 10:
                channel.close()
                channel.take()

    run(main)
