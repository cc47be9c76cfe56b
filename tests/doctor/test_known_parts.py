"""A program of known parts: counts are exact, sites are named, times fit those of its own clock.

The program takes the times of the very calls that the doctor records: around each of them, and in
its callback. So the doctor's times lie between the two, on a busy machine as well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.building import compile_extension, compile_library
from support.processes import run_moored

from moored.doctor import capture, names
from moored.doctor.recording import Counts, Recording

HERE = Path(__file__).parent
PROGRAM = HERE / "known_program.py"
SAME = 1.01
"""By how much the doctor's clock may run faster or slower than the program's, which is adjusted."""


@dataclass(frozen=True)
class Times:
    """What the program counted of one part by itself."""

    calls: int
    outside_ns: int
    inside_ns: int


@dataclass(frozen=True)
class Known:
    """What the program says, and what the doctor says of it."""

    parts: dict[str, Times]
    recording: Recording

    def sites(self, binding: str) -> dict[str, Counts]:
        """What the doctor recorded by that way, by the name of the site that calls."""
        found: dict[str, Counts] = {}
        for site in self.recording.sites:
            if site.counts.calls and names.binding_name(site) == binding:
                name = names.short_site_name(site)
                found[name] = found.get(name, Counts()) + site.counts
        return found

    def by_way(self, count: str) -> dict[str, int]:
        """One of the counts, of each way in."""
        return {
            way: sum(getattr(counts, count) for counts in self.sites(way).values())
            for way in ("_ctypes", "pybind11", "_cffi_backend")
        }

    def waited_inside_ns(self, binding: str) -> int:
        """How long callbacks by that way waited for the GIL that Python had given others."""
        keys = {site.key for site in self.recording.sites if names.binding_name(site) == binding}
        return sum(
            thread.counts.wait_ns - sum(counts.wait_ns for _, counts in thread.sites)
            for thread in self.recording.threads
            if any(key in keys and counts.calls for key, counts in thread.sites)
        )


@pytest.fixture(scope="module", params=["as built", "stripped"])
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Run the program once, with its libraries as they were built or without symbols."""
    for module in ("pybind11", "cffi"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install {module}")
    folder = tmp_path_factory.mktemp("known")
    strips = ("-s",) if request.param == "stripped" else ()
    library = folder / "known_parts.so"
    compile_library(HERE / "known_parts.c", library, *strips)
    compile_extension(HERE / "known_pool.cpp", folder, *strips)
    ending = run_moored(
        *("doctor", "-o", folder / "capture", PROGRAM),
        env=os.environ | {"KNOWN_PARTS": str(library), "PYTHONPATH": str(folder)},
    )
    assert ending.code == 0, ending.err
    told = json.loads(ending.out)
    parts = {name: Times(*numbers) for name, numbers in told.items()}
    return Known(parts, capture.read(folder / "capture"))


def test_the_counts_are_exact(known: Known) -> None:
    recorded = known.recording
    assert known.by_way("calls") == {
        "_ctypes": known.parts["sensor"].calls,
        "pybind11": known.parts["pool"].calls,
        "_cffi_backend": known.parts["stream"].calls,
    }
    assert recorded.total.calls == sum(part.calls for part in known.parts.values())
    assert recorded.records_lost == 0


def test_so_are_the_states(known: Known) -> None:
    assert known.by_way("temporary_states") == {
        "_ctypes": known.parts["sensor"].calls,
        "pybind11": known.parts["pool"].calls,
        "_cffi_backend": 1,  # cffi keeps the state by itself
    }


def test_each_site_is_named(known: Known) -> None:
    assert list(known.sites("_ctypes")) == ["known_parts!read_sensor"]
    assert list(known.sites("_cffi_backend")) == ["known_parts!read_stream"]
    (pool,) = known.sites("pybind11")
    assert pool.startswith("known_pool!")


def test_no_thread_of_pythons_is_among_them(known: Known) -> None:
    foreign = [one for one in known.recording.threads if one.kind == "foreign"]
    assert len(foreign) == 4  # the sensor's, the stream's, and two of the pool
    (main,) = (one for one in known.recording.threads if one.kind == "main")
    assert main.counts.calls == 0


@pytest.mark.parametrize(
    ("way", "part"), [("_ctypes", "sensor"), ("pybind11", "pool"), ("_cffi_backend", "stream")]
)
def test_the_times_fit_the_programs_own(known: Known, way: str, part: str) -> None:
    (counts,) = known.sites(way).values()
    own = known.parts[part]
    inside = counts.hold_ns + known.waited_inside_ns(way)
    whole = (counts.attach_ns + inside) / (own.outside_ns + own.inside_ns)
    print(f"{part}: the doctor saw {whole:.3f} of the time that the program took")
    assert own.inside_ns <= inside * SAME
    assert counts.attach_ns <= own.outside_ns * SAME
    assert whole <= SAME


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this Python has no GIL to wait for"
)
@pytest.mark.parametrize("way", ["_ctypes", "pybind11"])
def test_entering_waits_for_the_busy_main_thread(known: Known, way: str) -> None:
    (counts,) = known.sites(way).values()
    assert 0 < counts.wait_ns <= counts.attach_ns
    if known.recording.sees_holders:
        assert 0 < counts.wait_for_main_ns <= counts.wait_ns
