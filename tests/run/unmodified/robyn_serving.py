"""Starts a server of Robyn's, and puts it under load by wrk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from both_ways import SCRIPTS, Program, started
from support.asking import LIMIT_SECONDS, free_port, wait_for_answer
from support.processes import succeed

CONNECTIONS = 8


@contextlib.contextmanager
def serving(way: str, folder: Path) -> Iterator[tuple[Program, int]]:
    """Start scripts/robyn_server.py, and wait until it answers."""
    port = free_port()
    words = [SCRIPTS / "robyn_server.py", str(port), "--log-level", "ERROR"]
    with started(way, words, folder) as server:
        try:
            wait_for_answer(port, server.process)
        except ConnectionError:
            raise RuntimeError(server.finish().talk) from None
        yield server, port


def load(port: int, path: str, seconds: int) -> float:
    """Return how many requests were answered per second, all of them well."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", f"http://127.0.0.1:{port}{path}"]
    out = succeed(*words, limit=LIMIT_SECONDS)
    rate = re.search(r"^Requests/sec: *([0-9.]+)$", out, re.MULTILINE)
    assert rate, out
    assert "Non-2xx" not in out
    return float(rate[1])
