"""Server: requests per second of a web server of another project, stock and under `moored run`.

The server is Robyn, of which no line is changed: its handlers run on the threads of its runtime,
which is Rust's. wrk makes the load, on loopback.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.rounds import spread
from moored_lab.report.progress import Progress

Row = dict[str, Any]

PROGRAM = Path(__file__).with_name("sources") / "robyn_server.py"
CONNECTIONS = 8
LIMIT_S = 100.0
"""For an answer, and for the end of a server."""

STOCK, AGAIN, RUN = WAYS = ("stock", "stock again", "moored run")
"""Stock against stock shows what difference the machine makes up by itself."""


class CannotServe(Exception):
    """The server or the load does not work here; the message says why."""


@dataclass(frozen=True)
class Plan:
    """How often each server gets its turn, and for how long."""

    rounds: int = 15
    seconds: int = 2


def missing() -> str:
    """Say what lacks here; empty when nothing does."""
    if not shutil.which("wrk"):
        return "wrk is not installed: apt install wrk"
    if not importlib.util.find_spec("robyn"):
        return "Robyn is not installed: pip install robyn"
    return ""


def title(python: str, plan: Plan) -> str:
    """Say what was measured."""
    robyn = importlib.metadata.version("robyn")
    return (
        f"Robyn {robyn}, CPython {python}, {CONNECTIONS} connections, "
        f"{plan.rounds} rounds of {plan.seconds} s"
    )


def measure(interpreter: Interpreter, plan: Plan, progress: Progress) -> list[Row]:
    """Give each server its turn in every round, each round in another order."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ports = {way: stack.enter_context(_serving(interpreter, way, folder)) for way in WAYS}
        for way in WAYS:
            _load(ports[way], 1)  # until its threads are there
        for turn in range(plan.rounds):
            progress(turn / plan.rounds, f"round {turn + 1} of {plan.rounds}")
            shift = turn % len(WAYS)
            for way in WAYS[shift:] + WAYS[:shift]:
                rates[way].append(_load(ports[way], plan.seconds))
    return [_row(way, rates[way], rates[STOCK]) for way in WAYS]


def _row(way: str, rates: Sequence[float], stock: Sequence[float]) -> Row:
    ratios = [one / other for one, other in zip(rates, stock, strict=True)]
    low, high = spread(ratios)
    return {
        "way": way,
        "requests_per_s": round(median(rates), 1),
        "requests_per_s_min": round(min(rates), 1),
        "requests_per_s_max": round(max(rates), 1),
        "ratio": round(median(ratios), 3),
        "ratio_p10": round(low, 3),
        "ratio_p90": round(high, 3),
    }


@contextmanager
def _serving(interpreter: Interpreter, way: str, folder: str) -> Iterator[int]:
    """Start a server and wait until it answers; it ends with the block."""
    port = _free_port()
    start = interpreter.run_command if way == RUN else [str(interpreter.executable)]
    said = Path(folder, way.replace(" ", "-"))
    with said.open("w") as log:
        process = subprocess.Popen(
            [*start, PROGRAM, str(port), "--log-level", "ERROR"],
            cwd=folder,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_until_it_answers(process, port, said)
        yield port
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise CannotServe(f"the server ({way}) does not end on SIGINT") from None
        if code != 0:
            raise CannotServe(f"the server ({way}) ended with {code}: {_last_words(said)}")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    limit = time.monotonic() + LIMIT_S
    while True:
        with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port)) as asked:
            asked.request("GET", "/")
            asked.getresponse().read()
            return
        if process.poll() is not None or time.monotonic() > limit:
            raise CannotServe(f"the server does not answer: {_last_words(said)}")
        time.sleep(0.05)


def _last_words(said: Path) -> str:
    return (said.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


def _load(port: int, seconds: int) -> float:
    """Return how many requests were answered per second, all of them well."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", f"http://127.0.0.1:{port}/"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S + seconds)
    rate = re.search(r"^Requests/sec: *([0-9.]+)$", done.stdout, re.MULTILINE)
    if not rate or "Non-2xx" in done.stdout:
        raise CannotServe(f"wrk: {(done.stderr or done.stdout).strip()}")
    return float(rate[1])


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
