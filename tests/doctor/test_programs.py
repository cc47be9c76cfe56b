"""Published extensions: each payer is named right, and the remedy makes it go away."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from support.processes import run_moored

from moored.doctor import capture
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
    assert stock.total.temporary_states > 1, stock
    assert stock.total.calls >= stock.total.temporary_states
    paying = {site.binding for site in stock.sites if site.counts.temporary_states}
    assert paying & bindings, paying
    kept = visit(script, folder, "--kept", places=places)
    assert kept.total.temporary_states < stock.total.temporary_states
    foreign = [thread for thread in kept.threads if thread.counts.temporary_states]
    assert kept.total.temporary_states == len(foreign)  # one for each thread, which keeps it


@pytest.mark.parametrize(("script", "module", "bindings"), PROGRAMS)
def test_the_remedy_helps(script, module, bindings, tmp_path):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'moored[programs]'")
    check(script, bindings, tmp_path)


@pytest.mark.parametrize("script", ["gstreamer", "gio"])
def test_the_remedy_helps_debians_programs(script, tmp_path):
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    if not list(DIST_PACKAGES.glob(f"gi/_gi.cpython-{version}-*.so")):
        pytest.skip("python3-gi is not installed for this Python: apt install python3-gi")
    check(script, {"PyGObject"}, tmp_path, DIST_PACKAGES)
