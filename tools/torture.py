"""Runs `moored torture` with every interpreter found."""

from __future__ import annotations

import argparse
import sys

from interpreters import find
from workspace import StepFailed, Workspace

# The same in each run of the tests, so that a red one is red again; `make torture` takes others.
FIRST_SEED = 20_110_501
CASES = 150
SECONDS_A_CASE = 30.0


def torture(workspace: Workspace, cases: int, seed: int) -> int:
    """Run the cases; give how many failed."""
    status = workspace.attempt(
        *(workspace.venv / "bin" / "moored", "torture"),
        *(f"--cases={cases}", f"--seed={seed}", "--jobs=8"),
        f"--cache={workspace.build / 'torture'}",
        limit=300 + cases * SECONDS_A_CASE,
    )
    if status == 0:
        return 0
    failed = sum("FAILED seed" in line for line in workspace.log.read_text().splitlines())
    return max(failed, 1)


def main() -> int:
    """Install into each interpreter's venv, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="VERSION", help="as in 3.12, or 3.12.1")
    parser.add_argument("--cases", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=FIRST_SEED + CASES, metavar="S")
    args = parser.parse_args()
    found = find()
    wanted = set(args.only or ())
    chosen = [one for one in found if not wanted or {one.name, one.version, one.series} & wanted]
    if not chosen:
        print("moored: no interpreter found to torture", file=sys.stderr)
        return 3
    total = 0
    for interpreter in chosen:
        if interpreter.unusable:
            print(f"{interpreter.name}: not tortured: {interpreter.unusable}")
            continue
        workspace = Workspace(interpreter, default=interpreter in found[:1])
        try:
            workspace.prepare("develop" if workspace.default else "test")
            failed = torture(workspace, args.cases, args.seed)
        except StepFailed as failure:
            print(f"{interpreter.name}: {failure}")
            failed = 1
        total += failed
        last = workspace.log_tail(3) if not failed else workspace.log_tail()
        print(f"{interpreter.name}: {last}", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
