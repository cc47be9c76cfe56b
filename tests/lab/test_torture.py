"""The torture's judge notices what a case can do wrong, and the same seed draws the same case."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from moored_lab.torture.cases import BINDINGS, ENDINGS, INTERLUDES, KINDS, Case, Worker, draw
from moored_lab.torture.judge import faults

COUNTED = (
    *("unjoined", "overdue", "failures", "made", "adopted", "kept", "freed", "forgotten"),
    *("attempts", "sent", "dropped_newest", "rejected", "refused", "dropped_oldest"),
    *("unconvertible", "undelivered", "delivered", "depth", "taken"),
    *("objects", "finalised", "references_forgotten"),
)


def draw_for(minor: int, seed: int) -> Case:
    return draw(seed, minor, True, BINDINGS, True, True)


def case_of(kind: str) -> Case:
    """A case of one thread that ends by a return."""
    worker = Worker(kind, 1, 1, joined=True, comes_back=False, farewell="none")
    return replace(draw_for(13, 1), workers=(worker,), ending="return", consumers=0)


def judged(case: Case, code: int = 0, stderr: str = "", **report: int) -> list[str]:
    return faults(case, code, stderr, dict.fromkeys(COUNTED, 0) | report)


def test_a_case_that_went_well_has_no_faults() -> None:
    assert judged(case_of("attach"), made=3, freed=2, kept=1) == []


@pytest.mark.parametrize(
    ("kind", "report"),
    [
        ("attach", {"made": 1}),
        ("attach", {"unjoined": 1}),
        ("attach", {"overdue": 1}),
        ("attach", {"failures": 1}),
        ("send", {"attempts": 1}),
        ("send", {"attempts": 1, "sent": 1}),
        ("send", {"attempts": 1, "sent": 1, "delivered": 1}),
        ("drop", {"objects": 2, "finalised": 1}),
    ],
)
def test_what_is_not_accounted_for_is_a_fault(kind: str, report: dict[str, int]) -> None:
    assert len(judged(case_of(kind), **report)) == 1


def test_an_object_that_was_counted_as_forgotten_is_none() -> None:
    assert judged(case_of("drop"), objects=2, finalised=1, references_forgotten=1) == []


def test_an_event_that_loops_left_behind_is_a_fault() -> None:
    case = replace(case_of("send"), consumers=2)
    left = {"attempts": 1, "sent": 1, "depth": 1}
    assert judged(case_of("send"), **left) == []
    assert len(judged(case, **left)) == 1


@pytest.mark.parametrize(
    "said", ["torture: join: 59 lines after the join", "torture: main's child ended with -11"]
)
def test_what_a_case_says_is_a_fault(said: str) -> None:
    assert judged(case_of("attach"), stderr=said + "\n") == [f"it said: {said}"]


def test_another_exit_code_is_a_fault() -> None:
    assert judged(case_of("attach"), code=-11) == ["it was ended by signal 11"]
    assert judged(case_of("attach"), code=1) == ["it ended with exit code 1"]


@pytest.mark.parametrize("minor", [10, 12, 15])
def test_a_seed_draws_one_case_and_many_draw_every_kind(minor: int) -> None:
    cases = [draw_for(minor, seed) for seed in range(3000)]
    assert cases == [draw_for(minor, seed) for seed in range(3000)]
    assert {worker.kind for case in cases for worker in case.workers} == {*KINDS}
    assert {case.ending for case in cases} == {*ENDINGS}
    drawn = Counter(one for case in cases for one in case.interludes)
    forks = {one for one in INTERLUDES if "fork" in one and minor < 12}
    assert {*drawn} == {*INTERLUDES} - forks
    for flag in ("consumers", "tracemalloc", "launcher"):
        assert {bool(getattr(case, flag)) for case in cases} == {False, True}
    assert max(case.lives for case in cases if case.has("overstay")) == 3
