"""Every rule finds what it is for, and nothing where that costs next to nothing."""

from __future__ import annotations

import shlex
from dataclasses import replace

import doctor_recordings
import pytest
from doctor_recordings import CHURN, churning, healthy, thread, with_counts

from moored.doctor import findings
from moored.doctor.findings import Finding, find_all
from moored.doctor.findings.finding import rerun
from moored.doctor.recording import Counts, Recording, Sample

WAITING = Counts(
    calls=5_000,
    attach_ns=3_100_000_000,
    wait_ns=3_000_000_000,
    longest_wait_ns=9_000_000,
)
BEHIND_MAIN = replace(WAITING, wait_for_main_ns=2_900_000_000)


def the(rule: str, recording: Recording) -> Finding | None:
    """What the rule found."""
    found = [finding for finding in find_all(recording) if finding.rule == rule]
    assert len(found) <= 1
    return found[0] if found else None


def test_a_healthy_process_has_no_findings() -> None:
    assert find_all(healthy()) == []


def test_a_process_without_native_threads_has_none() -> None:
    assert find_all(healthy(sites=(), threads=healthy().threads[:1])) == []
    assert find_all(healthy(sites=(), threads=(), samples=(), seconds=0.0, cpu_ns=0)) == []


def test_temporary_states() -> None:
    found = the("temporary-states", churning())
    assert found is not None
    assert found.title == "43,120 temporary thread states were made and thrown away"
    assert found.cost_ns == 610_000_000
    assert found.share_of_cpu == pytest.approx(0.0488)
    assert found.site_keys == (1,)
    assert found.remedy == "moored run app.py --port 80"
    assert found.cost == "0.61 s, 4.9 % of the CPU"


def test_temporary_states_that_are_made_under_moored_run() -> None:
    found = the("temporary-states", churning(kept=True))
    assert found is not None
    assert found.remedy == "@moored.keeps_thread"


def test_the_chunks_of_temporary_states_count_as_well() -> None:
    found = the("temporary-states", with_counts(replace(CHURN, chunks=43_120), chunk_cost_ns=1e4))
    assert found is not None
    assert found.cost_ns == 610_000_000 + 431_200_000


def test_calls_that_found_a_state_are_not_the_temporary_ones() -> None:
    mixed = replace(CHURN, calls=1_043_120)
    found = the("temporary-states", with_counts(mixed))
    assert found is not None
    assert found.cost_ns == 550_000_000


@pytest.mark.parametrize(
    "counts",
    [
        Counts(calls=60, temporary_states=60, attach_ns=500_000_000),
        Counts(calls=5_000, temporary_states=5_000, attach_ns=9_000_000),
        Counts(calls=5_000, temporary_states=5_000, attach_ns=50_000_000),
    ],
    ids=["few", "cheap", "a small share"],
)
def test_temporary_states_not_worth_a_line(counts: Counts) -> None:
    assert the("temporary-states", with_counts(counts)) is None


def test_a_process_whose_cpu_time_is_not_known() -> None:
    found = the("temporary-states", churning(cpu_ns=0))
    assert found is not None
    assert found.cost == "0.61 s"


def test_busy_main() -> None:
    found = the("busy-main", with_counts(BEHIND_MAIN))
    assert found is not None
    assert found.cost_ns == 2_900_000_000
    assert found.share_of_cpu == 0
    assert found.cost == "2.90 s of waiting"
    assert found.remedy == "moored run --urgent app.py --port 80"
    assert "5.00 ms" in found.why
    assert "9.00 ms" in found.why
    assert the("busy-threads", with_counts(BEHIND_MAIN)) is None


def test_busy_main_although_urgent() -> None:
    found = the("busy-main", with_counts(BEHIND_MAIN, urgent=True))
    assert found is not None
    assert found.remedy == "moored run --urgent=25% app.py --port 80"


@pytest.mark.parametrize(
    "counts",
    [
        Counts(calls=5, wait_ns=40_000_000, wait_for_main_ns=40_000_000),
        Counts(calls=5_000, wait_ns=120_000_000, wait_for_main_ns=120_000_000),
        Counts(calls=50_000_000, wait_ns=2_000_000_000, wait_for_main_ns=2_000_000_000),
    ],
    ids=["short", "a small share", "short each"],
)
def test_waits_not_worth_a_line(counts: Counts) -> None:
    assert find_all(with_counts(counts)) == []
    assert find_all(with_counts(replace(counts, wait_for_main_ns=0))) == []


def behind_a_worker(**changes: object) -> Recording:
    """A process whose native thread waits for one that Python made."""
    worker = thread(4244, "worker", Counts(hold_ns=6_000_000_000, longest_hold_ns=5_000_000))
    waiting = with_counts(WAITING, **changes)
    return replace(waiting, threads=(*waiting.threads, replace(worker, kind="python", sites=())))


def test_busy_threads() -> None:
    found = the("busy-threads", behind_a_worker())
    assert found is not None
    assert found.title.endswith("behind other threads, mostly 'worker'")
    assert found.cost_ns == 3_000_000_000
    assert found.remedy == "moored run --urgent app.py --port 80"
    assert "6.00 s" in found.why
    assert the("busy-main", behind_a_worker()) is None


def test_the_thread_that_waits_is_not_blamed() -> None:
    holding = replace(WAITING, hold_ns=9_000_000_000)
    found = the("busy-threads", with_counts(holding))
    assert found is not None
    assert found.title == "Native threads waited for the GIL behind other threads"


def test_busy_threads_that_do_not_let_go_when_asked() -> None:
    found = the("busy-threads", behind_a_worker(urgent=True))
    assert found is not None
    assert "Py_BEGIN_ALLOW_THREADS" in found.remedy


def holding(binding: str, waits: int = 300_000_000, **changes: int) -> Recording:
    """A process whose native thread holds the GIL long, while main waits."""
    counts = Counts(calls=100, hold_ns=4_000_000_000, longest_hold_ns=48_000_000)
    counts = replace(counts, **changes)
    held = with_counts(counts)
    main = replace(held.threads[0], counts=Counts(wait_ns=waits))
    return replace(
        held,
        threads=(main, held.threads[1]),
        sites=(replace(held.sites[0], binding=binding),),
    )


@pytest.mark.parametrize(
    ("binding", "remedy"),
    [
        ("ctypes", "executor.submit(work)"),
        ("pybind11", "pybind11::gil_scoped_release"),
        ("Cython", "with nogil:"),
        ("C or C++", "Py_BEGIN_ALLOW_THREADS"),
    ],
)
def test_long_holds(binding: str, remedy: str) -> None:
    found = the("long-holds", holding(binding))
    assert found is not None
    assert "'gst-src' held the GIL for up to 48" in found.title
    assert found.remedy.startswith(remedy)
    assert found.site_keys == (1,)
    assert found.cost_ns == 300_000_000


def test_holds_not_worth_a_line() -> None:
    assert the("long-holds", holding("ctypes", waits=0)) is None
    assert the("long-holds", holding("ctypes", longest_hold_ns=15_000_000)) is None
    assert the("long-holds", holding("ctypes", hold_ns=100_000_000)) is None


def test_threads_of_one_call() -> None:
    once = Counts(calls=1, temporary_states=1, attach_ns=12_000)
    single = tuple(thread(5000 + at, "once", once, exited=True) for at in range(3_000))
    short = healthy(threads=single, threads_of_one_call=len(single))
    found = the("one-call-threads", short)
    assert found is not None
    assert found.title == "3,000 native threads called Python once each and ended"
    assert found.cost_ns == 3_000 * (25_000 + 12_000)
    assert found.remedy == "moored.install()"
    assert found.site_keys == (1,)
    assert the("one-call-threads", replace(short, threads_of_one_call=40)) is None
    assert the("one-call-threads", replace(short, cpu_ns=10**12)) is None


def test_loop_wakes() -> None:
    found = the("loop-wakes", healthy(threadsafe_calls=124_000))
    assert found is not None
    assert "124,000 times, 10,000 a second" in found.title
    assert found.cost_ns == 124_000 * 8_000
    assert "moored.Channel" in found.remedy
    assert the("loop-wakes", healthy(threadsafe_calls=6_000)) is None


def test_lost_locals() -> None:
    found = the("lost-locals", healthy(locals_lost=1_200))
    assert found is not None
    assert found.title == "1,200 temporary thread states took thread-locals along"
    assert found.cost == ""
    assert found.remedy == "moored run app.py --port 80"
    assert the("lost-locals", healthy(locals_lost=3)) is None
    # They would have ended with their threads.
    assert the("lost-locals", healthy(locals_lost=1_200, threads_of_one_call=1_195)) is None
    kept = the("lost-locals", healthy(locals_lost=1_200, kept=True))
    assert kept is not None
    assert kept.remedy == "@moored.keeps_thread"


def test_late_attaches() -> None:
    found = the("late-attaches", healthy(late_attaches=1))
    assert found is not None
    assert found.title == "1 attach came after Python had begun to end"
    assert "atexit" in found.remedy


def pool(threads: int = 200, percent: float = 0.0, **changes: object) -> Recording:
    """A process whose pool has called and does nothing since."""
    once = Counts(calls=3, temporary_states=0, attach_ns=3_000)
    idle = tuple(thread(6_000 + at, f"pool-{at}", once) for at in range(threads))
    samples = tuple(
        Sample(float(at), {one.tid: 50.0 if at < 5 else percent for one in idle})
        for at in range(1, 31)
    )
    return healthy(**{"threads": idle, "samples": samples, "seconds": 30.0, **changes})


def test_idle_states() -> None:
    found = the("idle-states", pool())
    assert found is not None
    assert found.title == "200 idle native threads keep their thread states"
    assert found.remedy == "moored.set_kept_limit(16)"
    kept = the("idle-states", pool(kept=True))
    assert kept is not None
    assert kept.remedy.startswith("moored.release_thread()")


def test_states_that_are_used_are_not_idle() -> None:
    assert the("idle-states", pool(percent=0.5)) is None
    assert the("idle-states", pool(threads=20)) is None
    assert the("idle-states", pool(samples=())) is None
    assert the("idle-states", pool(seconds=4.0)) is None
    gone = pool()
    ended = tuple(replace(one, exited=True) for one in gone.threads)
    assert the("idle-states", replace(gone, threads=ended)) is None


def test_threads_without_samples_of_their_own() -> None:
    def others(percent: float) -> tuple[Sample, ...]:
        return tuple(Sample(float(at), {0: percent}) for at in range(1, 31))

    assert the("idle-states", pool(samples=others(0.5))) is not None
    assert the("idle-states", pool(samples=others(80.0))) is None


def test_the_costliest_comes_first() -> None:
    both = replace(CHURN, wait_ns=10_000_000, wait_for_main_ns=0)
    worst = replace(both, attach_ns=6_000_000_000, wait_ns=5_000_000_000)
    worst = replace(worst, wait_for_main_ns=4_900_000_000)
    found = find_all(with_counts(worst, late_attaches=1))
    assert [one.rule for one in found] == ["busy-main", "temporary-states", "late-attaches"]


@pytest.mark.parametrize("at", range(len(findings.RULES)))
def test_each_rule_is_missed_when_it_is_taken_out(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found_by = [
        churning(),
        with_counts(BEHIND_MAIN),
        behind_a_worker(),
        holding("ctypes"),
        healthy(threads_of_one_call=9_000),
        healthy(threadsafe_calls=124_000),
        healthy(locals_lost=50),
        healthy(late_attaches=1),
        pool(),
    ]
    rule = findings.RULES[at]
    assert list(rule(found_by[at]))
    found = find_all(found_by[at])
    monkeypatch.setattr(findings, "RULES", tuple(r for r in findings.RULES if r is not rule))
    assert len(find_all(found_by[at])) == len(found) - 1


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("app.py", "moored run app.py"),
        ("python app.py 'two words'", "moored run app.py 'two words'"),
        ("/usr/bin/python3.13t -m package", "moored run -m package"),
        ("", "moored run app.py"),
        ("an 'open quote", "moored run an ''\"'\"'open' quote"),
    ],
)
def test_the_line_that_runs_it_again(command: str, line: str) -> None:
    made = rerun(healthy(command=command))
    assert made == line
    assert shlex.split(made)[:2] == ["moored", "run"]


def test_no_finding_names_a_site_that_there_is_not() -> None:
    recording = doctor_recordings.large()
    keys = {site.key for site in recording.sites}
    spread = the("temporary-states", recording)
    assert spread is not None
    assert len(spread.site_keys) == 3  # each has little of it
    assert all(set(finding.site_keys) <= keys for finding in find_all(recording))
