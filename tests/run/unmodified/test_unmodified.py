"""Programs as people write them, with published extensions: stock and under `moored run`.

Each runs twice. What it prints must be the same; what its callbacks saw of their threads is told by
scripts/witness.py, and what moored did is in its --json.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import both_ways
import pytest
from both_ways import SCRIPTS, Ran, need

# Where Debian puts what apt installs for Python; python3-gi is nowhere else.
DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")


def both(script: str, folder: Path, *places: Path) -> tuple[Ran, Ran]:
    path = os.pathsep.join(map(str, [SCRIPTS, *places]))
    stock, kept = both_ways.both([SCRIPTS / f"{script}.py"], folder, PYTHONPATH=path)
    assert stock.code == 0, stock.talk
    assert stock.saw, stock.talk
    assert kept.saw, kept.talk
    return stock, kept


def need_gi() -> None:
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    if not list(DIST_PACKAGES.glob(f"gi/_gi.cpython-{version}-*.so")):
        pytest.skip("python3-gi is not installed for this Python: apt install python3-gi")


CALLED_BACK = [
    ("qt", "PySide6"),
    ("polars_map", "polars"),
    ("arrow_udf", "pyarrow"),
    ("flight_server", "pyarrow.flight"),
    ("datafusion_udf", "datafusion"),
    ("tokenizers_custom", "tokenizers"),
]


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


@pytest.mark.parametrize("script", ["gstreamer", "gio"])
def test_debians_native_threads_keep_their_states(script, tmp_path):
    need_gi()
    check_kept(*both(script, tmp_path, DIST_PACKAGES))


def test_duckdb_attaches_once_for_many_rows(tmp_path):
    """A vector of rows is one attach, so that stock loses the thread-local between vectors only."""
    need("duckdb", "numpy")
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
