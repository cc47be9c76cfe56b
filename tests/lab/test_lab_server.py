"""The lab's server under the real load sender: every event is accounted for, in every mode."""

from __future__ import annotations

import signal
import socket
import sys

import pytest
from lab_processes import MODES, Sender, Server, accounted
from support.limits import HANG_S
from support.processes import Ending, finish

from moored_lab.wakeup import paths
from moored_lab.wakeup.loops import impossible

pytestmark = pytest.mark.lab


def run_server(*options: str) -> Ending:
    command = [sys.executable, "-m", "moored_lab.wakeup.server", *options]
    return finish(*command)


def run_sender(*options: object) -> Ending:
    command = [str(paths.load_sender()), *map(str, options)]
    return finish(*command)


def run_program(text: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", text]
    done = finish(*command)
    return done.code, done.out, done.err


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_sent_is_delivered(mode: str, threads: int) -> None:
    with Server(mode, "--threads", threads) as server:
        assert len(server.ready["io_tids"]) == threads
        with Sender(server.port, 4000, 0.5) as sender:
            sent = sender.done()
        stopped = server.stop()
    stats = stopped["stats"]
    assert sent > 0
    assert accounted(stats) == sent
    assert stats["delivered"] == sent
    assert stopped["latency"]["count"] == sent


@pytest.mark.parametrize("mode", ["poll1", "wake", "kept", "borrowed", "asyncio-threadsafe"])
def test_a_busy_main_thread_loses_nothing(mode: str) -> None:
    with Server(mode, "--main-busy", 80) as server:
        with Sender(server.port, 500, 0.5) as sender:
            sent = sender.done()
        stats = server.stop()["stats"]
    assert accounted(stats) == sent == stats["delivered"]


@pytest.mark.parametrize("threads", [1, 2])
def test_switching_through_all_modes_under_load_loses_nothing(threads: int) -> None:
    phases = 0
    with (
        Server("null", "--threads", threads) as server,
        Sender(server.port, 5000, HANG_S) as sender,
    ):
        for mode in [*MODES, *reversed(MODES)]:
            switched = server.ask(do="mode", mode=mode)
            assert (switched["event"], switched["mode"]) == ("mode", mode)
            phases += switched["latency"]["count"]
            target = switched["stats"]["received"] + 300
            while server.ask(do="stats")["stats"]["received"] < target:
                pass
        sender.signal(signal.SIGTERM)
        sent = sender.done()
        stopped = server.stop()
    stats = stopped["stats"]
    assert accounted(stats) == sent == stats["delivered"]
    assert phases + stopped["latency"]["count"] == sent


def test_the_end_of_a_kept_state_is_the_switch() -> None:
    with Server("kept") as server:
        for mode in ("temporary", "kept", "temporary"):
            with Sender(server.port, 2000, 0.2) as sender:
                sender.done()
            server.ask(do="mode", mode=mode)
        with Sender(server.port, 2000, 0.2) as sender:
            in_temporary = sender.done()
        states = server.stop()["states"]
    assert states["states_made"] > in_temporary
    assert states["states_kept"] == 0


@pytest.mark.parametrize("mode", ["poll15", "asyncio-threadsafe"])
def test_a_small_queue_loses_and_counts(mode: str) -> None:
    with Server(mode, "--queue", 2, "--handler-us", 500) as server:
        with Sender(server.port, 10_000, 0.5) as sender:
            sent = sender.done()
        stats = server.stop()["stats"]
    assert accounted(stats) == sent
    assert stats["lost"] > 0
    assert stats["delivered"] > 0


@pytest.mark.parametrize("mode", ["wake", *(mode for mode in MODES if "channel" in mode)])
def test_a_server_that_cannot_keep_up_still_answers(mode: str) -> None:
    with (
        Server("null", "--queue", 1000, "--handler-us", 200) as server,
        Sender(server.port, 20_000, HANG_S),
    ):
        for _ in range(2):
            assert server.ask(do="mode", mode=mode)["mode"] == mode
            before = server.ask(do="stats")["stats"]["received"]
            while server.ask(do="stats")["stats"]["received"] < before + 1000:
                pass
        assert server.ask(do="mode", mode="null")["mode"] == "null"


def test_entries_tell_how_often_python_was_entered() -> None:
    entries = {}
    for mode in ("null", "poll15", "kept"):
        with Server(mode) as server:
            with Sender(server.port, 4000, 0.5) as sender:
                sent = sender.done()
            entries[mode] = server.stop()["stats"]["entries"]
        if mode == "kept":
            assert entries[mode] == sent
    assert entries["null"] == 0
    assert 0 < entries["poll15"] < entries["kept"]


def test_the_ready_line_describes_the_server() -> None:
    with Server("kept", "--handler-us", 50) as server:
        ready = server.ready
        server.stop()
    assert ready["event"] == "ready"
    assert ready["modes"] == MODES
    assert ready["pid"] == ready["main_tid"]
    assert ready["handler_us_asked"] == 50
    assert ready["handler_loops"] > 0
    assert ready["handler_us"] > 0


def test_a_bad_order_is_answered_and_survived() -> None:
    with Server("kept") as server:
        for line in ("not json", "[]", '{"do": "dance"}', '{"do": "mode", "mode": "warp"}', ""):
            server.tell(line)
            assert server.hear()["event"] == "error"
        assert server.ask(do="stats")["mode"] == "kept"
        server.stop()


def test_orders_that_come_in_one_piece_are_answered_one_by_one() -> None:
    with Server("asyncio-reader") as server:
        server.tell('{"do": "stats"}\n{"do": "mode", "mode": "kept"}\n{"do": "stats"}')
        assert [server.hear()["event"] for _ in range(3)] == ["stats", "mode", "stats"]
        server.stop()


@pytest.mark.parametrize("mode", ["kept", "poll15", "asyncio-threadsafe"])
def test_the_end_of_stdin_stops_the_server(mode: str) -> None:
    with Server(mode) as server:
        with Sender(server.port, 1000, 0.1) as sender:
            sent = sender.done()
        assert server.process.stdin is not None
        server.process.stdin.close()
        stopped = server.hear()
        assert server.exit_code() == 0
        server.process.stdin = None
    assert accounted(stopped["stats"]) == sent


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", MODES)
def test_a_signal_stops_the_server_even_with_a_client_connected(mode: str, which: int) -> None:
    with (
        Server(mode) as server,
        socket.create_connection(("127.0.0.1", server.port), HANG_S) as client,
    ):
        client.sendall(bytes(64))
        while server.ask(do="stats")["stats"]["received"] < 1:
            pass
        server.signal(which)
        assert client.recv(1) == b""
        assert accounted(server.hear()["stats"]) == 1
        assert server.exit_code() == 0


def test_an_unknown_mode_is_one_line_and_a_usage_error() -> None:
    done = run_server("--mode", "warp")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "warp" in done.err
    assert "asyncio-reader" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    "options",
    [
        ["--threads", "0"],
        ["--main-busy", "101"],
        ["--queue", "0"],
        ["--handler-us", "nan"],
        ["--port", "70000"],
        ["--cpu", "x"],
        ["--cpu", "4096"],
        ["--threads", "two"],
    ],
)
def test_a_bad_option_is_one_line_and_a_usage_error(options: list[str]) -> None:
    done = run_server("--mode", "kept", *options)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert options[0] in done.err


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_server("--mode", "kept", "--port", str(port))
    assert done.code == 1
    assert done.err == (
        f"moored_lab.wakeup.server: port {port} is taken: give another one, or 0 for a free one\n"
    )


def test_a_server_in_this_process_leaves_no_thread() -> None:
    program = """
import os, pathlib
from moored_lab.wakeup.running import RunningServer, ServerOptions
with RunningServer(ServerOptions(mode="kept", threads=3), print, []) as server:
    # The kernel may have threads of its own there, for io_uring.
    names = [name.read_text() for name in pathlib.Path("/proc/self/task").glob("*/comm")]
    print(sum(name.startswith("moored-io") for name in names))
# The kernel lists a thread for a moment after it has been joined.
while len(os.listdir("/proc/self/task")) != 1:
    os.sched_yield()
print(len(os.listdir("/proc/self/task")))
"""
    assert run_program(program) == (0, "3\n1\n", "")


def test_an_interpreter_that_ends_first_ends_the_server() -> None:
    program = """
from moored_lab.wakeup.running import RunningServer, ServerOptions
server = RunningServer(ServerOptions(mode="kept", threads=3), print, [])
print("ends")
"""
    code, output, _ = run_program(program)
    assert (code, output) == (0, "ends\n")


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_the_sender_without_a_server_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unheard:
        port = unheard.getsockname()[1]
    done = run_sender("--port", port, "--rate", 10, "--seconds", 1)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.out == ""


@pytest.mark.parametrize(
    "options", [[], ["--port"], ["--port", 1, "--rate", -1, "--seconds", 1], ["--warp", 9]]
)
def test_the_sender_refuses_bad_options(options: list[object]) -> None:
    done = run_sender(*options)
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_the_sender_never_skips_and_marks_the_planned_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Sender(listener.getsockname()[1], 20_000, 0.3, "--connections", 1) as sender,
    ):
        connection, _ = listener.accept()
        with connection:
            received = read_all(connection)
        sent = sender.done()
    assert len(received) == 64 * sent
    frames = [received[at : at + 64] for at in range(0, len(received), 64)]
    sequences = [int.from_bytes(frame[:8], "little") for frame in frames]
    planned = [int.from_bytes(frame[8:16], "little") for frame in frames]
    assert sequences == list(range(sent))
    assert planned == sorted(planned)
    assert all(frame[16:] == bytes(48) for frame in frames)
    assert 0.9 * 0.3e9 < planned[-1] - planned[0] <= 0.3e9


def test_the_same_seed_plans_the_same_arrivals() -> None:
    gaps = []
    for _ in range(2):
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            Sender(listener.getsockname()[1], 1000, 0.1, "--connections", 1) as sender,
        ):
            connection, _ = listener.accept()
            with connection:
                received = read_all(connection)
            sender.done()
        planned = [
            int.from_bytes(received[at + 8 : at + 16], "little")
            for at in range(0, len(received), 64)
        ]
        gaps.append([round((later - planned[0]) / 1e3) for later in planned])
    assert gaps[0][:50] == pytest.approx(gaps[1][:50], abs=1)


def test_a_sender_that_is_stopped_early_still_tells_its_sum() -> None:
    with Server("kept") as server:
        with Sender(server.port, 1000, HANG_S) as sender:
            sender.signal(signal.SIGTERM)
            sent = sender.done()
        assert accounted(server.stop()["stats"]) == sent


def test_a_mode_that_cannot_run_here_says_why() -> None:
    for mode, reason in impossible().items():
        done = run_server("--mode", mode)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert reason in done.err
