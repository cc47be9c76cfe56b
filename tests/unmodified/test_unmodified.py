"""Programs as people write them, with published extensions: stock and under `moored run`.

Each runs twice. What it prints must be the same; what its callbacks saw of their threads is told by
scripts/witness.py, and what moored did is in its --json.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).with_name("scripts")
LAUNCHER = Path(sysconfig.get_path("scripts")) / "moored"
LIMIT_SECONDS = 100
# Where Debian puts what apt installs for Python; python3-gi is nowhere else.
DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")


@dataclass
class Ran:
    """How a program ended, and what was seen."""

    code: int
    out: str
    saw: dict[str, int]
    did: dict[str, int]


def run(command: list[str | Path], script: str, folder: Path) -> Ran:
    silent = folder / "asoundrc"
    silent.write_text("pcm.!default { type null }\nctl.!default { type null }\n")
    found = [str(SCRIPTS), str(DIST_PACKAGES)] if script in DESKTOP else [str(SCRIPTS)]
    environment = os.environ | {
        "ALSA_CONFIG_PATH": str(silent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(found),
        "QT_QPA_PLATFORM": "offscreen",
    }
    done = subprocess.run(
        [*command, SCRIPTS / f"{script}.py"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    *talk, last = done.stderr.splitlines() or [""]
    assert last.startswith("witness "), done.stderr
    assert not [line for line in talk if "moored" in line], done.stderr
    counts = folder / "counts.json"
    did = json.loads(counts.read_text())["rows"][0] if counts.exists() else {}
    return Ran(done.returncode, done.stdout, json.loads(last.removeprefix("witness ")), did)


def both(script: str, folder: Path) -> tuple[Ran, Ran]:
    stock = run([sys.executable], script, folder)
    kept = run([LAUNCHER, "run", "--json", folder / "counts.json"], script, folder)
    assert stock.code == kept.code == 0
    assert stock.out == kept.out != ""
    return stock, kept


def need(module: str) -> None:
    """Skip, and say why, where a program's extension cannot be imported."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install 'moored[programs]'")


def need_gi() -> None:
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    if not list(DIST_PACKAGES.glob(f"gi/_gi.cpython-{version}-*.so")):
        pytest.skip("python3-gi is not installed for this Python: apt install python3-gi")


DESKTOP = ("gstreamer", "gio")

CALLED_BACK = [("qt", "PySide6"), ("polars_map", "polars"), ("arrow_udf", "pyarrow")]


def check_kept(stock: Ran, kept: Ran) -> None:
    """Called back on foreign threads, more than once on each: stock forgets, moored does not."""
    assert stock.saw["foreign_calls"] > 0
    assert stock.saw["repeated"] > stock.saw["survived"]
    assert kept.saw["repeated"] == kept.saw["survived"] > 0
    assert kept.did["states_adopted"] == kept.saw["foreign_threads"]
    ended = kept.did["states_freed"] + kept.did["states_forgotten"]
    assert kept.did["states_adopted"] == ended + kept.did["states_kept"]


@pytest.mark.parametrize(("script", "module"), CALLED_BACK)
def test_native_threads_keep_their_states(script, module, tmp_path):
    need(module)
    stock, kept = both(script, tmp_path)
    check_kept(stock, kept)
    assert kept.did["calls_served"] >= kept.saw["repeated"]
    if script == "qt":  # which waits for its threads; they may still be ending when Python does
        assert kept.did["states_kept"] == 0


@pytest.mark.parametrize("script", DESKTOP)
def test_debians_native_threads_keep_their_states(script, tmp_path):
    need_gi()
    check_kept(*both(script, tmp_path))


def test_duckdb_attaches_once_for_many_rows(tmp_path):
    """A vector of rows is one attach, so that stock loses the thread-local between vectors only."""
    need("duckdb")
    stock, kept = both("duckdb_udf", tmp_path)
    check_kept(stock, kept)
    assert 0 < kept.did["calls_served"] < kept.saw["calls"] / 100
    assert kept.did["states_kept"] == 0


def test_sounddevice_keeps_its_state_by_itself(tmp_path):
    """It is called back through cffi, which keeps states: what it sees is the same."""
    need("sounddevice")
    try:
        stock, kept = both("audio", tmp_path)
    except AssertionError as failed:
        if "PortAudio library not found" in str(failed):
            pytest.skip("PortAudio is not installed: apt install libportaudio2")
        raise
    assert stock.saw == kept.saw
    assert stock.saw["survived"] == stock.saw["repeated"] > 0


@pytest.mark.parametrize(
    ("script", "module"),
    [("kafka", "confluent_kafka"), ("grpc_server", "grpc"), ("zmq_pipe", "zmq")],
)
def test_what_calls_back_on_python_threads_is_left_alone(script, module, tmp_path):
    need(module)
    stock, kept = both(script, tmp_path)
    assert stock.saw == kept.saw
    assert stock.saw["foreign_calls"] == 0
    assert kept.did["threads_seen"] == kept.did["states_adopted"] == 0
