"""One interpreter's workspace: its venv with the package in it, its build folder, its log."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from interpreters import CHECKOUT, Interpreter, find

# Time limits, to end what hangs; also where the machine is busy with other things.
QUICK_S, BUILD_S = 900, 3600
BUILD_TOOLS = ["scikit-build-core>=0.10", "nanobind>=2.4"]


class StepFailed(Exception):
    """A command of a step ended badly; the message says how, the log says why."""


class Workspace:
    """Where one interpreter's things are kept, so that a second run is quick."""

    def __init__(self, interpreter: Interpreter, default: bool) -> None:
        """Name the folders; nothing is made yet."""
        self.interpreter = interpreter
        self.default = default
        self.venv = CHECKOUT / (".venv" if default else f".venvs/{interpreter.name}")
        self.build = CHECKOUT / "build" / interpreter.name
        self.python = self.venv / "bin" / "python"
        self.log = self.build / "log.txt"

    def environment(self) -> dict[str, str]:
        """Return what commands run with: this venv first on the PATH, Ninja, ccache, all cores."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        env["PATH"] = f"{self.venv / 'bin'}:{env['PATH']}"
        env["VIRTUAL_ENV"] = str(self.venv)
        env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
        if not self.interpreter.gil:
            env["PYTHON_GIL"] = "0"  # also with extensions that have not said that they need none
        env["CMAKE_GENERATOR"] = "Ninja"
        env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(os.cpu_count() or 1)
        if self.interpreter.root or shutil.which("ccache"):
            env["CMAKE_C_COMPILER_LAUNCHER"] = env["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
            # Paths below the checkout count as relative, so that a new clone finds what is cached.
            env["CCACHE_BASEDIR"], env["CCACHE_NOHASHDIR"] = str(CHECKOUT), "1"
        return env

    def run(self, *words: str | Path, limit: float, **variables: str) -> None:
        """Run one command, its output into the log; raise StepFailed when it fails."""
        status = self.attempt(*words, limit=limit, **variables)
        if status != 0:
            raise StepFailed(f"{Path(words[0]).name} {words[1]} ended with {status}")

    def attempt(self, *words: str | Path, limit: float, **variables: str) -> int:
        """Run one command, its output into the log; return its exit code."""
        self.build.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            return self._run_logged(words, log, limit, variables)

    def _run_logged(
        self, words: tuple[str | Path, ...], log: IO[str], limit: float, variables: dict[str, str]
    ) -> int:
        started = time.monotonic()
        print(f"\n$ {' '.join(map(str, words))}", file=log, flush=True)
        # A session of its own, so that a command out of time is ended with all its children.
        with subprocess.Popen(
            self.interpreter.command(*words),
            cwd=CHECKOUT,
            env=self.environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                status = process.wait(limit)
            except BaseException as stopped:
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(stopped, subprocess.TimeoutExpired):
                    raise
                name = Path(words[0]).name
                raise StepFailed(f"{name} {words[1]} took over {limit:.0f} s") from None
        print(f"({time.monotonic() - started:.1f} s, exit code {status})", file=log)
        return status

    def prepare(self, extras: str) -> None:
        """Make the venv and install moored with its extras, and its lab, from this checkout."""
        self.log.unlink(missing_ok=True)
        # By the link's text: a venv of the sid folder leads nowhere when seen from outside.
        if os.path.realpath(self.python) != self.interpreter.executable:
            shutil.rmtree(self.venv, ignore_errors=True)
            self.run(self.interpreter.executable, "-m", "venv", self.venv, limit=QUICK_S)
        self._pip("install", "--quiet", *BUILD_TOOLS, limit=QUICK_S)
        charts = "[charts]" if self.default else ""
        self._install_from(CHECKOUT, f"[{extras}]", "package")
        self._install_from(CHECKOUT / "lab", charts, "lab")

    def install_wheels(self, *wanted: str) -> None:
        """Install what some tests need, one by one; those tests say what lacks."""
        pip = (self.python, "-m", "pip", "install", "--quiet", "--only-binary=:all:")
        for one in wanted:
            self.attempt(*pip, one, limit=QUICK_S)

    def _install_from(self, folder: Path, extras: str, build: str) -> None:
        self._pip(
            *("install", "--no-build-isolation", "--prefer-binary"),
            f"--config-settings=build-dir={self.build / build}",
            f"{folder}{extras}",
            limit=BUILD_S,
        )

    def _pip(self, *words: str | Path, limit: float) -> None:
        self.run(self.python, "-m", "pip", *words, limit=limit)

    def build_cpp_tests(self) -> Path:
        """Configure and build the C++ tests; return their folder."""
        folder = self.build / "cpp"
        self.run(
            *("cmake", "--preset", "tests", "-B", folder),
            f"-DPython_EXECUTABLE={self.interpreter.executable}",
            # The library is C++17, and its users may be on C++20: the default interpreter is.
            f"-DCMAKE_CXX_STANDARD={20 if self.default else 17}",
            limit=QUICK_S,
        )
        self.run("cmake", "--build", folder, limit=BUILD_S)
        return folder

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def main() -> int:
    """Prepare the default interpreter's .venv with the package and everything for development."""
    interpreters = find()
    if not interpreters or interpreters[0].unusable:
        why = interpreters[0].unusable if interpreters else "no CPython 3.10 or later was found"
        print(f"moored: cannot build: {why}", file=sys.stderr)
        return 3
    workspace = Workspace(interpreters[0], default=True)
    print(f"building for Python {workspace.interpreter.version} in .venv", file=sys.stderr)
    try:
        workspace.prepare("develop")
    except StepFailed as failure:
        print(f"{workspace.log_tail()}\nmoored: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
