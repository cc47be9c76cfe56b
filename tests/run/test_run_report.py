"""--stats and --json: what a run says about itself at its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import sysconfig
from pathlib import Path

import pytest
from programs import LAUNCHER
from support.building import compile_program
from support.processes import finish, succeed

import moored
from moored_lab.report import document

OURS = ".".join(map(str, sys.version_info[:2]))
HAS_CHUNKS = sys.version_info >= (3, 11)


def numbers_of(table: str) -> dict[str, str]:
    lines = [line.rsplit("  ", 1) for line in table.splitlines() if line.startswith("  ")]
    return {name.strip(): value.strip() for name, value in lines}


def test_the_table_counts(kept):
    ending = kept("caller.free.call_on_threads(CALLBACK(visit), 3, 1001)", "--stats")
    version = ".".join(map(str, sys.version_info[:3]))
    assert ending.err.startswith(f"moored run: Python {version}")
    assert ending.err.splitlines()[0].endswith("states of native threads kept")
    numbers = numbers_of(ending.err)
    assert numbers["threads seen"] == numbers["states adopted"] == numbers["states freed"] == "3"
    assert numbers["states kept now"] == numbers["states left to Python"] == "0"
    assert numbers["calls served from a kept state"] == "3000"
    assert (int(numbers["chunk misses"]) > 0) == HAS_CHUNKS
    assert ("estimated time saved" in numbers) == HAS_CHUNKS


def test_with_the_cache_alone_only_chunks_are_counted(kept):
    ending = kept("caller.free.call_on_threads(CALLBACK(visit), 3, 5)", "--stats", "--fresh")
    assert "not kept, only the cache is used" in ending.err
    numbers = numbers_of(ending.err)
    assert "threads seen" not in numbers
    assert (int(numbers["chunk hits"]) >= 14) == HAS_CHUNKS


def test_the_document_is_that_of_the_other_commands(moored_run, tmp_path):
    path = tmp_path / "run.json"
    ending = moored_run(f"--json={path}", "-c", "print('\"it\\'s\"')")
    assert (ending.code, ending.err) == (0, "")
    written = json.loads(path.read_text())
    expected = document.describe(f"moored run --json={path} -c 'print('\"'\"''", [])
    assert list(written) == list(expected)
    for name in ("moored", "python", "machine"):
        assert written[name] == expected[name]
    assert written["moored"] == moored.__version__
    line = succeed("sh", "-c", f"printf '%s|' {written['command']}")
    assert line == f"moored|run|--json={path}|-c|print('\"it\\'s\"')|"
    assert len(written["rows"]) == 1


def test_a_relative_path_is_the_users_not_the_programs(moored_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    assert moored_run("--json", "run.json", "-c", "import os; os.chdir('elsewhere')").code == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.json"]


def test_a_device_is_written_to(moored_run):
    ending = moored_run("--json=/dev/stdout", "-c", "pass")
    assert ending.code == 0
    assert json.loads(ending.out)["rows"][0]["threads_seen"] == 0


def test_a_full_disk_is_one_line(moored_run):
    ending = moored_run("--json=/dev/full", "-c", "import sys; sys.exit(3)")
    assert ending.code == 3
    assert ending.err == "moored: cannot write /dev/full: No space left on device\n"


def test_what_cannot_be_written_is_said_before_the_run(moored_run, tmp_path):
    path = tmp_path / "none" / "run.json"
    ending = moored_run(f"--json={path}", "-c", "print('it ran')")
    assert (ending.code, ending.out) == (2, "")
    assert ending.err == (
        f"moored: cannot write {path}: there is no directory {path.parent}; make it first\n"
    )
    ending = moored_run(f"--json={tmp_path}", "-c", "print('it ran')")
    assert ending.err == f"moored: cannot write {tmp_path}: it is a directory; name a file\n"


def test_a_child_has_a_table_of_its_own(kept):
    ending = kept(
        """
        import subprocess
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        child = subprocess.run([sys.executable, "-m", "three_visits"], check=True)
    """,
        "--stats",
    )
    heads = [line for line in ending.err.splitlines() if line.startswith("moored run:")]
    assert len(heads) == 2
    assert heads[0].startswith("moored run: process ")
    assert numbers_of(ending.err)["threads seen"] == "0"


def other_python() -> str | None:
    """Another Python than this one, which this moored was not built for."""
    found = [
        *(f"/usr/bin/python3.{minor}" for minor in range(8, 20)),
        *map(str, Path.home().glob(".pyenv/versions/*/bin/python3")),
    ]
    ask = "import sys; print(*sys.version_info[:2], sep='.')"
    for path in found:
        if not shutil.which(path):
            continue
        said = finish(path, "-c", ask).out
        if said.strip() != OURS:
            return path
    return None


def test_another_python_is_left_alone_and_told(kept, moored_run, native, tmp_path):
    other = other_python()
    if other is None:
        pytest.skip("no other Python here")
    path = tmp_path / "run.json"
    ending = moored_run("--stats", f"--json={path}", "--exec", other, "-m", "three_visits")
    assert (ending.code, ending.out) == (0, "[1, 1, 1]\n")
    assert f"not kept: this moored was built for Python {OURS}, install it" in ending.err
    row = json.loads(path.read_text())["rows"][0]
    assert row["states_adopted"] == 0


def test_a_program_without_python_is_not_talked_about(moored_run, tmp_path):
    path = tmp_path / "run.json"
    ending = moored_run("--stats", f"--json={path}", "--exec", "true")
    assert (ending.code, ending.out, ending.err) == (0, "", "")
    assert json.loads(path.read_text())["python"] == "none"


# The descriptors of the program are its own


def heads_of(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.startswith("moored run:")]


REPLACED = {
    "dup2": "os.dup2(other, 2)",
    "dup2, not inherited": "os.dup2(other, 2, inheritable=False)",
    "close": "os.close(2)",
    "close and open": "os.close(2); os.open(os.devnull, os.O_WRONLY)",
    "close, and open a file": "os.close(2); os.open('database', os.O_RDWR | os.O_CREAT)",
    "twice": "os.dup2(other, 2); os.close(2); os.dup2(other, 2)",
    "freopen": (
        "import ctypes; libc = ctypes.CDLL(None); libc.freopen.restype = ctypes.c_void_p;"
        "libc.freopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p];"
        "libc.freopen(b'/dev/null', b'w', ctypes.c_void_p.in_dll(libc, 'stderr'))"
    ),
    "and a fork": "os.dup2(other, 2); os.fork() or os._exit(0); os.wait()",
    "in the child of vfork": (
        "import subprocess; subprocess.run(['true'], stderr=subprocess.DEVNULL, check=True)"
    ),
}


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED.keys())
def test_the_table_comes_on_the_stderr_of_the_beginning(moored_run, tmp_path, monkeypatch, replace):
    monkeypatch.chdir(tmp_path)
    script = f"import os; other = os.open(os.devnull, os.O_WRONLY)\n{replace}\nprint('it ran')"
    ending = moored_run("--stats", "-c", script)
    assert (ending.code, ending.out) == (0, "it ran\n")
    assert len(heads_of(ending.err)) == 1
    if "database" in replace:
        assert (tmp_path / "database").read_bytes() == b""


def test_a_closed_stderr_is_nobody_elses(environment, tmp_path):
    """The program's first file gets its number."""
    script = f"open({str(tmp_path / 'database')!r}, 'w').write('data'); print('it ran')"
    done = finish(
        "sh", "-c", '"$@" 2>&-', "sh", LAUNCHER, "run", "--stats", "-c", script, env=environment
    )
    assert (done.code, done.out, done.err) == (0, "it ran\n", "")
    assert (tmp_path / "database").read_text() == "data"


COUNT = """
import os
def opened():
    numbers = []
    while True:
        try:
            numbers.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for number in numbers:
                os.close(number)
            return numbers[0], numbers[-1], len(numbers)
print(sorted(map(int, os.listdir("/proc/self/fd"))), opened())
"""
COUNT_BESIDE_ONE = """
import os
os.dup2(1, 2)
""" + COUNT.replace('sorted(map(int, os.listdir("/proc/self/fd"))), ', "")


@pytest.mark.parametrize("limit", ["", "ulimit -Sn 64;", "ulimit -n 64;"])
@pytest.mark.parametrize("options", [[], ["--stats"], ["--stats", "--json=/dev/stdout"]])
def test_a_program_that_counts_its_descriptors(environment, options, limit):
    def said_by(words: list[str | Path], script: str) -> str:
        done = finish("sh", "-c", f'{limit} exec "$@"', "sh", *words, "-c", script, env=environment)
        assert done.code == 0, done.err
        return done.out.partition("{")[0]

    run: list[str | Path] = [LAUNCHER, "run", *options]
    assert said_by(run, COUNT) == said_by([sys.executable], COUNT)
    if "-Sn" in limit:
        # When one had to be kept for the end, the program could still open as many.
        assert said_by(run, COUNT_BESIDE_ONE) == said_by([sys.executable], COUNT_BESIDE_ONE)


def test_a_daemon_does_not_hold_the_pipe_of_its_parent(moored_run, tmp_path):
    """The reader waits for the end of the program, not for that of what it has left behind."""
    script = """
import os, signal, sys, time
null = os.open(os.devnull, os.O_RDWR)
read, write = os.pipe()
for redirected in (1, 2):
    os.dup2(null, redirected)
child = os.fork()
if child == 0:
    os.close(read)
    os.write(write, b"x")
    os.close(write)
    signal.pause()
os.close(write)
os.read(read, 1)
with open(sys.argv[1], "w") as file:
    file.write(str(child))
"""
    pid = tmp_path / "pid"
    ending = moored_run("--stats", "-c", script, pid)  # which has a limit in time
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert (ending.code, len(heads_of(ending.err))) == (0, 1)


def test_children_do_not_inherit_what_is_kept(moored_run):
    script = """
import os, subprocess
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
look = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
subprocess.run([os.sys.executable, "-c", look], check=True)
subprocess.run([os.sys.executable, "-c", look], check=True, close_fds=False)
"""
    assert moored_run("--stats", "-c", script).out == "[0, 1, 2, 3]\n" * 2


# Where the document goes


@pytest.mark.parametrize(
    "path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link", "far"]
)
def test_json_on_stdout_comes_after_what_the_program_said(environment, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    (tmp_path / "far").symlink_to("link")
    words = f'"{LAUNCHER}" run --json {path} -c "print(1)"'
    for redirect in ("| cat", ">log; cat log", ">>log; cat log"):
        (tmp_path / "log").write_text("")
        done = finish("sh", "-c", f"{words} {redirect}", env=environment)
        assert done.err == ""
        assert done.out.startswith("1\n{")
        assert json.loads(done.out[2:])["rows"][0]["threads_seen"] == 0
    assert (tmp_path / "link").is_symlink()
    assert not (tmp_path / "-").exists()


def test_json_into_the_file_that_is_stdout(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = f'"{LAUNCHER}" run --json log -c "print(1)" >log'
    succeed("sh", "-c", words, env=environment)
    assert (tmp_path / "log").read_text().startswith("1\n{")


def test_a_descriptor_of_the_users_own(environment, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    words = f'"{LAUNCHER}" run --json /dev/fd/7 -c "print(1)" 7>>"{log}"'
    succeed("sh", "-c", words, env=environment)
    assert log.read_text().startswith("before\n{")


def test_links_and_second_names_stay(moored_run, tmp_path):
    (tmp_path / "data").mkdir()
    real, link, second = tmp_path / "data" / "real", tmp_path / "link", tmp_path / "second"
    link.symlink_to("data/real")
    for _ in range(2):
        assert moored_run("--json", link, "-c", "pass").code == 0
        assert link.is_symlink()
        assert json.loads(real.read_text())["rows"]
    real.write_text("")
    second.hardlink_to(real)
    assert moored_run("--json", second, "-c", "pass").code == 0
    assert json.loads(real.read_text())["rows"]
    assert [path.name for path in real.parent.iterdir()] == ["real"]


def test_a_link_that_leads_nowhere_is_said_before_the_run(moored_run, tmp_path):
    circle, link = tmp_path / "circle", tmp_path / "link"
    circle.symlink_to(circle)
    link.symlink_to(tmp_path / "none" / "run.json")
    for path, why in (
        (circle, "it is a link that leads to itself"),
        (link, f"there is no directory {tmp_path}/none; make it first"),
        ("/dev/fd/99", "Bad file descriptor"),
        ("/dev/stdin", "it is open for reading"),
    ):
        ending = moored_run("--json", path, "-c", "print('it ran')")
        assert (ending.code, ending.out) == (2, "")
        assert ending.err.startswith(f"moored: cannot write {path}: ")
        assert why in ending.err


def test_json_on_a_stdout_that_the_program_has_replaced(moored_run):
    ending = moored_run(
        "--json=-", "-c", "import os; os.dup2(os.open(os.devnull, os.O_WRONLY), 1); print('lost')"
    )
    assert (ending.code, ending.err) == (0, "")
    assert json.loads(ending.out)["rows"][0]["threads_seen"] == 0


# Pythons that cannot be served


LOADS_PYTHON_LATE = """
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
static void* python;
static void* call(void* unused) {
  int (*ensure)(void) = (int (*)(void))dlsym(python, "PyGILState_Ensure");
  void (*release)(int) = (void (*)(int))dlsym(python, "PyGILState_Release");
  release(ensure());
  return unused;
}
int main(int count, char** words) {
  python = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (python == NULL) return 9;
  ((void (*)(void))dlsym(python, "Py_Initialize"))();
  if (count > 2) {
    void* state = ((void* (*)(void))dlsym(python, "PyEval_SaveThread"))();
    pthread_t thread;
    if (pthread_create(&thread, NULL, call, NULL) != 0 || pthread_join(thread, NULL) != 0) return 8;
    ((void (*)(void*))dlsym(python, "PyEval_RestoreThread"))(state);
  }
  return ((int (*)(void))dlsym(python, "Py_FinalizeEx"))();
}
"""


@pytest.fixture
def late(tmp_path: Path) -> list[str | Path]:
    """A program that loads libpython when it runs, as uWSGI and mod_wsgi do."""
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip("this Python has no shared library")
    source = tmp_path / "late.c"
    source.write_text(LOADS_PYTHON_LATE)
    library = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("LDLIBRARY")
    return [compile_program(source, tmp_path / "late", "-ldl"), library]


@pytest.mark.parametrize("calls", [[], ["and calls"]])
@pytest.mark.parametrize("options", [[], ["--fresh"]])
def test_a_python_that_was_loaded_late_is_told_of(moored_run, tmp_path, late, calls, options):
    path = tmp_path / "run.json"
    words = [*options, "--stats", f"--json={path}", "--exec", *late, *calls]
    ending = moored_run(*words, PYTHONHOME=sys.base_prefix)
    version = ".".join(map(str, sys.version_info[:3]))
    assert (ending.code, ending.out) == (0, "")
    assert ending.err == (
        f"moored run: Python {version}, states of native threads not kept: "
        "Python was loaded late, by dlopen\n"
    )
    written = json.loads(path.read_text())
    assert written["python"] == version
    assert written["rows"][0]["states_of_native_threads"].endswith("loaded late, by dlopen")


def test_a_child_that_loads_python_late_is_told_of(moored_run, late):
    words = [str(word) for word in late]
    script = f"import subprocess; subprocess.run({words!r}, check=True)"
    ending = moored_run("--stats", "-c", script, PYTHONHOME=sys.base_prefix)
    assert len(heads_of(ending.err)) == 2
    assert heads_of(ending.err)[0].startswith("moored run: process ")
    assert heads_of(ending.err)[0].endswith("not kept: Python was loaded late, by dlopen")


def test_a_python_that_there_is_no_moored_for_is_not_told_to_get_it(moored_run):
    others = [
        *Path.home().glob(".pyenv/versions/2.7*/bin/python2.7"),
        *Path.home().glob(".pyenv/versions/3.[89].*/bin/python3"),
    ]
    if not others:
        pytest.skip("no Python here that is too old")
    for other in others:
        ending = moored_run("--stats", "--exec", other, "-c", "pass")
        assert ending.code == 0
        head = heads_of(ending.err)[0]
        assert head.endswith("not kept: moored needs Python 3.10 or later")


# How much was saved


def test_what_was_saved_has_figures(kept):
    ending = kept("caller.free.call_on_a_thread(CALLBACK(visit), 3)", "--stats")
    if not HAS_CHUNKS:
        assert "estimated time saved" not in ending.err
        return
    number, unit = numbers_of(ending.err)["estimated time saved"].split()
    assert float(number) > 0
    factor = {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    assert float(number) * factor == pytest.approx(
        ending.row["estimated_seconds_saved"], rel=0.05, abs=1e-6
    )


def test_calls_within_a_call_have_saved_nothing(kept):
    """They are most where C code that a callback calls, without the GIL, calls back: qsort."""
    ending = kept("""
        COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        compare = COMPARE(lambda a, b: visit() or 0)
        def sort():
            ctypes.CDLL(None).qsort((ctypes.c_int * 100)(), 100, 4, compare)
        caller.free.call_on_a_thread(CALLBACK(sort), 3)
        print(len(visits) > 100)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "True\n", "")
    assert ending.row["calls_served"] == 2


@pytest.mark.skipif(not HAS_CHUNKS, reason="this Python has no chunks")
def test_what_was_saved_is_within_what_a_state_can_cost(kept):
    ending = kept("caller.free.call_on_a_thread(CALLBACK(visit), 1000)")
    spared = ending.row["calls_served"] + ending.row["chunk_hits"]
    assert 0 < ending.row["estimated_seconds_saved"] <= spared * 25e-6
