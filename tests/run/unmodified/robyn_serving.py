"""Starts a server of Robyn's, asks it, and puts it under load by wrk."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from both_ways import LIMIT_SECONDS, SCRIPTS, Program, started
from support.processes import succeed

CONNECTIONS = 8


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


@contextlib.contextmanager
def serving(way: str, folder: Path) -> Iterator[tuple[Program, int]]:
    """Start scripts/robyn_server.py, and wait until it answers."""
    port = free_port()
    words = [SCRIPTS / "robyn_server.py", str(port), "--log-level", "ERROR"]
    with started(way, words, folder) as server:
        until = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                ask(port, "/")
                break
            except OSError:
                if server.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(server.finish().talk) from None
            time.sleep(0.05)
        yield server, port


def load(port: int, path: str, seconds: int) -> float:
    """Return how many requests were answered per second, all of them well."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", f"http://127.0.0.1:{port}{path}"]
    out = succeed(*words, limit=LIMIT_SECONDS)
    rate = re.search(r"^Requests/sec: *([0-9.]+)$", out, re.MULTILINE)
    assert rate, out
    assert "Non-2xx" not in out
    return float(rate[1])
