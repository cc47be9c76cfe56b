"""Callbacks: what one callback costs through each binding and in each way, as rows."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from moored_lab.bench import programs
from moored_lab.bench.bindings import Binding
from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.process import MeasuredProcess
from moored_lab.bench.turns import (
    CHURN,
    INSTALL,
    KEEP_THREAD,
    RUN,
    STOCK,
    WAYS,
    Group,
    Plan,
    Row,
    noted,
)
from moored_lab.bench.workshop import CannotBuild, Workshop
from moored_lab.report.progress import Progress, bar


def run(
    interpreter: Interpreter, cache: Path, bindings: Sequence[Binding], plan: Plan
) -> list[Row]:
    """Build what is not built yet, and measure all on one interpreter."""
    shop = Workshop(interpreter, cache)
    rows: list[Row] = []
    with shop.opened():
        shop.build_driver()
        reasons = _build(shop, bindings)
        parts = len(bindings) + 1
        with bar() as progress:
            for at, binding in enumerate(bindings):
                if binding.key in reasons:
                    rows.append(_not_built(interpreter, binding, reasons[binding.key]))
                    continue
                part = _part(progress, f"Python {interpreter.version}, {binding.name}", at, parts)
                rows += measure(interpreter, shop, binding, plan, part)
            part = _part(progress, f"Python {interpreter.version}", len(bindings), parts)
            rows += programs.measure(interpreter, plan.rounds, part)
    return [{"moored": interpreter.moored, **row} for row in rows]


def measure(
    interpreter: Interpreter, shop: Workshop, binding: Binding, plan: Plan, progress: Progress
) -> list[Row]:
    """Measure one binding in all ways; what cannot be measured has rows with the reason."""
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        callers: dict[str, MeasuredProcess] = {}
        for way in WAYS:
            with noted(failed, way):
                caller = MeasuredProcess(
                    *(interpreter, way == RUN, "caller.py", way, binding.key),
                    *(str(shop.modules), str(shop.packages)),
                )
                stack.callback(caller.end)
                caller.ready()
                callers[way] = caller
        group = Group(callers, failed)
        visited = group.ask_all("visits", "visited")
        timed = group.time(plan, progress)
        churned, left = group.churn(plan.churn_threads)
        for way, caller in group.callers.items():
            with noted(failed, way):
                caller.finish()
    rows: list[Row] = []
    for way, name in WAYS.items():
        named = {"python": interpreter.version, "binding": binding.name, "way": name}
        if way in failed:
            rows.append(_refusal(named, failed[way]))
            continue
        survived = {one: said["survived"] for one, said in visited.items()}
        note = {"note": _note(interpreter, way, survived)}
        kept = {"locals_survive": survived[way]}
        for (callback, threads), measured in timed.items():
            what = {"callback": callback, "threads": threads}
            rows.append({**named, **what, **measured.row(way), **kept, **note})
        what = {"callback": CHURN, "threads": plan.churn_threads}
        rows.append({**named, **what, **churned.row(way), **left[way], **note})
    return rows


def _build(shop: Workshop, bindings: Sequence[Binding]) -> dict[str, CannotBuild]:
    """Build them; give the reasons of those that cannot be."""
    reasons = {}
    for binding in bindings:
        if not shop.is_built(binding.key):
            version = shop.interpreter.version
            print(f"building for Python {version}: {binding.name}", file=sys.stderr)
        try:
            shop.build(binding.key, binding.build)
        except CannotBuild as error:
            reasons[binding.key] = error
    return reasons


def _not_built(interpreter: Interpreter, binding: Binding, why: CannotBuild) -> Row:
    named = {"python": interpreter.version, "binding": binding.name, "way": "all"}
    return _refusal(named, str(why))


def _refusal(named: Mapping[str, str], why: str) -> Row:
    return {**named, "note": f"not measured: {why}"}


def _note(interpreter: Interpreter, way: str, survived: Mapping[str, bool]) -> str:
    if way == INSTALL and interpreter.minor < 11:
        return "3.10 has nothing to gain"
    if way == STOCK and survived[way]:
        return "keeps its states by itself"
    if way in (KEEP_THREAD, RUN) and not survived[way]:
        return "the state was not kept"
    return ""


def _part(progress: Progress, doing: str, at: int, parts: int) -> Progress:
    """Give the progress of one part of the whole."""

    def tell(done: float, what: str) -> None:
        progress((at + done) / parts, f"{doing}: {what}")

    return tell
