"""Handlers in asyncio loops: what they raise, which loop runs them, what comes after the loop."""

from __future__ import annotations

import asyncio
import math
import sys
import threading

import pytest
from support.limits import HANG_S

import moored


def new_loop(kind):
    if kind == "uvloop":
        return pytest.importorskip("uvloop").new_event_loop()
    if kind == "moored":
        return moored.EventLoop()
    return asyncio.new_event_loop()


@pytest.fixture(params=["asyncio", "uvloop", "moored"])
def loop(request):
    made = new_loop(request.param)
    yield made
    if not made.is_closed():
        made.close()


@pytest.fixture
def source(native):
    return native.Source()


async def until(condition):
    async def look():
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(look(), HANG_S)


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("linger", [None, 0.001])
def test_whatever_a_handler_raises_is_reported_and_the_next_events_come(
    loop, source, error, linger
):
    channel = moored.Channel(source)
    seen, reports = [], []

    def handler(batch):
        seen.extend(batch)
        if len(seen) <= 100:
            raise error("by the test")

    async def main():
        loop.set_exception_handler(lambda _, context: reports.append(context))
        channel.on_batch(handler, linger=linger)
        source.start(1, 200)
        await until(lambda: len(seen) == 200)
        source.start(1, 10)
        await until(lambda: len(seen) == 210)
        channel.on_batch(None)

    loop.run_until_complete(main())
    source.join()
    assert reports
    assert all(isinstance(report["exception"], error) for report in reports)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_the_loops_run_and_no_delivery(loop, source, error):
    channel = moored.Channel(source)
    seen = []

    def handler(batch):
        seen.extend(batch)
        if len(seen) == 1:
            raise error

    async def main():
        channel.on_batch(handler)
        source.send(0)
        await asyncio.sleep(HANG_S)

    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    task.cancel()
    source.send(1)
    loop.run_until_complete(until(lambda: seen == [0, 1]))
    channel.on_batch(None)


def test_wake_without_a_loop_is_refused_however_it_is_asked_for(source):
    channel = moored.Channel(source)
    seen = []
    for before in ("enter", "poll", "adaptive"):
        channel.on_batch(seen.extend, before)
        with pytest.raises(RuntimeError) as by_setter:
            channel.delivery = "wake"
        assert channel.delivery == before
        with pytest.raises(RuntimeError) as by_on_batch:
            channel.on_batch(seen.extend)
        assert str(by_setter.value) == str(by_on_batch.value)
    channel.on_batch(seen.extend, "enter")
    source.send_from_thread(1)
    assert seen == [1]
    channel.on_batch(None)
    channel.delivery = "wake"  # for consumers that take


def test_wake_is_refused_whichever_object_set_the_handler(source):
    moored.Channel(source).on_batch(print, "enter")
    with pytest.raises(RuntimeError, match="needs an event loop"):
        moored.Channel(source).delivery = "wake"
    moored.Channel(source).on_batch(None)


def test_what_a_closed_channel_has_left_is_delivered(loop, source):
    channel = moored.Channel(source)
    seen = []
    source.send(1)
    source.send(2)
    source.close()

    async def main():
        channel.on_batch(seen.extend)
        await until(lambda: len(seen) == 2)

    loop.run_until_complete(main())
    assert seen == [1, 2]


def test_wake_with_a_loop_of_ones_own(source):
    channel = moored.Channel(source)
    seen = []
    channel.fileno()
    channel.on_batch(seen.extend, "wake")
    source.send(1)
    channel.acknowledge()
    channel.deliver()
    assert seen == [1]
    channel.on_batch(None)


@pytest.mark.parametrize("before", ["enter", "poll", "adaptive"])
def test_wake_can_be_set_within_a_loop(loop, source, before):
    channel = moored.Channel(source)
    seen, threads = [], set()

    def handler(batch):
        seen.extend(batch)
        threads.add(threading.get_ident())

    async def main():
        channel.on_batch(handler, before)
        channel.delivery = "wake"
        source.start(2, 100)
        await until(lambda: len(seen) == 200)

    loop.run_until_complete(main())
    source.join()
    channel.on_batch(None)
    assert threads == {threading.get_ident()}


def test_an_unknown_delivery_leaves_everything_as_it_is(source):
    channel = moored.Channel(source)
    seen = []
    channel.on_batch(seen.extend, "enter")
    with pytest.raises(ValueError, match="unknown delivery 'push'"):
        channel.delivery = "push"
    with pytest.raises(ValueError, match="unknown delivery 'push'"):
        channel.on_batch(print, "push")
    source.send_from_thread(1)
    assert seen == [1]
    channel.on_batch(None)


def test_a_handler_can_be_given_to_a_loop_of_another_thread(loop, source):
    channel = moored.Channel(source)
    threads = []
    thread = threading.Thread(target=loop.run_forever)
    heard = threading.Event()

    def handler(batch):
        threads.append(threading.get_ident())
        heard.set()

    channel.on_batch(handler, loop=loop)  # it does not run yet
    thread.start()
    for _ in range(3):
        source.send(1)
        assert heard.wait(HANG_S)
        heard.clear()
        channel.on_batch(handler, loop=loop)  # it runs
    channel.on_batch(None)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(HANG_S)
    assert set(threads) == {thread.ident}


def test_a_later_handler_is_not_run_by_the_earlier_ones_loop(source):
    loops = [asyncio.new_event_loop() for _ in range(2)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    for thread in threads:
        thread.start()
    ran_in = []
    heard = threading.Event()

    def handler(batch):
        ran_in.append(threading.get_ident())
        heard.set()

    channels = [moored.Channel(source), moored.Channel(source)]
    for turn in range(6):
        channels[turn % 2].on_batch(handler, loop=loops[turn % 2])
        source.send(turn)
        assert heard.wait(HANG_S)
        heard.clear()
    assert ran_in == [threads[0].ident, threads[1].ident] * 3
    channels[0].on_batch(None)
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join(HANG_S)
        loop.close()


@pytest.mark.parametrize("raises", [False, True])
def test_adaptive_enters_after_its_loop(loop, source, raises, monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    channel = moored.Channel(source)
    seen, kept = [], []

    def handler(batch):
        seen.extend(batch)
        if raises and len(seen) == 1:
            raise ValueError

    async def main():
        loop.set_exception_handler(lambda _, context: kept.append(context))
        channel.on_batch(handler, "adaptive")
        source.send_from_thread(0)
        await until(lambda: seen)

    loop.run_until_complete(main())
    loop.close()
    for number in range(1, 20):
        source.start(1, 1)  # while this thread has the GIL
        while len(seen) <= number:
            channel.stats()
    source.join()
    assert len(seen) == 20
    channel.on_batch(None)


@pytest.mark.parametrize("name", ["hold", "linger"])
@pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan, -math.inf])
@pytest.mark.parametrize("delivery", ["wake", "enter", "adaptive"])
def test_a_time_that_is_none_is_refused(source, name, seconds, delivery):
    channel = moored.Channel(source)
    with pytest.raises(ValueError, match=f"{name}=.*give a number of seconds, 0 or more, or None"):
        channel.on_batch(print, delivery, **{name: seconds})
    assert channel.delivery == "wake"


@pytest.mark.parametrize("delivery", ["poll", "enter", "adaptive", "interrupt"])
def test_linger_is_wakes_alone(source, delivery):
    channel = moored.Channel(source)
    with pytest.raises(ValueError, match=r"linger=0\.1: delivery .* has none"):
        channel.on_batch(print, delivery, linger=0.1)
