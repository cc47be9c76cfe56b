"""The exports: what other tools read says what the recording does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from doctor_recordings import CHURN, churning, healthy, large, site, thread, with_counts
from support.checkout import CHECKOUT
from support.limits import BUILD_S
from support.processes import finish, succeed

from moored.doctor import (
    buckets,
    export_collapsed,
    export_firefox,
    export_json,
    export_speedscope,
    firefox_markers,
)
from moored.doctor.recording import Counts, Frame, Recording, Sample

WAITING = Counts(calls=10, attach_ns=900, wait_ns=600, wait_for_main_ns=500)


def test_json_is_a_document_like_those_of_other_commands() -> None:
    document = json.loads(export_json.export(churning(records_lost=2)))
    assert {"moored", "python", "machine", "command", "rows"} <= set(document)
    assert document["rows"][0]["site"] == "libgstbase!gst_base_src_loop"
    assert document["rows"][0]["through"] == "_ctypes"
    assert document["rows"][0]["temporary_states"] == 43_120
    assert document["rows"][0]["temporary_states_cost_ns"] == 610_000_000
    assert document["findings"][0]["rule"] == "temporary-states"
    assert document["findings"][0]["remedy"] == "moored run app.py --port 80"
    assert document["process"]["records_lost"] == 2
    assert document["process"]["recording_ns"] == (43_120 * 36)
    assert document["threads"][1]["sites"][0]["key"] == 1
    assert len(document["samples"]) == 124
    assert document["verdict"].startswith("43,120 temporary")


def test_collapsed_stacks_end_with_what_the_time_went_for() -> None:
    lines = export_collapsed.export(with_counts(WAITING)).splitlines()
    stack = "'gst-src';libc!start_thread;libgstbase!gst_base_src_loop;libffi!0x7e22;_ctypes!0x5c10"
    assert lines == [
        f"{stack};[attach and release] 300",
        f"{stack};[wait for the GIL: main] 500",
        f"{stack};[wait for the GIL: other threads] 100",
    ]


def test_collapsed_stacks_have_a_line_each_whatever_names_hold() -> None:
    odd = site(1, CHURN, frames=(Frame("a;b\n.so", "f;g(int)\n\x1b"),))
    recording = churning(sites=(odd,), threads=(thread(5, "x;y\nz", CHURN),))
    lines = export_collapsed.export(recording).splitlines()
    assert len(lines) == 2
    assert all(line.count(";") == 2 for line in lines)


def test_sites_that_no_thread_speaks_of_are_not_lost() -> None:
    recording = churning(threads=())
    assert "threads that are not listed;" in export_collapsed.export(recording)
    half = replace(CHURN, attach_ns=CHURN.attach_ns // 2, wait_ns=CHURN.wait_ns // 2)
    lines = export_collapsed.export(churning(threads=(thread(5, "half", half),))).splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == CHURN.attach_ns


def in_all(recording: Recording) -> int:
    return sum(one.counts.attach_ns for one in recording.sites)


@pytest.mark.parametrize("make", [churning, lambda: with_counts(WAITING), healthy, large])
def test_speedscopes_profiles_add_up(make: Callable[[], Recording]) -> None:
    recording = make()
    document = json.loads(export_speedscope.export(recording))
    names = len(document["shared"]["frames"])
    assert document["$schema"].endswith("file-format-schema.json")
    assert len(document["profiles"]) <= 1 + export_speedscope.MOST_THREADS
    for profile in document["profiles"]:
        assert len(profile["samples"]) == len(profile["weights"])
        assert sum(profile["weights"]) == profile["endValue"]
        assert all(0 <= at < names for stack in profile["samples"] for at in stack)
    if make is not large:  # there threads speak of less than they did
        assert document["profiles"][0]["endValue"] == in_all(recording)


def test_buckets_keep_sums_and_means() -> None:
    samples = tuple(Sample(at / 10, {7: 10.0 * (at % 2)}, 3, 5) for at in range(1, 101))
    few = buckets.of(healthy(samples=samples), 7)
    assert len(few) <= 7
    assert sum(one.temporary_states for one in few) == 300
    assert sum(one.gil_wait_ns for one in few) == 500
    assert few[0].cpu_percent[7] == pytest.approx(5.0, abs=0.5)
    assert few[-1].end_s == 10.0
    assert [one.end_s for one in few[:-1]] == [one.start_s for one in few[1:]]
    assert buckets.of(healthy(samples=()), 7) == []


def markers_of(document: dict[str, object]) -> int:
    threads = document["threads"]
    assert isinstance(threads, list)
    return sum(one["markers"]["length"] for one in threads)


@pytest.mark.parametrize(
    "recording",
    [churning(), healthy(samples=(), threads=()), large(), large(50, 300)],
    ids=["small", "empty", "large", "many samples"],
)
def test_firefox_tables_are_whole(recording: Recording) -> None:
    long = tuple(replace(sample, at_s=sample.at_s) for sample in recording.samples) * 20
    document = export_firefox.document(replace(recording, samples=long))
    assert document["meta"]["preprocessedProfileVersion"] == 57
    assert document["meta"]["version"] == 32
    assert 0 <= markers_of(document) <= firefox_markers.MOST
    strings = document["shared"]["stringArray"]
    assert document["threads"][0]["isMainThread"]
    for one in document["threads"]:
        for name in ("stackTable", "frameTable", "funcTable", "resourceTable", "markers"):
            table = one[name]
            assert all(
                len(column) == table["length"]
                for column in table.values()
                if column != table["length"]
            )
        stacks, frames, functions = one["stackTable"], one["frameTable"], one["funcTable"]
        assert all(prefix is None or prefix < at for at, prefix in enumerate(stacks["prefix"]))
        assert all(frame < frames["length"] for frame in stacks["frame"])
        assert all(function < functions["length"] for function in frames["func"])
        assert all(name < len(strings) for name in functions["name"] + one["markers"]["name"])
        samples = one["samples"]
        assert samples["time"] == sorted(samples["time"])
        assert samples["time"][-1] >= max(one["markers"]["endTime"], default=0.0)
        kinds = {strings[name].replace(" ", "") for name in one["markers"]["name"]}
        assert kinds == {data["type"] for data in one["markers"]["data"]}
        assert set(one["markers"]["phase"]) <= {1}


def test_firefox_names_what_was_found() -> None:
    document = export_firefox.document(churning())
    data = document["threads"][0]["markers"]["data"]
    assert data[0]["remedy"] == "moored run app.py --port 80"
    assert {"type": "WaitingforGIL", "wait": 4.0} in data
    gst = document["threads"][1]
    assert gst["name"] == "gst-src"
    assert sum(gst["samples"]["weight"]) == pytest.approx(620.0)
    assert sum(gst["samples"]["threadCPUDelta"]) == pytest.approx(1_488_000, rel=0.01)


PROFILER = "@firefox-devtools/profiler-cli@0.10.0"


@pytest.fixture(scope="module")
def profiler() -> list[str]:
    """The command line of the Firefox profiler, as npm installs it."""
    found = shutil.which("profiler-cli")
    if found:
        return [found]
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("the profiler's command line needs npm, which is not here")
    folder = CHECKOUT / ".cache" / "firefox-profiler"
    if not folder.exists():
        made = folder.with_name(f"{folder.name}-{os.getpid()}")
        made.mkdir(parents=True, exist_ok=True)
        done = finish(npm, "install", "--prefix", made, PROFILER, "node@24", limit=BUILD_S)
        if done.code:
            shutil.rmtree(made)
            pytest.skip(f"npm cannot install {PROFILER}: {done.err.strip()[-200:]}")
        try:
            made.rename(folder)
        except OSError:  # another worker of the tests was first
            shutil.rmtree(made)
    command = folder / "node_modules/@firefox-devtools/profiler-cli/dist/profiler-cli.js"
    nodes = [one for one in folder.rglob("bin/node") if one.is_file() and os.access(one, os.X_OK)]
    # npm's package of node may have a script in its place, which stays when scripts do not run.
    nodes.sort(key=lambda one: -one.stat().st_size)
    if not nodes or finish(nodes[0], "--version").code:
        pytest.skip("npm's node@24 does not run here")
    return [str(nodes[0]), str(command)]


def load(profiler: list[str], path: Path, *session: str, **home: str) -> None:
    """Start its daemon, for which it waits half a second, on a busy machine too."""
    for _ in range(60):
        done = finish(*profiler, "load", path, *session, **home)
        if done.code == 0:
            return
        assert "did not become ready" in done.err + done.out, done.err
    pytest.fail("the profiler's daemon did not start")


@pytest.mark.parametrize("make", [churning, healthy, lambda: with_counts(WAITING), large])
def test_the_firefox_profiler_reads_it(
    make: Callable[[], Recording], profiler: list[str], tmp_path: Path
) -> None:
    recording = make()
    path = tmp_path / "profile.json"
    path.write_text(export_firefox.export(recording))
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    session = ("--session", "test")
    try:
        load(profiler, path, *session, **home)
        info = succeed(*profiler, "profile", "info", "--all", *session, **home)
        shown = min(export_firefox.MOST_THREADS, len(recording.threads) + (make is large))
        assert f"{shown} threads across 1 processes" in info
        if make is large:
            return
        tree = succeed(*profiler, "thread", "samples-top-down", "--thread", "t-1", *session, **home)
        assert "gst_base_src_loop" in tree
        assert "attach and release" in tree
        markers = succeed(*profiler, "thread", "markers", "--thread", "t-0", *session, **home)
        assert "Waiting for GIL" in markers
        assert "124 markers" in markers
    finally:
        finish(*profiler, "stop", "test", **home)
