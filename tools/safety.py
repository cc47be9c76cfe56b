"""Writes docs/measure/safety.md from what the hazard tests saw, with every interpreter found."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interpreters import CHECKOUT, find
from workspace import StepFailed, Workspace

RECORDS = CHECKOUT / "build" / "hazards"
TESTS = ("-m", "pytest", "-p", "no:cacheprovider", "tests/hazards/test_hazards.py")
PAGE = CHECKOUT / "docs" / "measure" / "safety.md"
INTRO = """\
<!-- Made by `make safety`. -->
# Known hazards, without moored and with it

Each hazard is a test in [tests/hazards](../../tests/hazards). It runs two scripts in processes of
their own: one meets the hazard as extensions do without moored (stock), one with it. The table
shows what the scripts said and how their processes ended; where nothing is said of the end, it was
exit code 0. `make safety` runs the tests with every Python found and makes this page again; nothing
in it is written by hand.

"""
HEAD = ["hazard", "versions", "stock behaviour seen", "moored's behaviour seen"]


@dataclass(frozen=True)
class Record:
    """What was seen of one hazard with one interpreter."""

    number: str
    name: str
    title: str
    evidence: tuple[str, ...]
    python: tuple[int, ...]
    stock: str
    moored: str

    @property
    def order(self) -> tuple[int, str, str]:
        """Where its hazard stands in the table: 26, 26b, 27."""
        return int(self.number.rstrip("b")), self.number, self.name


def read(path: Path) -> Record:
    """Read one record."""
    facts = json.loads(path.read_text())
    not_run = facts.get("not_run")
    return Record(
        number=facts["number"],
        name=facts["name"],
        title=facts["title"],
        evidence=tuple(facts["evidence"]),
        python=tuple(int(part) for part in facts["python"].split(".")),
        stock=f"not run: {not_run}" if not_run else facts["stock"],
        moored="not run" if not_run else facts["moored"],
    )


def name_versions(some: Iterable[tuple[int, ...]], every: list[tuple[int, ...]]) -> str:
    """Name some versions; three and more that follow each other among all become a range."""
    places = sorted(every.index(version) for version in some)
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])

    def name(place: int) -> str:
        return ".".join(map(str, every[place]))

    return ", ".join(
        f"{name(run[0])} to {name(run[-1])}" if len(run) > 2 else ", ".join(map(name, run))
        for run in runs
    )


def link(evidence: str) -> str:
    """Return a link to an issue, written as owner/project#1, or to a PEP, as in PEP 788."""
    if evidence.startswith("PEP "):
        return f"[{evidence}](https://peps.python.org/pep-{int(evidence[4:]):04})"
    project, number = evidence.split("#")
    return f"[{project.split('/')[1]}#{number}](https://github.com/{project}/issues/{number})"


def emphasise(seen: str) -> str:
    """Make the worst ends stand out."""
    bad = ("hangs", "dies by", "fatal error", "std::terminate")
    parts = [f"**{part}**" if part.startswith(bad) else part for part in seen.split("; ")]
    return "; ".join(parts)


def table(records: list[Record]) -> list[list[str]]:
    """Return the rows: for each hazard one per thing seen, the oldest version first."""
    rows = [HEAD, ["---"] * len(HEAD)]
    every = sorted({record.python for record in records})
    for hazard in sorted({record.order for record in records}):
        those = sorted(
            (record for record in records if record.order == hazard), key=lambda one: one.python
        )
        seen: dict[tuple[str, str], list[tuple[int, ...]]] = {}
        for record in those:
            seen.setdefault((record.stock, record.moored), []).append(record.python)
        newest = those[-1]
        links = ", ".join(map(link, newest.evidence))
        cell = f"**{newest.number}.** {newest.title}" + (f" ({links})" if links else "")
        for (stock, moored), versions in seen.items():
            rows.append([cell, name_versions(versions, every), emphasise(stock), emphasise(moored)])
            cell = ""
    return rows


def write(rows: list[list[str]]) -> str:
    """Write the page."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return INTRO + "\n".join(lines) + "\n"


def run_tests(wanted: list[str] | None) -> list[str]:
    """Run the hazard tests with the interpreters wanted, or all; name those that failed."""
    found = find()
    failed = []
    if not wanted:
        shutil.rmtree(RECORDS, ignore_errors=True)
    for interpreter in found:
        names = {interpreter.name, interpreter.version, interpreter.series}
        if interpreter.unusable or not interpreter.gil or (wanted and not names & set(wanted)):
            continue
        default = interpreter is found[0]
        workspace = Workspace(interpreter, default)
        print(f"{interpreter.name}: the hazard tests", file=sys.stderr, flush=True)
        try:
            workspace.prepare("develop" if default else "test")
            workspace.run(workspace.python, *TESTS, limit=3600, MOORED_HAZARDS=str(RECORDS))
        except StepFailed as failure:
            print(f"{workspace.log_tail()}\n{failure}, see {workspace.log}", file=sys.stderr)
            failed.append(interpreter.name)
    return failed


def main() -> int:
    """Run the tests if asked to, and write the page or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run the hazard tests first")
    parser.add_argument("--only", nargs="+", metavar="VERSION", help="run them with these alone")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where the tests left them")
    args = parser.parse_args()
    if args.run and (failed := run_tests(args.only)):
        print(f"moored: the hazard tests failed with {', '.join(failed)}", file=sys.stderr)
        return 1
    try:
        records = [read(path) for path in sorted(args.records.glob("*.json"))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as problem:
        print(f"moored: cannot read the records in {args.records}: {problem}", file=sys.stderr)
        return 1
    if not records:
        print(f"moored: no records in {args.records}; run `make safety`", file=sys.stderr)
        return 1
    page = write(table(records))
    name = PAGE.relative_to(CHECKOUT)
    if PAGE.exists() and PAGE.read_text() == page:
        print(f"{name} is what the tests saw")
        return 0
    if args.check:
        print(f"moored: {name} is not what the tests saw; run `make safety`", file=sys.stderr)
        return 1
    PAGE.write_text(page)
    print(f"{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
