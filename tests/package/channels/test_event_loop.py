"""moored.EventLoop: handlers run while it waits, and all else is as in a stock loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import signal
import socket
import sys
import threading
import weakref

import pytest
from support.limits import HANG_S

import moored
from moored import _core
from moored._event_loop import DeliveringSelector


@pytest.fixture
def loop():
    made = moored.EventLoop()
    yield made
    if not made.is_closed():
        made.close()


@pytest.fixture
def source(native):
    return native.Source()


def run(loop, coroutine):
    return loop.run_until_complete(asyncio.wait_for(coroutine, HANG_S))


def is_in_select():
    """Whether the caller runs within the selector's wait, rather than as a callback."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code is DeliveringSelector.select.__code__:
            return True
        frame = frame.f_back
    return False


class Flood:
    """Two channels whose handlers send to each other: one of them is always readable."""

    def __init__(self, native):
        self.sources = [native.Source(), native.Source()]
        self.channels = [moored.Channel(source) for source in self.sources]
        self.deliveries = 0
        self.within = 0

    def start(self):
        for channel, other in zip(self.channels, reversed(self.sources), strict=True):
            channel.on_batch(lambda batch, other=other: self.handle(other))
        self.sources[0].send(1)

    def handle(self, other):
        self.deliveries += 1
        self.within += is_in_select()
        other.send(1)

    def stop(self):
        for channel in self.channels:
            channel.on_batch(None)


@pytest.fixture
def flood(native):
    return Flood(native)


# -- where a handler runs -------------------------------------------------------------------------


def test_importing_moored_does_not_import_asyncio(end_of):
    ending = end_of("""
        import sys, moored
        print("asyncio" in sys.modules, "EventLoop" in dir(moored))
        print(issubclass(moored.EventLoop, sys.modules["asyncio"].SelectorEventLoop))
        try:
            moored.EventLoops
        except AttributeError as error:
            print(error)
    """)
    assert (ending.code, ending.err) == (0, "")
    assert ending.out == "False True\nTrue\nmodule 'moored' has no attribute 'EventLoops'\n"


def test_a_handler_runs_in_select_as_a_callback_would(loop, source):
    variable = contextvars.ContextVar("variable", default="outside")
    told = []

    async def main():
        heard = loop.create_future()

        def handler(batch):
            told.append((is_in_select(), variable.get(), threading.get_ident()))
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is None
            variable.set("changed by the handler")
            heard.set_result(batch)

        variable.set("of on_batch")
        moored.Channel(source).on_batch(handler)
        variable.set("of main")
        source.send_from_thread(1)
        assert await heard == [1]
        assert variable.get() == "of main"

    run(loop, main())
    assert told == [(True, "of on_batch", threading.get_ident())]
    assert variable.get() == "outside"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.Runner came with 3.11")
def test_in_a_runner(source):
    async def main():
        source.send_from_thread(7)
        return type(asyncio.get_running_loop()), await moored.Channel(source).get()

    with asyncio.Runner(loop_factory=moored.EventLoop) as runner:
        assert runner.run(main()) == (moored.EventLoop, 7)


def test_in_debug_mode_it_is_a_callback_and_slow_ones_are_logged(loop, source, caplog):
    within = []

    async def main():
        heard = loop.create_future()

        def handler(batch):
            within.append(is_in_select())
            heard.set_result(None)

        moored.Channel(source).on_batch(handler)
        loop.set_debug(True)
        loop.slow_callback_duration = 0
        source.send_from_thread(1)
        await heard
        loop.slow_callback_duration = HANG_S

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        run(loop, main())
    assert within == [False]
    assert any("AsyncioWatch" in record.getMessage() for record in caplog.records)


def test_a_loop_that_is_busy_runs_a_handler_in_its_turn(loop, source):
    order = []

    async def main():
        heard = loop.create_future()

        def handler(batch):
            order.append("handler")
            heard.set_result(None)

        moored.Channel(source).on_batch(handler)
        source.send_from_thread(1)
        loop.call_soon(order.append, "before")
        await heard

    run(loop, main())
    assert order == ["before", "handler"]


# -- what a handler asks of the loop --------------------------------------------------------------


def by_call_soon(loop, done):
    loop.call_soon(done.set_result, None)


def by_call_later(loop, done):
    loop.call_later(0.001, done.set_result, None)


def by_call_at(loop, done):
    loop.call_at(loop.time(), done.set_result, None)


def by_a_future(loop, done):
    done.set_result(None)


def by_a_task(loop, done):
    async def set_it():
        await asyncio.sleep(0)
        done.set_result(None)

    done.task = loop.create_task(set_it())


def by_a_cancellation(loop, done):
    done.cancel()


def by_call_soon_threadsafe(loop, done):
    loop.call_soon_threadsafe(done.set_result, None)


def by_another_thread(loop, done):
    threading.Thread(target=loop.call_soon_threadsafe, args=(done.set_result, None)).start()


def by_a_reader(loop, done):
    ours, theirs = socket.socketpair()

    def read():
        loop.remove_reader(ours)
        done.set_result(None)

    loop.add_reader(ours, read)
    done.sockets = ours, theirs
    theirs.send(b"x")


def by_a_signal(loop, done):
    def handler():
        loop.remove_signal_handler(signal.SIGUSR1)
        done.set_result(None)

    loop.add_signal_handler(signal.SIGUSR1, handler)
    signal.raise_signal(signal.SIGUSR1)


@pytest.mark.parametrize(
    "ask",
    [
        by_call_soon,
        by_call_later,
        by_call_at,
        by_a_future,
        by_a_task,
        by_a_cancellation,
        by_call_soon_threadsafe,
        by_another_thread,
        by_a_reader,
        by_a_signal,
    ],
)
@pytest.mark.parametrize("has_timer", [False, True])
def test_what_a_handler_asks_of_the_loop_is_not_slept_past(loop, source, ask, has_timer):
    class Done(asyncio.Future):
        """A future that things can be hung on."""

    async def main():
        done = Done(loop=loop)
        within = []

        def handler(batch):
            within.append(is_in_select())
            ask(loop, done)

        moored.Channel(source).on_batch(handler)
        source.send_from_thread(1)
        await asyncio.gather(done, return_exceptions=True)
        assert within == [True]

    # Without a timer the loop would wait for ever, and the test's limit ends it.
    if has_timer:
        run(loop, main())
    else:
        loop.run_until_complete(main())


def test_a_handler_can_stop_the_loop(loop, source):
    async def main():
        moored.Channel(source).on_batch(lambda batch: loop.stop())

    loop.run_until_complete(main())
    for number in range(3):
        source.send(number)
        loop.run_forever()
    assert source.send(3) == "queued"
    loop.run_forever()


def test_the_methods_look_like_those_of_asyncio():
    for name in ("call_soon", "call_at", "stop"):
        ours, stock = getattr(moored.EventLoop, name), getattr(asyncio.SelectorEventLoop, name)
        assert inspect.signature(ours) == inspect.signature(stock)
        assert (ours.__name__, ours.__doc__) == (name, stock.__doc__)


def test_a_subclass_can_have_methods_of_its_own(source):
    class Loop(moored.EventLoop):
        asked = 0

        def call_soon(self, callback, *args, context=None):
            self.asked += 1
            return super().call_soon(callback, *args, context=context)

    loop = Loop()

    async def main():
        done = loop.create_future()
        moored.Channel(source).on_batch(lambda batch: loop.call_soon(done.set_result, batch))
        source.send_from_thread(1)
        asked = loop.asked
        assert await done == [1]
        assert loop.asked > asked

    loop.run_until_complete(main())
    loop.close()


# -- fairness -------------------------------------------------------------------------------------


async def delivered_in_select(flood):
    while not flood.within:
        await asyncio.sleep(0.001)


def test_a_flood_leaves_timers_their_order(loop, flood):
    async def main():
        flood.start()
        await delivered_in_select(flood)
        order = []
        done = loop.create_future()
        now = loop.time()
        for number in (3, 1, 2):
            loop.call_at(now + number / 1000, order.append, number)
        loop.call_at(now + 0.004, done.set_result, None)
        await done
        assert order == [1, 2, 3]
        flood.stop()

    run(loop, main())


def test_a_flood_leaves_other_descriptors_their_turn(loop, flood):
    async def main():
        flood.start()
        await delivered_in_select(flood)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        for _ in range(20):
            reading = loop.create_task(loop.sock_recv(ours, 1))
            before = flood.deliveries
            while flood.deliveries < before + 10:
                await asyncio.sleep(0.001)
            theirs.send(b"x")
            assert await reading == b"x"
        flood.stop()
        ours.close()
        theirs.close()

    run(loop, main())


def test_a_flood_leaves_other_threads_their_turn(loop, flood):
    async def main():
        flood.start()
        await delivered_in_select(flood)
        for _ in range(20):
            assert await loop.run_in_executor(None, threading.get_ident)
        flood.stop()

    run(loop, main())


@pytest.mark.parametrize("count", [2, 200])
def test_every_one_of_many_channels_is_heard(loop, native, count):
    sources = [native.Source() for _ in range(count)]
    seen = {index: [] for index in range(count)}

    async def main():
        done = loop.create_future()
        rest = count * 50

        def make_handler(index):
            def handler(batch):
                nonlocal rest
                seen[index].extend(batch)
                rest -= len(batch)
                if rest == 0:
                    done.set_result(None)

            return handler

        for index, source in enumerate(sources):
            moored.Channel(source).on_batch(make_handler(index))

        def send():
            for number in range(50):
                for source in sources:
                    source.send(number)

        threading.Thread(target=send).start()
        await done

    run(loop, main())
    assert all(events == list(range(50)) for events in seen.values())


# -- the ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("raises", [ValueError, asyncio.CancelledError])
def test_what_a_handler_raises_in_select_is_reported(loop, source, raises):
    reports, seen = [], []

    async def main():
        loop.set_exception_handler(lambda _, context: reports.append((context, is_in_select())))
        done = loop.create_future()

        def handler(batch):
            seen.extend(batch)
            if len(seen) == 2:
                done.set_result(None)
            else:
                raise raises("by the test")

        moored.Channel(source).on_batch(handler)
        source.send_from_thread(1)
        while not reports:
            await asyncio.sleep(0.001)
        source.send_from_thread(2)
        await done

    run(loop, main())
    ((context, within),) = reports
    assert within
    assert type(context["exception"]) is raises
    assert context["message"] == "the handler of channel 'numbers' raised"


@pytest.mark.parametrize("raises", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_the_run_and_the_rest_is_delivered_later(loop, native, raises):
    sources = [native.Source() for _ in range(3)]
    seen = []

    def handler(batch):
        seen.extend(batch)
        if len(seen) == 1:
            raise raises

    async def main():
        for source in sources:
            moored.Channel(source).on_batch(handler)

    loop.run_until_complete(main())
    for number, source in enumerate(sources):
        source.send(number)
    with pytest.raises(raises):
        loop.run_forever()
    assert not loop.is_running()
    while len(seen) < 3:
        loop.run_until_complete(asyncio.sleep(0))
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("raises", [False, True])
def test_a_signal_is_handled_while_it_waits(loop, source, raises):
    heard = threading.Event()
    main_thread = threading.get_ident()

    class Raised(BaseException):
        pass

    def on_signal(*_):
        if heard.is_set() or not is_in_select():
            return
        heard.set()
        if raises:
            raise Raised
        source.send(1)  # the wait goes on, and hears of it

    def send_signals():
        while not heard.wait(0.001):
            signal.pthread_kill(main_thread, signal.SIGUSR1)

    async def main():
        done = loop.create_future()
        moored.Channel(source).on_batch(done.set_result)
        assert await done == [1]

    before = signal.signal(signal.SIGUSR1, on_signal)
    thread = threading.Thread(target=send_signals)
    task = loop.create_task(main())
    thread.start()
    try:
        if raises:
            with pytest.raises(Raised):
                loop.run_until_complete(task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
        else:
            loop.run_until_complete(task)
    finally:
        heard.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_in_a_runner(end_of):
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.Runner came with 3.11")
    ending = end_of("""
        import asyncio, signal, moored, channel_source
        source = channel_source.Source()

        async def main():
            moored.Channel(source).on_batch(lambda batch: signal.raise_signal(signal.SIGINT))
            source.send_from_thread(1)
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                print("cancelled")
                raise

        try:
            with asyncio.Runner(loop_factory=moored.EventLoop) as runner:
                runner.run(main())
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
    """)
    assert (ending.code, ending.out, ending.err) == (0, "cancelled\nKeyboardInterrupt\n", "")


def test_a_handler_closes_its_channel(loop, source):
    class Handler:
        def __init__(self, channel, done):
            self.channel, self.done = channel, done

        def __call__(self, batch):
            assert is_in_select()
            self.channel.close()
            self.done.set_result(batch)

    async def main():
        channel = moored.Channel(source)
        handler = Handler(channel, loop.create_future())
        gone = weakref.ref(handler)
        channel.on_batch(handler)
        source.send_from_thread(1)
        assert await handler.done == [1]
        assert source.send(2) == "closed"
        del handler, channel
        while gone() is not None:
            await asyncio.sleep(0.001)
            gc.collect()

    run(loop, main())
    assert not loop._delivering._readers


def test_a_handler_can_end_the_delivery_of_another(loop, native):
    sources = [native.Source() for _ in range(2)]
    channels = [moored.Channel(source) for source in sources]
    seen = []

    def handler(batch):
        seen.extend(batch)
        for channel in channels:
            channel.on_batch(None)

    async def main():
        for channel in channels:
            channel.on_batch(handler)

    loop.run_until_complete(main())
    for number, source in enumerate(sources):
        source.send(number)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert len(seen) == 1
    left = [channel.take() for channel in channels]
    assert sorted([*left, seen]) == [[], [0], [1]]


def test_a_closed_loop_keeps_nothing(native):
    class Handler:
        def __call__(self, batch):
            pass

    loop = moored.EventLoop()
    source, handler = native.Source(), Handler()
    channel = moored.Channel(source)

    async def main(handler):
        channel.on_batch(handler)

    loop.run_until_complete(main(handler))
    loop.close()
    channel.on_batch(None)
    gone, loop_gone = weakref.ref(handler), weakref.ref(loop)
    del handler, loop
    assert (gone(), loop_gone()) == (None, None)


def test_subprocesses(loop, source):
    async def main():
        channel = moored.Channel(source)
        words = (sys.executable, "-c", "print(input())")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
        seen = []
        channel.on_batch(seen.extend)
        source.send_from_thread(1)
        out, _ = await process.communicate(b"said\n")
        while not seen:
            await asyncio.sleep(0.001)
        assert (out, process.returncode, seen) == (b"said\n", 0, [1])

    run(loop, main())


# -- readers --------------------------------------------------------------------------------------


class Told(_core.Reader):
    """A reader whose consumer is the test."""

    def __init__(self, source, tell):
        self.descriptor = moored.Channel(source)._native.descriptor(True)
        super().__init__(self.descriptor)
        self.tell = tell

    def on_told(self):
        self.tell()


def test_what_a_reader_raises_is_reported(loop, source):
    async def main():
        reported = loop.create_future()
        loop.set_exception_handler(lambda _, context: reported.set_result(context))
        error = ValueError("by the test")

        def tell():
            assert is_in_select()
            raise error

        reader = Told(source, tell)
        loop.add_reader(reader.descriptor.fileno(), reader)
        source.send_from_thread(1)
        assert (await reported)["exception"] is error
        loop.remove_reader(reader.descriptor.fileno())

    run(loop, main())


def test_another_callback_takes_the_place_of_a_reader(loop, source):
    async def main():
        told = []
        reader = Told(source, lambda: told.append("reader"))
        fd = reader.descriptor.fileno()
        loop.add_reader(fd, reader)
        done = loop.create_future()

        def callback():
            reader.descriptor.acknowledge()
            done.set_result(is_in_select())

        loop.add_reader(fd, callback)
        source.send_from_thread(1)
        assert not await done
        assert told == []
        assert loop.remove_reader(fd)
        assert not loop.remove_reader(fd)

    run(loop, main())


def test_a_reader_is_of_a_descriptor_and_takes_no_arguments(source):
    with pytest.raises(TypeError):
        _core.Reader(1)
    reader = Told(source, print)
    with pytest.raises(TypeError, match="takes no arguments"):
        reader(1)
    with pytest.raises(TypeError):
        _core.deliver_or_wait(0, [], None, print)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _core.deliver_or_wait(-1, {}, 0.0, print)
