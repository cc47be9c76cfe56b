"""Asks a web server, which it waits for."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import time

LIMIT_SECONDS = 100


def free_port() -> int:
    """Return a port that nothing listened on just now."""
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


def wait_for_answer(port: int, server: subprocess.Popen[str]) -> None:
    """Return when the server answers; ConnectionError if it has ended, or does not in time."""
    until = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            ask(port, "/")
            return
        except OSError as error:
            if server.poll() is not None or time.monotonic() > until:
                raise ConnectionError(f"no answer, exit code {server.poll()}") from error
        time.sleep(0.05)
