"""How a process with channels ends: nothing lost uncounted, no crash, no hang."""

from __future__ import annotations

import sys

import pytest

DELIVERIES = ["wake", "enter", "adaptive"] + ["interrupt"] * (sys.version_info >= (3, 13))


def test_events_that_nobody_took_are_reported(end_of):
    ending = end_of("""
        import moored, channel_source
        source = channel_source.Source(name="telemetry")
        channel = moored.Channel(source)
        for number in range(3):
            source.send(number)
    """)
    assert ending.code == 0
    assert ending.err == "moored: channel 'telemetry' ends with 3 event(s) that were not taken\n"


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_exit_under_load(end_of, delivery):
    ending = end_of(f"""
        import moored, channel_source
        source = channel_source.Source(capacity=64)
        channel = moored.Channel(source)
        seen = []
        channel.fileno()  # this program is the event loop
        channel.on_batch(seen.extend, "poll")
        channel.delivery = {delivery!r}
        source.start(4, -1)
        while len(seen) < 1000:
            channel.acknowledge()
            channel.deliver()
    """)
    assert (ending.code, ending.err) == (0, "")


def test_exit_while_a_daemon_thread_iterates(end_of):
    ending = end_of("""
        import threading, moored, channel_source
        source = channel_source.Source(capacity=64)
        channel = moored.Channel(source)
        started = threading.Event()
        def consume():
            for batch in channel:
                started.set()
        threading.Thread(target=consume, daemon=True).start()
        source.start(2, -1)
        started.wait()
    """)
    assert ending.code == 0
    assert ending.err == "" or "that were not taken" in ending.err


def test_exit_while_a_daemon_thread_waits_for_the_first_event(end_of):
    ending = end_of("""
        import threading, moored, channel_source
        source = channel_source.Source()
        channel = moored.Channel(source)
        threading.Thread(target=lambda: list(channel), daemon=True).start()
    """)
    assert (ending.code, ending.err) == (0, "")


def test_exit_out_of_an_asyncio_loop_under_load(end_of):
    ending = end_of("""
        import asyncio, moored, channel_source
        source = channel_source.Source(capacity=64)
        async def main():
            channel = moored.Channel(source)
            source.start(2, -1)
            async for batch in channel:
                break
        asyncio.run(main())
    """)
    assert ending.code == 0
    assert ending.err == "" or "that were not taken" in ending.err


def test_ctrl_c_reaches_who_waits(end_of):
    ending = end_of("""
        import signal, threading, time, moored, channel_source
        source = channel_source.Source()
        channel = moored.Channel(source)
        main = threading.main_thread().ident
        heard = []
        def interrupt():
            # Again and again: one that comes just before the wait begins is not noticed by it.
            while not heard:
                signal.pthread_kill(main, signal.SIGINT)
                time.sleep(0.01)
        waiting = []
        def once(*_):
            if waiting and not heard:
                heard.append(1)
                raise KeyboardInterrupt
        signal.signal(signal.SIGINT, once)
        threading.Thread(target=interrupt).start()
        try:
            waiting.append(1)
            for batch in channel:
                pass
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert (ending.code, ending.out, ending.err) == (0, "interrupted\n", "")


def test_a_forked_child_has_a_closed_channel_and_the_parent_its_events(end_of):
    ending = end_of("""
        import os, warnings, moored, channel_source
        warnings.simplefilter("ignore")
        source = channel_source.Source(capacity=1_000_000, when_full="reject")
        channel = moored.Channel(source)
        source.start(2, -1)
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                ok = channel.closed and channel.take() == [] and source.send(1) == "closed"
                os._exit(0 if ok else 1)
            assert os.waitpid(pid, 0)[1] == 0
        source.stop()
        source.join()
        assert len(channel.take()) == channel.stats()["sent"]
    """)
    assert (ending.code, ending.err) == (0, "")
