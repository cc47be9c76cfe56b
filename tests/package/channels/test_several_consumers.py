"""Several consumers on one channel: each hears of what concerns it, whatever the others do."""

from __future__ import annotations

import asyncio
import threading

import pytest
from loop_runners import (
    ASYNCIO_LOOPS,
    LOOPS,
    TRIO_LOOPS,
    asyncio_run,
    needs,
    trio_run,
    uvloop_run,
)
from support.limits import HANG_S

import moored


def yield_once(run):
    if run in TRIO_LOOPS:
        return pytest.importorskip("trio").lowlevel.checkpoint()
    return asyncio.sleep(0)


async def together(run, *functions):
    """Run them as tasks, and return what they return."""
    results = [None] * len(functions)

    async def one(at):
        results[at] = await functions[at]()

    if run in TRIO_LOOPS:
        async with pytest.importorskip("trio").open_nursery() as nursery:
            for at in range(len(functions)):
                nursery.start_soon(one, at)
    else:
        await asyncio.gather(*(one(at) for at in range(len(functions))))
    return results


async def all_wait(run):
    """Let every task that can go on do so until it waits."""
    for _ in range(10):
        await yield_once(run)


async def get_or_closed(channel):
    try:
        return await channel.get()
    except moored.ChannelClosed:
        return "closed"


def in_threads(*functions):
    """Run them at once, each in a thread, and fail if one does not come back."""
    results = [None] * len(functions)

    def one(at):
        results[at] = functions[at]()

    threads = [
        threading.Thread(target=one, args=(at,), daemon=True) for at in range(len(functions))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert not [thread for thread in threads if thread.is_alive()]
    return results


@pytest.fixture(params=["own", "shared"])
def objects(request, native):
    """A source, and a function that gives a Channel: one for all, or each time another."""
    source = native.Source()
    if request.param == "own":
        return source, lambda: moored.Channel(source)
    only = moored.Channel(source)
    return source, lambda: only


@pytest.mark.parametrize("run", LOOPS)
def test_tasks_of_one_loop_each_get_an_event_and_hear_of_the_close(run, objects):
    source, channel = objects

    async def main():
        async def consume():
            mine = channel()
            first = await get_or_closed(mine)
            while mine.stats()["depth"]:
                await yield_once(run)
            return [first, await get_or_closed(mine)]

        async def send():
            await all_wait(run)
            for number in range(3):
                source.send(number)
            while channel().stats()["depth"]:
                await yield_once(run)
            await all_wait(run)
            source.close()

        return (await together(run, consume, consume, consume, send))[:3]

    seen = run(main)
    assert sorted(first for first, _ in seen) == [0, 1, 2]
    assert [last for _, last in seen] == ["closed"] * 3


@pytest.mark.parametrize("busy_run", LOOPS)
@pytest.mark.parametrize("idle_run", [asyncio_run, uvloop_run, trio_run])
@pytest.mark.parametrize("what", ["events", "close"])
def test_a_busy_loop_hears_although_another_was_faster(idle_run, busy_run, what, objects):
    needs(idle_run)
    needs(busy_run)
    source, channel = objects
    ready = threading.Barrier(3, timeout=HANG_S)
    idle_is_done = threading.Event()

    def consume(run, meanwhile):
        async def main():
            async def wait_for_one():
                return await get_or_closed(channel())

            async def others():
                await all_wait(run)
                ready.wait()
                meanwhile()

            return (await together(run, wait_for_one, others))[0]

        return run(main)

    def idle():
        seen = consume(idle_run, lambda: None)
        idle_is_done.set()
        return seen

    def busy():
        return consume(busy_run, lambda: idle_is_done.wait(HANG_S))

    def send():
        ready.wait()
        if what == "close":
            source.close()
        else:
            source.send(1)
            source.send(2)

    seen = in_threads(idle, busy, send)[:2]
    assert set(seen) == ({"closed"} if what == "close" else {1, 2})


@pytest.mark.parametrize("run", LOOPS)
def test_a_task_that_is_cancelled_takes_nothing_from_the_others(run, objects):
    source, channel = objects

    async def main():
        async def consume():
            return await get_or_closed(channel())

        async def cancelled_first():
            if run in TRIO_LOOPS:
                trio = pytest.importorskip("trio")
                with trio.CancelScope() as scope:
                    scopes.append(scope)
                    await channel().get()
            else:
                task = asyncio.ensure_future(channel().get())
                scopes.append(task)
                with pytest.raises(asyncio.CancelledError):
                    await task

        async def cancel_and_send():
            await all_wait(run)
            scopes[0].cancel()
            await all_wait(run)
            source.send(7)

        scopes = []
        return (await together(run, cancelled_first, consume, cancel_and_send))[1]

    assert run(main) == 7


@pytest.mark.parametrize("run", ASYNCIO_LOOPS)
def test_taking_a_handler_away_leaves_a_pending_get(run, objects):
    source, channel = objects

    async def main():
        getting = asyncio.ensure_future(channel().get())
        await all_wait(run)
        channel().on_batch(lambda batch: None)
        channel().on_batch(None)
        await all_wait(run)
        source.send(7)
        return await asyncio.wait_for(getting, HANG_S)

    assert run(main) == 7


def test_an_asyncio_task_and_a_thread_and_a_handlers_loop_hear_of_the_close(native):
    source = native.Source()
    ready = threading.Barrier(3, timeout=HANG_S)

    def thread():
        ready.wait()
        return list(moored.Channel(source))

    def loop():
        async def main():
            getting = asyncio.ensure_future(get_or_closed(moored.Channel(source)))
            await all_wait(asyncio_run)
            ready.wait()
            return await getting

        return asyncio.run(main())

    def close():
        ready.wait()
        source.close()

    assert in_threads(thread, loop, close)[:2] == [[], "closed"]


@pytest.mark.parametrize("senders", [1, 3])
def test_every_kind_of_consumer_at_once(end_of, senders):
    for needed in ("uvloop", "trio", "anyio", "gevent"):
        pytest.importorskip(needed)
    ending = end_of(f"""
        import asyncio, threading
        import anyio, gevent, trio, uvloop
        import moored, channel_source

        SENDERS, EACH = {senders}, 3000
        source = channel_source.Source(capacity=20)
        shared = moored.Channel(source)
        seen, ended = [], []

        async def consume():
            for channel in (shared, moored.Channel(source)):
                async for batch in channel:
                    seen.extend(batch)

        async def two_tasks():
            await asyncio.gather(consume(), consume())

        async def nursery():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume)
                nursery.start_soon(consume)

        async def group():
            async with anyio.create_task_group() as group:
                group.start_soon(consume)
                group.start_soon(consume)

        def iterate():
            for channel in (shared, moored.Channel(source)):
                for batch in channel:
                    seen.extend(batch)

        def on_uvloop():
            loop = uvloop.new_event_loop()
            loop.run_until_complete(two_tasks())
            loop.close()

        def greenlets():
            gevent.joinall([gevent.spawn(iterate), gevent.spawn(iterate)], raise_error=True)
            gevent.get_hub().destroy()

        kinds = dict(
            thread=iterate,
            asyncio=lambda: asyncio.run(two_tasks()),
            uvloop=on_uvloop,
            trio=lambda: trio.run(nursery),
            anyio=lambda: anyio.run(group),
            anyio_trio=lambda: anyio.run(group, backend="trio"),
            gevent=greenlets,
            other_gevent=greenlets,
        )

        def run(name):
            kinds[name]()
            ended.append(name)

        threads = [threading.Thread(target=run, args=(name,)) for name in kinds]
        for thread in threads:
            thread.start()
        source.start(SENDERS, EACH)
        source.join()
        source.close()
        for thread in threads:
            thread.join()
        expected = [s * 1_000_000 + n for s in range(SENDERS) for n in range(EACH)]
        print(sorted(ended) == sorted(kinds), sorted(seen) == expected)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True True\n", "")


GEVENT = """
    import gevent, gevent.event, sys, threading, moored, channel_source
    source = channel_source.Source()
    channel = moored.Channel(source)
"""


def test_two_hubs_each_wake(end_of):
    pytest.importorskip("gevent")
    ending = end_of(
        GEVENT
        + """
    ready = threading.Barrier(3)
    ended = []

    def hub():
        greenlets = [gevent.spawn(list, channel), gevent.spawn(list, moored.Channel(source))]
        gevent.sleep(0)
        ready.wait()
        gevent.joinall(greenlets, raise_error=True)
        ended.append(1)

    threads = [threading.Thread(target=hub) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    source.close()
    for thread in threads:
        thread.join()
    print(ended)
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "[1, 1]\n", "")


def test_a_greenlet_that_is_killed_takes_nothing_from_the_others(end_of):
    pytest.importorskip("gevent")
    ending = end_of(
        GEVENT
        + """
    first = gevent.spawn(list, channel)
    second = gevent.spawn(list, channel)
    gevent.sleep(0)
    first.kill()
    source.send_from_thread(7)
    source.close()
    print(second.get())
    """
    )
    assert (ending.code, ending.out, ending.err) == (0, "[[7]]\n", "")


def test_gevents_socket_need_not_be_imported(end_of):
    pytest.importorskip("gevent")
    ending = end_of("""
        import gevent, sys, moored, channel_source
        source = channel_source.Source()
        waiting = gevent.spawn(list, moored.Channel(source))
        gevent.sleep(0)
        print("gevent.socket" in sys.modules)
        source.close()
        print(waiting.get())
    """)
    assert (ending.code, ending.out, ending.err) == (0, "False\n[]\n", "")


def test_trio_as_a_guest_of_asyncio(end_of):
    pytest.importorskip("trio")
    ending = end_of("""
        import asyncio, trio, moored, channel_source
        source = channel_source.Source()
        channel = moored.Channel(source)
        seen = []

        async def guest():
            seen.append(await channel.get())

        async def host():
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            trio.lowlevel.start_guest_run(
                guest,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=done.set_result,
            )
            mine = asyncio.ensure_future(channel.get())
            await asyncio.sleep(0.01)
            source.send(1)
            source.send(2)
            seen.append(await mine)
            (await done).unwrap()

        asyncio.run(host())
        print(sorted(seen))
    """)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2]\n", "")
