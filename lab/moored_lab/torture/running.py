"""Running: builds the native threads, and runs each case in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import moored
from moored_lab.bench.bindings import BINDINGS
from moored_lab.bench.interpreter import Interpreter
from moored_lab.bench.workshop import CannotBuild, Workshop, compiler_for
from moored_lab.torture import cases
from moored_lab.torture.cases import Case
from moored_lab.torture.judge import Report, faults

HERE = Path(__file__).resolve().parent
CASE_S = 180.0
"""A hang. A main thread among sixty that want the GIL needs a minute for little, on two cores."""
FLAGS = ("-std=c++17", "-fvisibility=hidden", "-pthread", "-g")


@dataclass(frozen=True)
class Outcome:
    """How one case ended."""

    case: Case
    faults: list[str]
    stderr: str
    report: Report
    seconds: float


@dataclass
class Bench:
    """What the cases need, built for one interpreter."""

    python: str
    minor: int
    gil: bool
    paths: list[str]
    bindings: tuple[str, ...] = ()
    embedding: Path | None = None
    launcher: list[str] = field(default_factory=list)
    """What runs a program under `moored run`; empty where that cannot be."""
    without: dict[str, str] = field(default_factory=dict)
    """What could not be built, and why."""
    environment: dict[str, str] = field(default_factory=dict)

    def draw(self, seed: int) -> Case:
        """Draw a case that can be run here."""
        embeds, launches = self.embedding is not None, bool(self.launcher)
        return cases.draw(seed, self.minor, self.gil, self.bindings, embeds, launches)


def build(interpreter: Interpreter, cache: Path, sanitizer: str = "") -> Bench:
    """Build what is not built yet. Raise CannotBuild, or CannotStart, when nothing can be run."""
    flags = [*FLAGS, *([f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"] * bool(sanitizer))]
    shop = Workshop(interpreter, cache)
    with shop.opened():
        shop.build_driver()  # says what to install where nothing can be built
        target = shop.modules / f"torture{sanitizer}"
        target.mkdir(exist_ok=True)
        bench = Bench(
            str(interpreter.executable), interpreter.minor, interpreter.gil, [str(target)]
        )
        if sanitizer:
            bench.environment = _sanitized(shop, sanitizer)
        key = f"torture{sanitizer}-{_digest()}"
        if not shop.is_built(key):
            print(f"building for Python {interpreter.version}", file=sys.stderr)
            include = f"-I{moored.get_include()}"
            threads = target / "torture_threads.so"
            shop.compile(threads, HERE / "torture_threads.cpp", *flags, include)
            shop.compile(target / "torture_plugin.so", HERE / "plugin.cpp", *flags, include)
            shop.note_built(key)
        if interpreter.gil and not sanitizer:
            bench.launcher = interpreter.run_command
        try:
            bench.embedding = _build_embedding(shop, target)
        except CannotBuild as error:
            bench.without["embedding"] = str(error)
        for binding in BINDINGS:
            if binding.key not in cases.BINDINGS:
                continue
            try:
                shop.build(binding.key, binding.build)
            except CannotBuild as error:
                bench.without[binding.name] = str(error)
                continue
            bench.bindings += (binding.key,)
            bench.paths.append(str(shop.modules / binding.key))
    return bench


def _sanitized(shop: Workshop, sanitizer: str) -> dict[str, str]:
    """Give what a Python needs that was not built with the sanitizer: its library, loaded first."""
    short = {"address": "asan", "undefined": "ubsan"}[sanitizer]
    # C++'s own beside it, because what throws is loaded later than what watches it.
    names = (f"lib{short}", "libstdc++")
    needed = [
        shop.run(*compiler_for(".cpp"), f"-print-file-name={name}.so").strip() for name in names
    ]
    if not all(Path(one).is_absolute() for one in needed):
        raise CannotBuild(f"the compiler has no lib{short}; on Debian it comes with g++")
    # CPython frees little at its end: what moored loses is counted instead.
    return {"LD_PRELOAD": ":".join(needed), "ASAN_OPTIONS": "detect_leaks=0"}


def _digest() -> str:
    """Tell apart what was built from other sources."""
    seen = hashlib.sha256()
    for path in [*sorted(HERE.glob("*.[ch]*")), *sorted(Path(moored.get_include()).rglob("*.hpp"))]:
        seen.update(path.read_bytes())
    return seen.hexdigest()[:12]


def _build_embedding(shop: Workshop, target: Path) -> Path:
    """Build the program with a Python inside; only where there is a shared libpython."""
    program = target / "embedding"
    key = f"{target.name}-embedding"
    if shop.is_built(key):
        return program
    variables = sysconfig.get_config_vars()
    folder, library = str(variables["LIBDIR"]), str(variables["LDLIBRARY"])
    if not library.endswith(".so"):
        raise CannotBuild("this Python has no shared libpython; nothing can embed it")
    name = library.removeprefix("lib").removesuffix(".so")
    shop.run(
        *compiler_for(".c"),
        *("-O1", f"-I{shop.interpreter.include}", HERE / "embedding.c"),
        *(f"-L{folder}", f"-Wl,-rpath,{folder}", f"-l{name}", "-o", program),
    )
    shop.note_built(key)
    return program


def run_all(
    bench: Bench, seeds: Iterator[int], seconds: float | None, jobs: int
) -> Iterator[Outcome]:
    """Run cases side by side until there are no more seeds, or no more time."""
    until = time.monotonic() + seconds if seconds is not None else None
    with ThreadPoolExecutor(jobs) as pool:
        running: set[Future[Outcome]] = set()
        try:
            while True:
                while len(running) < jobs and (until is None or time.monotonic() < until):
                    seed = next(seeds, None)
                    if seed is None:
                        break
                    running.add(pool.submit(run, bench, bench.draw(seed)))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        finally:
            for one in running:
                one.cancel()


def seeds_from(first: int, number: int | None) -> Iterator[int]:
    """Give so many seeds, or endlessly many."""
    return iter(range(first, first + number)) if number is not None else count(first)


def run(bench: Bench, case: Case) -> Outcome:
    """Run one case."""
    readable, writable = os.pipe()
    command: Sequence[str] = [bench.python, "-X", "faulthandler", str(HERE / "program.py")]
    if case.ending == "embedded":
        command = [str(bench.embedding), str(HERE / "program.py"), str(case.lives)]
    elif case.launcher:
        options = ["--urgent=100%"] if case.urgent else []
        command = [*bench.launcher, *options, *command[1:]]
    environment = (
        os.environ
        | bench.environment
        | {
            "MOORED_TORTURE_CASE": case.as_json(),
            "MOORED_TORTURE_MODULES": json.dumps(bench.paths),
            "MOORED_TORTURE_REPORT": str(writable),
            "PYTHONHOME": sys.base_prefix,
        }
    )
    if case.ending != "embedded":
        del environment["PYTHONHOME"]
    began = time.monotonic()
    try:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(writable,),
            start_new_session=True,  # it is ended with its children
        ) as process:
            os.close(writable)
            try:
                _, said = process.communicate(timeout=CASE_S)
                hung = False
            except subprocess.TimeoutExpired:
                hung = True
                said = _end(process)
        told = b"" if hung else _read_all(readable)
    finally:
        os.close(readable)
    stderr = said.decode(errors="replace")
    report: Report = json.loads(told) if told else {}
    wrong = (
        [f"it hung for {CASE_S:.0f} s"]
        if hung
        else faults(case, process.returncode, stderr, report or None)
    )
    return Outcome(case, wrong, stderr, report, time.monotonic() - began)


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """End a process that hangs, and its children; give what it said."""
    # faulthandler shows where every thread is.
    for how in (signal.SIGABRT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=5.0)[1]
    return b""


def _read_all(descriptor: int) -> bytes:
    """Read what the process has written; a child that it left behind may still hold the pipe."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""
