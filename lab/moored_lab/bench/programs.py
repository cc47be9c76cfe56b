"""Programs: what `moored run` costs where there is nothing to gain, at start-up and after it."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Mapping

from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.process import MeasuredProcess, ProcessFailed, turned
from moored_lab.bench.rounds import spread
from moored_lab.bench.turns import RUN, STOCK, WAYS, Row
from moored_lab.report.progress import Progress
from moored_lab.wakeup.process import LabFailed, LabMissing

STARTUP = "start-up (-c pass)"
PLAIN = "no foreign thread"

# Stock against stock shows what difference the machine makes up by itself.
AGAIN = "stock again"
NAMES = {STOCK: WAYS[STOCK], RUN: WAYS[RUN], AGAIN: AGAIN}
PLAIN_PROCESSES = 5
LIMIT_S = 60.0

Times = Mapping[str, list[float]]


def measure(interpreter: Interpreter, rounds: int, progress: Progress) -> list[Row]:
    """Measure both; what cannot be measured has a row with the reason."""
    rows: list[Row] = []
    for at, (name, timed) in enumerate(((STARTUP, time_startups), (PLAIN, time_plain_programs))):
        progress(at / 2, name)
        named = {"python": interpreter.version, "program": name, "way": WAYS[RUN]}
        try:
            times = timed(interpreter, rounds)
        except (ProcessFailed, LabFailed, LabMissing) as error:
            rows.append({**named, "note": f"not measured: {error}"})
            continue
        rows += [{**named, "way": NAMES[way], **_figures(times, way), "note": ""} for way in NAMES]
    return rows


def time_startups(interpreter: Interpreter, rounds: int) -> Times:
    """Time, in ms, interpreters that do nothing: from outside, until their end."""
    times: dict[str, list[float]] = {way: [] for way in NAMES}
    for turn in range(2 * rounds):
        for way in turned(list(NAMES), turn):
            start = interpreter.run_command if way == RUN else [str(interpreter.executable)]
            begin = time.perf_counter_ns()
            done = subprocess.run(
                [*start, "-c", "pass"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=LIMIT_S,
            )
            times[way].append((time.perf_counter_ns() - begin) / 1e6)
            if done.returncode != 0:
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise ProcessFailed(f"{NAMES[way]} ended with {done.returncode}: {last}")
    return times


def time_plain_programs(interpreter: Interpreter, rounds: int) -> Times:
    """Time, in ms, the turns of programs that work on their main thread alone."""
    times: dict[str, list[float]] = {way: [] for way in NAMES}
    # Several processes: where the memory of one happens to lie makes some percents.
    for _ in range(PLAIN_PROCESSES):
        with contextlib.ExitStack() as stack:
            programs = {}
            for way in NAMES:
                programs[way] = MeasuredProcess(interpreter, way == RUN, "plain_program.py")
                stack.callback(programs[way].end)
                programs[way].ready()
            for turn in range(max(1, rounds // 2)):
                for way in turned(list(NAMES), turn):
                    times[way].append(programs[way].ask("work", "worked")["ns"] / 1e6)
            for program in programs.values():
                program.finish()
    return times


def _figures(times: Times, way: str) -> Row:
    """Give the medians, and the difference and the ratio to stock with the spread of the pairs."""
    pairs = list(zip(times[way], times[STOCK], strict=True))
    more = statistics.median(one - base for one, base in pairs)
    low, high = spread([one / base for one, base in pairs])
    median, stock = statistics.median(times[way]), statistics.median(times[STOCK])
    return {
        "ms_median": round(median, 3),
        "ms_more": round(more, 3),
        "ratio": round(median / stock, 4),
        "ratio_p10": round(low, 4),
        "ratio_p90": round(high, 4),
    }
