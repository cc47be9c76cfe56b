"""The parts of the wakeup experiment, each alone: options, sampling, phases, findings, CPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from moored_lab.wakeup.background import Ticks, read_ticks
from moored_lab.wakeup.calibration import next_handler_us
from moored_lab.wakeup.cpus import Places, places, staying_on
from moored_lab.wakeup.findings import findings
from moored_lab.wakeup.options import USUAL_MODES, BadOption, Options, modes_in
from moored_lab.wakeup.phases import Phase, rows_of
from moored_lab.wakeup.sampling import (
    ProcessGone,
    Sample,
    Sampler,
    ThreadUse,
    Usage,
    read_sample,
    usage,
)

MAIN, IO = 100, 101


# Options


def test_defaults_visit_every_mode_and_compare_with_poll15() -> None:
    assert Options().modes == USUAL_MODES
    assert Options().reference == "poll15"
    assert Options(modes=("kept", "poll1", "poll5")).reference == "poll5"
    assert Options(modes=("kept",)).reference is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": ()}, "--modes is empty"),
        ({"modes": ("keptt",)}, "unknown mode 'keptt': did you mean 'kept'?"),
        ({"modes": ("kept", "kept")}, "names kept twice"),
        ({"rate": 0}, "--rate 0 is not possible"),
        ({"rate": -1}, "--rate -1"),
        ({"rate": float("nan")}, "--rate nan"),
        ({"seconds": 0}, "--seconds 0"),
        ({"threads": 0}, "--threads 0"),
        ({"repeat": 0}, "--repeat 0"),
        ({"connections": 0}, "--connections 0"),
        ({"handler_us": -1}, "--handler-us -1"),
        ({"main_busy": 101}, "--main-busy 101"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_bad_options_say_which(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadOption) as caught:
        Options(**changes)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_modes_are_read_with_commas_or_spaces() -> None:
    assert modes_in("kept, poll1  wake") == ("kept", "poll1", "wake")


# Sampling


BUSY_CHILD = """
import os, threading, time
def burn():
    while time.thread_time() < 0.1:
        pass
    for _ in range(10):
        time.sleep(0.001)
thread = threading.Thread(target=lambda: (burn(), hold.wait()))
hold = threading.Event()
bytearray(1 << 20)
thread.start()
while time.thread_time() < 0.05:
    pass
print("before", flush=True); input()
while time.thread_time() < 0.2:
    pass
print("after", flush=True); input()
hold.set()
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        yield started
        started.kill()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def allow(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def test_a_real_process_is_sampled_thread_by_thread(child: subprocess.Popen[str]) -> None:
    assert said(child) == "before"
    first = read_sample(child.pid)
    allow(child)
    assert said(child) == "after"
    second = read_sample(child.pid)
    assert set(first.threads) == set(second.threads)
    assert len(first.threads) == 2
    assert first.threads[child.pid].page_faults > 0
    used = second.threads[child.pid].since(first.threads[child.pid])
    # The child's own clock says that main worked at least 0.2 s in all.
    assert second.threads[child.pid].cpu_ns > 190e6
    assert used.cpu_ns > 0
    between = usage([first, second], child.pid)
    assert between is not None
    assert between.main_cpu_percent > 0


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        with pytest.raises(ProcessGone, match=str(ended.pid)):
            read_sample(ended.pid)


def test_the_sampler_takes_its_steps_and_looks_after_each() -> None:
    sampler, looks = Sampler(os.getpid(), interval_s=0.01), []
    assert sampler.take() == 0
    sampler.watch(0.05, lambda: looks.append(len(sampler.samples)))
    assert looks == [2, 3, 4, 5, 6]


def sample(at_s: float, **cpu_ms: float) -> Sample:
    tids = {"main": MAIN, "io": IO, "late": 102}
    return Sample(
        int(at_s * 1e9),
        {tids[name]: ThreadUse(int(ms * 1e6), int(ms), int(2 * ms)) for name, ms in cpu_ms.items()},
    )


def test_usage_of_known_samples() -> None:
    used = usage([sample(1, main=100, io=50), sample(2, main=500, io=150)], MAIN)
    assert used == Usage(1.0, 40.0, 10.0, context_switches_per_s=1000, page_faults_per_s=500)
    assert used.process_cpu_percent == 50.0


def test_a_thread_that_is_born_or_ends_in_between_counts() -> None:
    used = usage(
        [sample(0, main=0, io=0), sample(1, main=0, io=100, late=20), sample(2, main=0, late=30)],
        MAIN,
    )
    assert used is not None
    assert used.others_cpu_percent == pytest.approx((100 + 20 + 10) / 2000 * 100)


def test_usage_needs_two_samples() -> None:
    assert usage([], MAIN) is None
    assert usage([sample(1, main=1)], MAIN) is None


# Phases and findings


def phase(turn: int, mode: str, main: float, others: float, before: int, after: int) -> Phase:
    return Phase(
        turn,
        mode,
        switched_ns=0,
        before={"delivered": before} if before else {},
        after={"delivered": after, "lost": after // 100, "refused": 0, "entries": after},
        usage=Usage(1.0, main, others, 10.0, 20.0),
        latency={"p50_us": 10.0 * turn, "p99_us": 100.0 * turn},
    )


def test_rows_are_medians_of_rounds_and_sums_of_events() -> None:
    phases = [
        phase(1, "poll15", 30, 10, 0, 50),
        phase(1, "kept", 0, 41, 50, 100),
        phase(2, "poll15", 34, 12, 100, 150),
        phase(2, "kept", 0, 43, 150, 200),
        phase(3, "poll15", 38, 20, 200, 250),
        phase(3, "kept", 0, 60, 250, 300),
    ]
    poll, kept = rows_of(phases, ("poll15", "wake", "kept"), "poll15")
    assert (poll["mode"], kept["mode"]) == ("poll15", "kept")
    assert kept["rounds"] == 3
    assert (poll["process_cpu_percent"], poll["main_cpu_percent"]) == (46, 34)
    assert (poll["process_cpu_percent_min"], poll["process_cpu_percent_max"]) == (40, 58)
    # Against the poll of the same round: +1, -3, +2.
    assert kept["change_points"] == 1
    assert (kept["change_points_min"], kept["change_points_max"]) == (-3, 2)
    assert poll["change_points"] == 0
    assert (kept["latency_p50_us"], kept["latency_p99_us"]) == (20, 200)
    assert poll["delivered"] + kept["delivered"] == 300
    assert kept["delivered"] == 150


def test_rows_of_a_phase_that_was_cut_short_have_no_numbers() -> None:
    cut = Phase(1, "kept", 0, before={}, after={"delivered": 5})
    (row,) = rows_of([cut], ("kept",), None)
    assert row["delivered"] == 5
    assert row["process_cpu_percent"] is None
    assert row["change_points"] is None


def row(
    mode: str, process_cpu: float, change: float, p50: float, lost: int = 0
) -> dict[str, object]:
    return {
        "mode": mode, "rounds": 1, "process_cpu_percent": process_cpu, "change_points": change,
        "latency_p50_us": p50, "delivered": 90, "lost": lost, "refused": 0,
    }  # fmt: skip


def test_findings_are_computed_from_the_rows() -> None:
    rows = [
        row("poll15", 30.0, 0.0, 6500),
        row("temporary", 44.2, 14.2, 150),
        row("kept", 29.0, -1.0, 130, lost=10),
    ]
    assert findings(rows, "poll15") == [
        "Process CPU against poll15: temporary adds 14.2 points, kept saves 1.0 points.",
        "Kept uses 0.66 times the process CPU of temporary; "
        "its median latency is 130 us, that of poll15 6.5 ms.",
        "Did not keep up, and left events undelivered: kept 10 %.",
    ]
    assert findings(rows[2:], None)[0].startswith("No poll mode was measured")
    assert findings([], None)


def test_calibration_follows_the_line_and_takes_no_wild_step() -> None:
    # main = 5 + 0.5 * us: through zero first, then exactly.
    first = next_handler_us([(20.0, 15.0)], 40.0)
    assert next_handler_us([(20.0, 15.0), (first, 5 + 0.5 * first)], 40.0) == pytest.approx(70.0)
    assert next_handler_us([(20.0, 0.0)], 40.0) == 80.0
    assert next_handler_us([(20.0, 15.0), (40.0, 15.01)], 40.0) == 80.0


# The rest of the machine


def test_background_is_what_the_machine_did_and_we_did_not() -> None:
    assert Ticks(10, 100, 5).background_percent(Ticks(12, 103, 6)) == 100.0
    assert Ticks(10, 100, 5).background_percent(Ticks(12, 101, 7)) == 0.0
    assert read_ticks([]).machine_s > 0


# The CPUs


def test_server_and_sender_are_apart_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, server, others in [
        ({0, 1, 4}, (0, 1), (4,)),
        ({0, 1}, (), ()),
        ({0}, (), ()),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda _, cpus=cpus: cpus)
            assert places(pin=True) == Places(server, others)
    assert str(Places((0, 1), (4,))) == "server on CPUs 0, 1, load sender on CPU 4"


def test_staying_on_a_cpu_ends_with_its_scope() -> None:
    before = os.sched_getaffinity(0)
    where = Places((), (min(before),))
    with staying_on(where.others):
        if where.others:
            assert os.sched_getaffinity(0) == set(where.others)
    assert os.sched_getaffinity(0) == before
    assert str(places(pin=False)) == "server and load sender not pinned"
