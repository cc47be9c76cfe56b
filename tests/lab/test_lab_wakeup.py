"""`moored lab wakeup`: against processes that misbehave, and against the real server."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
from support.processes import run_moored

from moored.cli import main
from moored_lab.wakeup import paths
from moored_lab.wakeup.options import USUAL_MODES as MODES
from moored_lab.wakeup.options import Options
from moored_lab.wakeup.wakeup import Result, run

# The controller against processes that misbehave on order


SERVER = """#!{python}
import json, os, signal, sys, time
trouble, after = os.environ.get("TROUBLE", ""), int(os.environ.get("AFTER", "0"))
def say(**message): print(json.dumps(message), flush=True)
if trouble == "start": sys.exit("the port is taken")
if trouble == "missing": sys.exit("No module named 'moored_lab.wakeup'")
if trouble == "garbage": print("what", flush=True)
delivered = 0
def stats():
    return dict(received=delivered, delivered=delivered, lost=0, refused=0, queued=0, entries=0)
latency = dict(count=1, mean_us=1.0, p50_us=1.0, p90_us=1.0, p99_us=2.0, max_us=3.0)
say(event="ready", port=1, pid=os.getpid(), main_tid=os.getpid(), io_tids=[], handler_us=1.0,
    handler_us_asked=1.0, handler_loops=1, python="3.99.0", modes=os.environ["MODES"].split())
for number, line in enumerate(sys.stdin, 1):
    order = json.loads(line)
    if number == after:
        if trouble == "die": print("Fatal Python error", file=sys.stderr); os.abort()
        if trouble == "error": say(event="error", message="not now"); continue
        if trouble == "interrupt": os.kill(os.getppid(), signal.SIGINT)
        if trouble == "terminate": os.kill(os.getppid(), signal.SIGTERM)
    if order["do"] == "stop": break
    delivered += 10
    say(event=order["do"], mode=order.get("mode"), monotonic_ns=time.monotonic_ns(),
        stats=stats(), latency=latency)
delivered = int(os.environ.get("DELIVERED", "1000"))
say(event="stopped", stats=stats(), latency=latency, states={{}})
"""

SENDER = """#!{python}
import json, os, signal, sys
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print(json.dumps(dict(event="started", monotonic_ns=1)), flush=True)
if os.environ.get("TROUBLE") == "sender": sys.exit("connection refused")
signal.sigwait([signal.SIGTERM])
print(json.dumps(dict(event="done", sent=1000, sent_late_p99_us=5.0)), flush=True)
"""


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the arguments of a short run against a fake server and a fake sender."""
    made = {}
    for name, text in (("server", SERVER), ("sender", SENDER)):
        made[name] = tmp_path / name
        made[name].write_text(text.format(python=sys.executable))
        made[name].chmod(made[name].stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(paths, "load_sender", lambda: made["sender"])
    monkeypatch.setenv("MODES", " ".join(MODES))
    monkeypatch.chdir(tmp_path)
    return [
        "lab", "wakeup", "--python", str(made["server"]), "--seconds", "0.05", "--repeat", "2",
        "--handler-us", "1", "--modes", "poll15,kept", "--no-chart",
    ]  # fmt: skip


def test_a_good_run_ends_with_0(fakes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*fakes, "--json", "result.json"]) == 0
    out = capsys.readouterr().out
    assert "1,000 delivered + 0 lost + 0 refused = 1,000 sent" in out
    document = json.loads(Path("result.json").read_text())
    assert document["python"] == "3.99.0"
    assert [row["mode"] for row in document["rows"]] == ["poll15", "kept"]
    assert sum(row["delivered"] for row in document["rows"]) == 1000
    assert len(document["switches"]) == 4


@pytest.mark.parametrize(
    ("trouble", "after", "code", "words"),
    [
        ("start", 0, 1, "the server died (exit code 1); its last lines on stderr:\n  the port is"),
        ("missing", 0, 3, "install moored-lab for that interpreter"),
        ("garbage", 0, 1, "said what is not the protocol: what"),
        ("die", 3, 1, "the server died (signal SIGABRT); its last lines on stderr:\n  Fatal"),
        ("error", 2, 1, "the server refused: not now"),
        ("sender", 0, 1, "the load sender died (exit code 1)"),
    ],
)
def test_trouble_has_its_exit_code_and_its_words(
    fakes: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
    after: int,
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("TROUBLE", trouble)
    monkeypatch.setenv("AFTER", str(after))
    assert main(fakes) == code
    assert words in capsys.readouterr().err


def test_events_that_do_not_add_up_fail_the_run(
    fakes: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DELIVERED", "998")
    assert main(fakes) == 1
    shown = capsys.readouterr()
    assert "998 delivered + 0 lost + 0 refused != 1,000 sent" in shown.out
    assert "the events do not add up" in shown.err


def test_ctrl_c_ends_both_processes_and_shows_what_there_is(
    fakes: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TROUBLE", "interrupt")
    monkeypatch.setenv("AFTER", "5")
    assert main(fakes) == 130
    shown = capsys.readouterr()
    assert "poll15" in shown.out
    assert "interrupted" in shown.err
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_sigterm_ends_both_processes_as_ctrl_c_does(
    fakes: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TROUBLE", "terminate")
    monkeypatch.setenv("AFTER", "5")
    assert main(fakes) == 130
    assert "interrupted" in capsys.readouterr().err
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_server_that_lacks_a_mode_is_another_version(
    fakes: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODES", "poll15 null")
    assert main(fakes) == 3
    assert "the server does not know kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--modes", "kept,polll"], 2, "unknown mode 'polll'"),
        (["--rate", "0"], 2, "--rate 0 is not possible"),
        (["--json", "none/x.json"], 2, "there is no directory none"),
        (["--out", "/dev/null/out"], 2, "cannot write into /dev/null/out: Not a directory"),
        (["--seed", str(2**64)], 2, "give 0 to 18446744073709551615"),
        (["--python", "/none"], 2, "--python /none: there is no such program"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    fakes: list[str],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    message: str,
) -> None:
    pytest.importorskip("matplotlib")
    assert main([*fakes[:-1], *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_picture_without_matplotlib_is_refused_before_the_run(
    fakes: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(fakes[:-1]) == 3
    assert "pip install matplotlib" in capsys.readouterr().err
    assert main(fakes) == 0


# The real thing


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """Run every mode once, as a user does, and return the folder, the exit code and stdout."""
    folder = tmp_path_factory.mktemp("wakeup")
    words = ["lab", "wakeup", "--seconds", "0.4", "--repeat", "1", "--rate", "2000"]
    words += ["--handler-us", "20", "--json", str(folder / "result.json")]
    words += ["--out", str(folder / "out")]
    done = run_moored(*words)
    return folder, done.code, done.out + done.err


def test_real_run_accounts_for_every_event(real: tuple[Path, int, str]) -> None:
    folder, code, output = real
    assert code == 0, output
    events = json.loads((folder / "result.json").read_text())["events"]
    assert events["sent"] > 0
    assert events["delivered"] + events["lost"] + events["refused"] == events["sent"]
    assert events["received"] == events["sent"]


def test_real_run_has_every_row_and_every_sample(real: tuple[Path, int, str]) -> None:
    folder, _, output = real
    document = json.loads((folder / "result.json").read_text())
    assert [row["mode"] for row in document["rows"]] == list(MODES)
    for row in document["rows"]:
        assert row["mode"] in output
        assert row["delivered"] > 0
        assert row["process_cpu_percent"] > 0
    assert {sample["mode"] for sample in document["samples"]} == set(MODES)
    assert document["switches"][-1]["mode"] == MODES[-1]
    assert sum(row["delivered"] for row in document["rows"]) == document["events"]["delivered"]


def test_real_run_draws_its_picture(real: tuple[Path, int, str]) -> None:
    pytest.importorskip("matplotlib")
    folder, _, output = real
    kinds = sorted(path.suffix for path in (folder / "out").iterdir())
    assert kinds == [".png", ".svg"], output
    assert all(path.stat().st_size > 1000 for path in (folder / "out").iterdir())


def test_switching_under_load_again_and_again_loses_nothing() -> None:
    result: Result = run(
        Options(seconds=0.05, repeat=3, rate=3000, handler_us=5, threads=2, main_busy=10)
    )
    assert result.imbalance is None
    assert result.stats["lost"] == result.stats["refused"] == 0
    assert len(result.phases) == 3 * len(MODES)


def test_calibration_picks_a_handler() -> None:
    result = run(Options(modes=("poll15",), seconds=0.2, repeat=1, rate=1000))
    assert result.handler_picked
    assert 0 < result.handler_us <= 400
    assert result.imbalance is None
