"""Debuggers and profilers beside `moored run`; each is skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import LAUNCHER
from support.limits import BUILD_S
from support.processes import finish

MODULE = ["-m", "three_visits"]


def tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(str(Path(sys.executable).with_name(name)))
    if path is None:
        pytest.skip(f"no {name} here")
    return path


def output(words: list[str | Path], environment: dict[str, str]) -> str:
    done = finish(*words, env=environment, limit=BUILD_S)
    assert done.code == 0, done.out + done.err
    return done.out + done.err


def test_under_gdb(environment):
    words = [tool("gdb"), "-q", "-nx", "-batch", "-ex", "run", "--args", LAUNCHER, "run", *MODULE]
    said = output(words, environment)
    if "ptrace: Operation not permitted" in said:
        pytest.skip("gdb may not trace here")
    assert "[1, 2, 3]" in said


def test_gdb_under_it(environment):
    debugger = [tool("gdb"), "-q", "-nx", "-batch", "-ex", "run", "--args"]
    said = output([LAUNCHER, "run", "--exec", *debugger, sys.executable, *MODULE], environment)
    if "ptrace: Operation not permitted" in said:
        pytest.skip("gdb may not trace here")
    assert "[1, 2, 3]" in said


def test_under_valgrind(environment):
    # Without that option valgrind has the C library free, at the very end, what the dynamic loader
    # allocated for LD_AUDIT before there was a malloc, and complains of it.
    checker = [tool("valgrind"), "-q", "--run-libc-freeres=no", "--trace-children=yes"]
    said = output([*checker, LAUNCHER, "run", *MODULE], environment)
    assert "[1, 2, 3]" in said
    assert "libmoored" not in said


def test_memray_comes_last_and_programs_are_as_they_were(environment, tmp_path):
    pytest.importorskip("memray")
    recorded = tmp_path / "recorded.bin"
    words = [LAUNCHER, "run", "-m", "memray", "run", "--native", "-q", "-o", recorded, *MODULE]
    assert "[1, 1, 1]" in output(words, environment)
    assert recorded.stat().st_size > 0


def test_py_spy_looks_into_it(environment):
    looker = tool("py-spy")
    code = "import caller, time\nprint('in', flush=True)\ndef stay(): time.sleep(100)\n"
    code += "caller.free.call_on_a_thread(caller.CALLBACK(stay), 1)"
    with subprocess.Popen(
        [LAUNCHER, "run", "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"
            done = finish(looker, "dump", "--pid", str(process.pid))
        finally:
            os.kill(process.pid, signal.SIGKILL)
    if done.code != 0:
        pytest.skip(f"py-spy cannot: {done.err.strip()}")
    assert "Thread" in done.out


def test_py_spy_itself_is_refused_with_a_reason(moored_run):
    ending = moored_run("--exec", tool("py-spy"), "dump")
    if ending.code != 3:
        pytest.skip("this py-spy is not a static executable")
    assert "is a static executable" in ending.err
