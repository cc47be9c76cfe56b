"""moored.Channel without an event loop: taking, iterating, handlers, stats, bad input."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from itertools import chain, pairwise

import pytest

import moored

HAS_INTERRUPT = sys.version_info >= (3, 13)
DELIVERIES = ["poll", "wake", "enter", "adaptive"] + ["interrupt"] * HAS_INTERRUPT


def balanced(stats):
    dropped = stats["dropped"]
    return stats["sent"] == (
        stats["delivered"]
        + stats["depth"]
        + dropped["oldest"]
        + dropped["unconvertible"]
        + dropped["undelivered"]
    )


def test_take_gives_what_is_queued_in_order(native):
    source = native.Source()
    channel = moored.Channel(source)
    assert channel.take() == []
    for number in range(5):
        assert source.send(number) == "queued"
    assert channel.take(2) == [0, 1]
    assert channel.take(0) == []
    assert channel.take() == [2, 3, 4]
    assert channel.stats()["delivered"] == 5


@pytest.mark.parametrize("senders", [1, 2, 8])
def test_iterating_gives_every_event_and_ends_when_closed(native, senders):
    source = native.Source(capacity=100)
    channel = moored.Channel(source)
    source.start(senders, 2000)
    closer = threading.Thread(target=lambda: (source.join(), source.close()))
    closer.start()
    numbers = [number for batch in channel for number in batch]
    closer.join()
    assert sorted(numbers) == [s * 1_000_000 + n for s in range(senders) for n in range(2000)]
    for sender in range(senders):
        mine = [number for number in numbers if number // 1_000_000 == sender]
        assert all(a < b for a, b in pairwise(mine))
    assert balanced(channel.stats())


def test_several_threads_share_a_channel(native):
    source = native.Source(capacity=50)
    taken = [[] for _ in range(3)]

    def consume(into):
        for batch in moored.Channel(source):
            into.extend(batch)

    threads = [threading.Thread(target=consume, args=(into,)) for into in taken]
    for thread in threads:
        thread.start()
    source.start(2, 3000)
    source.join()
    source.close()
    for thread in threads:
        thread.join()
    assert sorted(chain.from_iterable(taken)) == [
        s * 1_000_000 + n for s in range(2) for n in range(3000)
    ]


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("when_full", ["block", "reject", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("senders", [1, 8])
def test_nothing_is_lost_uncounted(native, delivery, when_full, senders):
    source = native.Source(capacity=32, when_full=when_full)
    channel = moored.Channel(source)
    seen = []
    channel.fileno()  # this test is the event loop
    channel.on_batch(seen.extend, "poll")
    channel.delivery = delivery
    source.start(senders, 1000)
    while source.running() or channel.stats()["depth"]:
        channel.acknowledge()
        channel.deliver()
    source.join()
    stats = channel.stats()
    queued, dropped, rejected, closed = source.came()
    assert balanced(stats)
    assert stats["delivered"] == len(seen)
    assert (stats["sent"], stats["dropped"]["newest"]) == (queued, dropped)
    assert (stats["dropped"]["rejected"], closed) == (rejected, 0)
    assert queued + dropped + rejected == senders * 1000
    if when_full == "block":
        assert len(seen) == senders * 1000
    channel.on_batch(None)


def test_enter_runs_the_handler_on_the_sending_thread(native):
    source = native.Source()
    channel = moored.Channel(source)
    threads = []
    channel.on_batch(lambda batch: threads.append(threading.get_ident()), "enter")
    source.send_from_thread(1)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    channel.on_batch(None)


@pytest.mark.skipif(not HAS_INTERRUPT, reason="interrupt needs Python 3.13")
def test_interrupt_runs_it_on_the_busy_main_thread(native):
    source = native.Source()
    channel = moored.Channel(source)
    threads = []
    channel.on_batch(lambda batch: threads.append(threading.get_ident()), "interrupt")
    source.start(1, 1)
    while not threads:
        pass
    assert threads == [threading.get_ident()]
    channel.on_batch(None)


@pytest.mark.skipif(HAS_INTERRUPT, reason="here interrupt is there")
def test_interrupt_is_refused_below_3_13(native):
    channel = moored.Channel(native.Source())
    with pytest.raises(NotImplementedError, match=r"needs CPython 3\.13"):
        channel.on_batch(print, "interrupt")
    with pytest.raises(NotImplementedError, match=r"needs CPython 3\.13"):
        channel.delivery = "interrupt"
    assert channel.delivery == "wake"


@pytest.mark.parametrize("delivery", ["enter", "adaptive"] + ["interrupt"] * HAS_INTERRUPT)
def test_a_handler_that_raises_is_reported_and_the_channel_lives_on(native, delivery, monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))
    source = native.Source()
    channel = moored.Channel(source)
    seen = []

    def handler(batch):
        seen.extend(batch)
        raise ValueError

    channel.on_batch(handler, delivery)
    for number in range(3):
        source.send_from_thread(number)
        while channel.stats()["depth"]:
            pass
    while len(reports) < 3:
        pass
    assert seen == [0, 1, 2]
    assert reports == [ValueError] * 3
    channel.on_batch(None)


@pytest.mark.skipif(not HAS_INTERRUPT, reason="interrupt needs Python 3.13")
def test_sys_exit_in_an_interrupt_is_mains(native):
    source = native.Source()
    channel = moored.Channel(source)
    channel.on_batch(lambda batch: sys.exit(3), "interrupt")

    def busy():
        source.start(1, 1)
        while True:
            pass

    with pytest.raises(SystemExit):
        busy()
    channel.on_batch(None)


def test_an_event_that_cannot_be_converted_is_reported_and_counted(native, monkeypatch):
    reports = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_type))
    source = native.Source()
    channel = moored.Channel(source)
    for number in (1, -1, 2):
        source.send(number)
    assert channel.take() == [1, 2]
    assert reports == [ValueError]
    assert channel.stats()["dropped"]["unconvertible"] == 1
    assert balanced(channel.stats())


def test_wait_says_whether_there_is_something(native):
    source = native.Source()
    channel = moored.Channel(source)
    assert not channel.wait(0)
    assert not channel.wait(0.001)
    source.send(1)
    assert channel.wait(0)
    assert channel.wait()
    channel.take()
    channel.close()
    assert channel.wait()


def test_a_closed_channel_refuses_and_still_gives_what_was_sent(native):
    source = native.Source()
    with moored.Channel(source) as channel:
        source.send(1)
        assert not channel.closed
    assert channel.closed
    assert source.send(2) == "closed"
    assert list(channel) == [[1]]
    assert channel.stats()["dropped"]["refused"] == 1


def test_the_end_of_the_source_closes_the_channel(native):
    source = native.Source()
    channel = moored.Channel(source)
    source.send(1)
    del source
    gc.collect()
    assert list(channel) == [[1]]


def test_the_capsule_keeps_the_channel_and_lets_it_go(native):
    source = native.Source(name="telemetry")
    channel = moored.Channel(source.__moored_channel__())
    assert channel.name == "telemetry"
    assert "telemetry" in repr(channel)

    class Handler:
        def __call__(self, batch):
            pass

    handler = Handler()
    gone = weakref.ref(handler)
    channel.on_batch(handler, "enter")
    del handler
    assert gone() is not None
    del channel, source
    gc.collect()
    assert gone() is None


def test_bad_input_is_told_in_words(native):
    with pytest.raises(TypeError, match=r"capsule named 'moored\.channel\.1'.*not int"):
        moored.Channel(5)
    with pytest.raises(TypeError, match="have no Python form"):
        native.no_channel()
    channel = moored.Channel(native.Source())
    with pytest.raises(ValueError, match="unknown delivery 'push'"):
        channel.on_batch(print, "push")
    with pytest.raises(TypeError, match="must be callable"):
        channel.on_batch(5, "enter")
    with pytest.raises(RuntimeError, match="needs an event loop"):
        channel.on_batch(print)
    with pytest.raises(ValueError, match="limit -1"):
        channel.take(-1)
    with pytest.raises(ValueError, match="nan"):
        channel.wait(float("nan"))

    async def handler(batch):
        pass

    with pytest.raises(TypeError, match="async"):
        channel.on_batch(handler, "enter")
