"""Requests per second of a Robyn server, stock and under `moored run`, by turns in one run.

Run it with the Python that moored and Robyn are installed in; wrk makes the load, on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from both_ways import KEPT, LIMIT_SECONDS, SCRIPTS, STOCK, Program, folder_for, started

CONNECTIONS = 8
# Stock against stock shows what difference the machine makes up by itself.
AGAIN = "again"
NAMES = {STOCK: "stock", AGAIN: "stock again", KEPT: "moored run"}


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
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    rate = re.search(r"^Requests/sec: *([0-9.]+)$", done.stdout, re.MULTILINE)
    if not rate or "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout + done.stderr)
    return float(rate[1])


def measure(rounds: int, seconds: int) -> dict[str, list[float]]:
    """Give each server its turn in every round, each round in another order."""
    rates: dict[str, list[float]] = {way: [] for way in NAMES}
    with tempfile.TemporaryDirectory() as parent, contextlib.ExitStack() as stack:
        servers = {
            way: stack.enter_context(
                serving(KEPT if way == KEPT else STOCK, folder_for(way, Path(parent)))
            )
            for way in NAMES
        }
        for way in NAMES:
            load(servers[way][1], "/", 1)  # until its threads are there
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
            ways = list(NAMES)
            for way in ways[turn % 3 :] + ways[: turn % 3]:
                rates[way].append(load(servers[way][1], "/", seconds))
        for server, _port in servers.values():
            if (ended := server.stop(signal.SIGINT)).code != 0:
                raise RuntimeError(f"a server ended with {ended.code}: {ended.talk}")
    return rates


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2, help="of load in each turn")
    args = parser.parse_args()
    if not shutil.which("wrk") or not importlib.util.find_spec("robyn"):
        print("robyn_load: needs wrk (apt install wrk) and robyn (pip install)", file=sys.stderr)
        return 3
    rates = measure(args.rounds, args.seconds)
    robyn, python = importlib.metadata.version("robyn"), platform.python_version()
    print(f"Robyn {robyn}, Python {python}, {args.rounds} rounds of {args.seconds} s,")
    print(f"{CONNECTIONS} connections; median, and the ratio to stock (10th to 90th percentile)")
    for way, name in NAMES.items():
        ratios = [one / stock for one, stock in zip(rates[way], rates[STOCK], strict=True)]
        low, *_, high = statistics.quantiles(ratios, n=10, method="inclusive")
        ratio = f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
        print(f"{name:12} {statistics.median(rates[way]):8.0f} requests/s  {ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
