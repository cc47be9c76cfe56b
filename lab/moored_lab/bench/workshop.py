"""Workshop: where one interpreter's extensions are built, and kept for the next run."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moored_lab.bench.interpreter import Interpreter

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
COMMAND_S = 600.0


class CannotBuild(Exception):
    """One binding cannot be built here; the message is the reason, for its rows."""


class CannotStart(Exception):
    """Nothing at all can be built here; the message says what to do."""


def default_cache() -> Path:
    """Return the folder of all workshops."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "moored" / "bench"


def compiler_for(suffix: str) -> list[str]:
    """Return the command that compiles such a file: what CC or CXX says, or else cc or c++."""
    variable, usual = ("CC", "cc") if suffix == ".c" else ("CXX", "c++")
    return shlex.split(os.environ.get(variable, "")) or [usual]


class Workshop:
    """One interpreter's folder: its log, a venv for what pip installs, and the modules."""

    def __init__(self, interpreter: Interpreter, cache: Path) -> None:
        """Name the folders; nothing is made yet."""
        self.interpreter = interpreter
        name = f"python-{interpreter.version}-{_digest(interpreter)}"
        self.folder = cache.absolute() / name
        self.modules = self.folder / "modules"
        self.log = self.folder / "log.txt"
        self._venv = self.folder / "venv"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder, and have it alone for as long as this lasts."""
        try:
            self.modules.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:  # at any time: a disk may become full
            if not (self._is_its(error) or error.errno in (errno.ENOSPC, errno.EDQUOT)):
                raise
            why = error.strerror or "files cannot be copied there"
            raise CannotStart(
                f"cannot build in {self.folder}: {why}; name a folder with --cache"
            ) from error

    def _is_its(self, error: OSError) -> bool:
        """Tell whether it was the folder that failed; shutil's own error names many files."""
        if error.filename is None:
            return isinstance(error, shutil.Error)
        place = Path(os.fsdecode(error.filename))
        return place.is_relative_to(self.folder) or self.folder.is_relative_to(place)

    @property
    def packages(self) -> Path:
        """Where pip installs."""
        name = f"python3.{self.interpreter.minor}{'' if self.interpreter.gil else 't'}"
        return self._venv / "lib" / name / "site-packages"

    def build_driver(self) -> None:
        """Build what makes the threads; without it there is nothing to measure."""
        if shutil.which(compiler_for(".c")[0]) is None:
            raise CannotStart(
                f"there is no C compiler ({compiler_for('.c')[0]}); install one, on Debian: gcc"
            )
        if not (self.interpreter.include / "Python.h").exists():
            raise CannotStart(
                f"the headers of Python {self.interpreter.version} are not at "
                f"{self.interpreter.include}; install them, on Debian: python3-dev"
            )
        if self.is_built("driver"):
            return
        try:
            self.compile(self.modules / "driver.so", SOURCES / "driver.c", "-pthread")
        except CannotBuild as error:
            raise CannotStart(f"the benchmark's C library does not build: {error}") from error
        self.note_built("driver")

    def build(self, name: str, make: Callable[[Workshop, Path, Path], None]) -> bool:
        """Build one binding's module, if that was not done yet; true when it was done now."""
        if self.is_built(name):
            return False
        target = self.modules / name
        shutil.rmtree(target, ignore_errors=True)
        # The sources are copied: what tools write beside them belongs here.
        shutil.copytree(SOURCES / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        make(self, SOURCES / name, target)
        self.note_built(name)
        return True

    def compile(self, target: Path, source: Path, *flags: str | Path) -> None:
        """Compile one C or C++ file into a library that Python can load."""
        compiler = compiler_for(source.suffix)
        if shutil.which(compiler[0]) is None:
            raise CannotBuild(f"there is no C++ compiler ({compiler[0]}); on Debian: g++")
        include = f"-I{self.interpreter.include}"
        self.run(*compiler, "-O2", "-shared", "-fPIC", include, source, *flags, "-o", target)

    def pip_install(self, *requirements: str) -> None:
        """Install into the workshop's own venv."""
        if not self.python.exists():
            shutil.rmtree(self._venv, ignore_errors=True)
            self.run(self.interpreter.executable, "-m", "venv", self._venv)
        pip = (self.python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
        self.run(*pip, *requirements)

    @property
    def python(self) -> Path:
        """The venv's interpreter."""
        return self._venv / "bin" / "python"

    def run(self, *words: str | Path, **variables: str) -> str:
        """Run a tool, its words into the log; return its stdout."""
        command = [str(word) for word in words]
        tool = Path(command[0]).name
        if command[1:2] == ["-m"]:
            tool = command[2]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_S,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=environment | variables,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotBuild(f"{tool}: {error}") from error
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}")
        if done.returncode != 0:
            words_said = _reason(done.stderr or done.stdout)
            raise CannotBuild(f"{tool} failed: {words_said} (all of it: {self.log})")
        return done.stdout

    def is_built(self, name: str) -> bool:
        """Tell whether an earlier run, or this one, has built it."""
        return (self.modules / f"{name}.built").exists()

    def note_built(self, name: str) -> None:
        """Remember it for the next run."""
        (self.modules / f"{name}.built").touch()


def _digest(interpreter: Interpreter) -> str:
    """Tell apart what must not share a folder: interpreters, and sources that have changed."""
    seen = hashlib.sha256(f"{interpreter.executable} {interpreter.abi}".encode())
    files = [HERE / "workshop.py", HERE / "bindings.py"]
    files += sorted(path for path in SOURCES.rglob("*") if path.is_file())
    for path in files:
        if path.suffix != ".pyc":
            seen.update(path.relative_to(HERE).as_posix().encode())
            seen.update(path.read_bytes())
    return seen.hexdigest()[:12]


def _reason(said: str) -> str:
    """Pick the line that says most: the first that speaks of an error, or else the last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["it said nothing"])[0][:200]
