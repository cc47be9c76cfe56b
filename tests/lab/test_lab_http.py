"""The lab's server speaking HTTP/1.1: to wrk in every mode, and to a socket that plays tricks."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from lab_processes import MODES, Child, Server, accounted
from support.limits import HANG_S
from support.processes import finish

pytestmark = pytest.mark.lab

QUEUED_MODES = [
    *("poll15", "wake", "enter", "asyncio-threadsafe", "asyncio-reader"),
    *("channel-poll", "channel-wake", "channel-enter", "channel-adaptive", "channel-asyncio"),
]


@contextmanager
def talking_to(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), HANG_S) as client:
        yield client


def answers(client: socket.socket, count: int, method: str = "GET") -> list[tuple[int, bytes]]:
    """Read that many answers from one connection, each with a parser that is not ours."""
    with client.makefile("rb") as stream:
        got = []
        for _ in range(count):
            response = http.client.HTTPResponse(_Stream(stream), method=method)
            response.begin()
            got.append((response.status, response.read()))
        return got


class _Stream(socket.socket):
    """Gives HTTPResponse one shared stream, which it may not close between answers."""

    def __init__(self, stream: object) -> None:
        self._stream = stream

    def makefile(self, *_: object, **__: object) -> object:  # type: ignore[override]
        stream = self._stream

        class Kept:
            def __getattr__(self, name: str) -> object:
                return getattr(stream, name)

            def close(self) -> None:
                pass

        return Kept()


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: lab\r\n{more}\r\n".encode()


def closed(client: socket.socket) -> bool:
    return client.recv(1) == b""


class Wrk:
    """wrk at a server, until end() or until the `with` ends."""

    def __init__(self, server: Server) -> None:
        wrk = shutil.which("wrk")
        if wrk is None:
            pytest.skip("wrk is not installed (apt install wrk)")
        # It takes an answer that comes after its own time limit, 2 s, for an error.
        limits = [f"--timeout={HANG_S}s", f"-d{HANG_S}s"]
        command = [wrk, "-t1", "-c8", *limits, f"http://127.0.0.1:{server.port}/hello"]
        self.server = server
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Wrk:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def goes_on_until(self, what: str, count: int) -> None:
        """Wait until the server has counted so many."""
        while self.server.ask(do="stats")["stats"][what] < count:
            assert self.process.poll() is None

    def end(self) -> int:
        """Have it end well; return how many answers it got."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=HANG_S)
        assert self.process.returncode == 0, output
        assert "Socket errors" not in output
        assert "Non-2xx" not in output
        found = re.search(r"(\d+) requests in", output)
        assert found is not None, output
        return int(found[1])


@pytest.mark.parametrize("mode", MODES)
def test_wrk_counts_no_error(mode: str) -> None:
    with Server(mode, "--http", "--threads", 2) as server:
        with Wrk(server) as client:
            client.goes_on_until("delivered", 500)
            answered = client.end()
        stats = server.stop()["stats"]
    assert answered > 0
    assert accounted(stats) == stats["delivered"] >= answered


@pytest.mark.parametrize("mode", ["kept", *QUEUED_MODES])
def test_pipelined_requests_are_answered_in_order(mode: str) -> None:
    with Server(mode, "--http") as server, talking_to(server) as client:
        client.sendall(b"".join(get(f"/{n}") for n in range(500)))
        assert answers(client, 500) == [(200, b"GET /%d\n" % n) for n in range(500)]
        client.sendall(get("/again"))
        assert answers(client, 1) == [(200, b"GET /again\n")]


def test_a_client_that_reads_late_still_gets_everything() -> None:
    count = 20_000
    with Server("kept", "--http") as server, talking_to(server) as client:
        sender = subprocess.Popen(
            [sys.executable, "-c", _FLOOD, str(client.fileno()), str(count)],
            pass_fds=[client.fileno()],
        )
        try:
            while server.ask(do="stats")["stats"]["received"] < 2000:
                pass
            assert answers(client, count)[-1] == (200, b"GET /%d\n" % (count - 1))
        finally:
            sender.kill()
            sender.wait()


_FLOOD = """
import socket, sys
client = socket.socket(fileno=int(sys.argv[1]))
for n in range(int(sys.argv[2])):
    client.sendall(b"GET /%d HTTP/1.1\\r\\nHost: lab\\r\\n\\r\\n" % n)
"""


def test_a_request_may_come_byte_by_byte() -> None:
    with Server("kept", "--http") as server, talking_to(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in get("/slow"):
            client.sendall(bytes([byte]))
        assert answers(client, 1) == [(200, b"GET /slow\n")]


def test_head_has_a_length_and_no_body() -> None:
    with Server("kept", "--http") as server, talking_to(server) as client:
        client.sendall(b"HEAD /x HTTP/1.1\r\nHost: lab\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"Content-Length: 8\r\n" in head
        client.sendall(get("/y"))
        assert answers(client, 1) == [(200, b"GET /y\n")]


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_a_post_body_is_read_and_the_next_request_answered(body: bytes) -> None:
    with Server("wake", "--http") as server, talking_to(server) as client:
        client.sendall(b"POST /p HTTP/1.1\r\nHost: lab\r\n" + body + get("/next"))
        assert answers(client, 2) == [(200, b"POST /p\n"), (200, b"GET /next\n")]


def test_an_upgrade_is_ignored() -> None:
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with Server("kept", "--http") as server, talking_to(server) as client:
        client.sendall(get("/first", offer) + get("/second"))
        assert answers(client, 2) == [(200, b"GET /first\n"), (200, b"GET /second\n")]


@pytest.mark.parametrize("mode", ["kept", *QUEUED_MODES])
def test_what_is_no_http_gets_400_in_its_turn_and_the_end(mode: str) -> None:
    with Server(mode, "--http") as server:
        with talking_to(server) as client:
            client.sendall(get("/good") + b"nonsense\r\n\r\n")
            assert answers(client, 2) == [(200, b"GET /good\n"), (400, b"Bad Request\n")]
            assert closed(client)
        stats = server.stop()["stats"]
    assert accounted(stats) == stats["delivered"] == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/" + "x" * 10_000), 414),
        (get("/", "A: " + "x" * 100_000 + "\r\n"), 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n" + bytes(1_100_000), 413),
    ],
    ids=["path", "headers", "body"],
)
def test_too_large_is_refused(request_bytes: bytes, status: int) -> None:
    with Server("kept", "--http") as server, talking_to(server) as client:
        client.sendall(request_bytes)
        assert answers(client, 1)[0][0] == status


@pytest.mark.parametrize(
    "last", [get("/x", "Connection: close\r\n"), b"GET /x HTTP/1.0\r\n\r\n"], ids=["1.1", "1.0"]
)
def test_the_connection_ends_when_the_client_wants_it(last: bytes) -> None:
    with Server("kept", "--http") as server, talking_to(server) as client:
        client.sendall(last)
        assert answers(client, 1) == [(200, b"GET /x\n")]
        assert closed(client)


@pytest.mark.parametrize("mode", ["kept", *QUEUED_MODES])
def test_a_client_that_has_finished_sending_is_still_answered(mode: str) -> None:
    with Server(mode, "--http") as server, talking_to(server) as client:
        client.sendall(get("/one") + get("/two"))
        client.shutdown(socket.SHUT_WR)
        assert answers(client, 2) == [(200, b"GET /one\n"), (200, b"GET /two\n")]
        assert closed(client)


def test_a_full_queue_answers_503_and_counts() -> None:
    with Server("poll15", "--http", "--queue", 1) as server:
        with talking_to(server) as client:
            client.sendall(b"".join(get(f"/{n}") for n in range(100)))
            statuses = [status for status, _ in answers(client, 100)]
        stats = server.stop()["stats"]
    assert set(statuses) == {200, 503}
    assert accounted(stats) == 100
    assert stats["lost"] == statuses.count(503)


def test_switching_modes_under_wrk_costs_no_request() -> None:
    with Server("null", "--http", "--threads", 2) as server:
        with Wrk(server) as client:
            for mode in MODES:
                switched = server.ask(do="mode", mode=mode)
                client.goes_on_until("received", switched["stats"]["received"] + 50)
            answered = client.end()
        stats = server.stop()["stats"]
    assert accounted(stats) == stats["delivered"] >= answered


def test_lab_serve_runs_in_the_foreground_and_adds_up() -> None:
    command = [sys.executable, "-m", "moored", "lab", "serve", "--http", "0", "--mode", "wake"]
    with Child(*command) as child:
        assert child.process.stderr is not None
        talk = child.process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+), mode wake", talk)
        assert found is not None, talk
        client = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=HANG_S)
        for n in range(10):
            client.request("GET", f"/{n}")
            assert client.getresponse().read() == b"GET /%d\n" % n
        child.signal(signal.SIGINT)
        assert child.exit_code() == 0
        assert child.process.stdout is not None
        assert child.process.stdout.read() == "received 10 delivered 10 lost 0 refused 0\n"


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (["--http", "0", "--mode", "warp"], 2, "warp"),
        (["--mode", "kept"], 2, "--http"),
        (["--port", "0", "--threads", "0"], 2, "--threads"),
        (["--http", "99999"], 2, "--http 99999"),
    ],
)
def test_lab_serve_refuses_bad_options(options: list[str], code: int, word: str) -> None:
    command = [sys.executable, "-m", "moored", "lab", "serve", *options]
    done = finish(*command)
    assert done.code == code
    assert word in done.err


def test_lab_serve_on_a_taken_port_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "moored", "lab", "serve", "--http", str(port)]
        done = finish(*command)
    assert done.code == 1
    assert f"port {port} is taken" in done.err
