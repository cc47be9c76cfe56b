"""Published extensions: each payer is named right, and the remedy makes it go away."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.asking import ask, free_port, wait_for_answer
from support.processes import run_moored

from moored.doctor import capture, findings, names
from moored.doctor.recording import Recording

SCRIPTS = Path(__file__).resolve().parents[1] / "run" / "unmodified" / "scripts"
DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
PROGRAMS = [
    ("qt", "PySide6", {"Shiboken"}),
    ("polars_map", "polars", {"PyO3"}),
    ("datafusion_udf", "datafusion", {"PyO3", "C or C++", "Cython"}),
    ("tokenizers_custom", "tokenizers", {"PyO3"}),
    ("duckdb_udf", "duckdb", {"pybind11", "nanobind"}),
]
pytestmark = pytest.mark.program


def visit(script: str, folder: Path, *options: str, places: tuple[Path, ...] = ()) -> Recording:
    path = folder / f"capture{len(options)}"
    places_of_modules = os.pathsep.join(map(str, (SCRIPTS, *places)))
    ending = run_moored(
        *("doctor", f"-o={path}", *options, SCRIPTS / f"{script}.py"),
        PYTHONPATH=places_of_modules,
        QT_QPA_PLATFORM="offscreen",
        folder=folder,
    )
    assert ending.code == 0, ending.err
    return capture.read(path)


def check(script: str, bindings: set[str], folder: Path, *places: Path) -> None:
    stock = visit(script, folder, places=places)
    check_both(stock, visit(script, folder, "--kept", places=places), bindings)


def check_both(stock: Recording, kept: Recording, bindings: set[str]) -> None:
    """Check which binding pays in a stock run, and that with kept states no thread pays twice."""
    assert stock.total.temporary_states > 1, stock
    assert stock.total.calls >= stock.total.temporary_states
    paying = {site.binding for site in stock.sites if site.counts.temporary_states}
    assert paying & bindings, paying
    assert kept.total.temporary_states < stock.total.temporary_states
    foreign = [thread for thread in kept.threads if thread.counts.temporary_states]
    assert kept.total.temporary_states == len(foreign)  # one for each thread, which keeps it
    assert not rules_of(kept) & {"temporary-states", "lost-locals"}


def rules_of(recording: Recording) -> set[str]:
    """Return which rules found something."""
    return {finding.rule for finding in findings.find_all(recording)}


@pytest.mark.parametrize(("script", "module", "bindings"), PROGRAMS)
def test_the_remedy_helps(script, module, bindings, tmp_path):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'moored[programs]'")
    check(script, bindings, tmp_path)


def serve(folder: Path, *options: str) -> Recording:
    """Record a server of Robyn's that answers 30 requests and is interrupted."""
    path, port = folder / f"capture{len(options)}", free_port()
    launcher = Path(sysconfig.get_path("scripts")) / "moored"
    words = ["doctor", f"-o={path}", *options, SCRIPTS / "robyn_server.py", str(port)]
    with subprocess.Popen(
        [launcher, *words, "--log-level", "ERROR"],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            wait_for_answer(port, server)
            answers = [ask(port, f"/double/{number}") for number in range(30)]
            os.killpg(server.pid, signal.SIGINT)
            _, talk = server.communicate(timeout=100)
        finally:
            server.kill()
    assert answers == [(200, str(2 * number)) for number in range(30)]
    assert server.returncode == 0, talk
    return capture.read(path)


def test_the_remedy_helps_a_server_of_robyn(tmp_path):
    if importlib.util.find_spec("robyn") is None:
        pytest.skip("robyn is not installed: pip install 'moored[programs]'")
    stock, kept = serve(tmp_path), serve(tmp_path, "--kept")
    check_both(stock, kept, {"PyO3"})
    callers = {names.site_name(site) for site in stock.sites if site.binding == "PyO3"}
    assert len(callers) > 1  # all enter by one function of PyO3's, which is stripped
    assert "lost-locals" in rules_of(stock)


@pytest.mark.parametrize("script", ["gstreamer", "gio"])
def test_the_remedy_helps_debians_programs(script, tmp_path):
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    if not list(DIST_PACKAGES.glob(f"gi/_gi.cpython-{version}-*.so")):
        pytest.skip("python3-gi is not installed for this Python: apt install python3-gi")
    check(script, {"PyGObject"}, tmp_path, DIST_PACKAGES)
