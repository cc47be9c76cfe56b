"""What the children of a program inherit, and who else is in the environment."""

from __future__ import annotations

import sys

import pytest
from programs import compile_c

VARIABLES = "('LD_PRELOAD', 'LD_AUDIT', 'MOORED_RUN', 'MOORED_RUN_JSON', 'MOORED_RUN_COMMAND')"

THREE_VISITS = """
    caller.free.call_on_a_thread(CALLBACK(visit), 3)
    print(visits, flush=True)
"""

IN_A_CHILD = f"""
    import subprocess
    print([name for name in {VARIABLES} if name in os.environ], flush=True)
    subprocess.run([sys.executable, "-m", "three_visits"], check=True)
"""


def test_children_inherit(kept):
    ending = kept(IN_A_CHILD)
    assert (ending.code, ending.err) == (0, "")
    assert ending.out.splitlines()[1] == "[1, 2, 3]"
    assert ending.row["threads_seen"] == 0  # the child's are its own, and it writes no document


def test_children_do_not_inherit(kept):
    ending = kept(IN_A_CHILD + THREE_VISITS, "--no-children")
    assert (ending.code, ending.out, ending.err) == (0, "[]\n[1, 1, 1]\n[1, 2, 3]\n", "")
    assert ending.row["threads_seen"] == 1


def test_a_program_that_becomes_another_one(kept):
    becoming = IN_A_CHILD + "    os.execv(sys.executable, [sys.executable, '-m', 'three_visits'])\n"
    ending = kept(becoming)
    assert ending.out.splitlines()[1:] == ["[1, 2, 3]", "[1, 2, 3]"]
    assert ending.row["threads_seen"] == 1
    assert kept(becoming, "--no-children").out.splitlines()[1:] == ["[1, 1, 1]", "[1, 1, 1]"]


def test_a_forked_child_keeps_states_of_its_own(kept):
    ending = kept(
        THREE_VISITS
        + """
    child = os.fork()
    if child == 0:
        visits.clear()
        caller.free.call_on_a_thread(CALLBACK(visit), 3)
        print(visits, flush=True)
        sys.exit(4)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    )
    assert (ending.code, ending.out) == (0, "[1, 2, 3]\n[1, 2, 3]\n4\n")
    assert ending.row["states_adopted"] == ending.row["states_freed"] == 1


def test_a_fork_while_native_threads_call_back(kept):
    ending = kept("""
        entered = threading.Event()
        caller.free.hammer(caller.immortal(entered.set), 3)
        entered.wait()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                caller.free.call_on_a_thread(CALLBACK(visit), 3)
                os._exit(0 if visits == [1, 2, 3] else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("done", flush=True)
        os._exit(0)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "done\n", "")


def test_a_fork_inside_a_callback(kept):
    ending = kept("""
        def fork():
            visit()
            if len(visits) != 2:
                return
            child = os.fork()
            if child == 0:
                visit()
                caller.free.call_on_a_thread(CALLBACK(visit), 2)
                os._exit(0 if visits == [1, 2, 3, 1, 2] else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        caller.free.call_on_a_thread(CALLBACK(fork), 3)
        print(visits)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "0\n[1, 2, 3]\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(moored_run, tmp_path, method):
    script = tmp_path / "workers.py"
    script.write_text(f"""
import multiprocessing, threading
import caller
here = threading.local()
def work(times):
    visits = []
    def visit():
        here.visits = getattr(here, "visits", 0) + 1
        visits.append(here.visits)
    caller.free.call_on_a_thread(caller.CALLBACK(visit), times)
    return visits
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(work, [2, 3]))
    print(work(2))
""")
    ending = moored_run(script)
    assert (ending.code, ending.out, ending.err) == (0, "[[1, 2], [1, 2, 3]]\n[1, 2]\n", "")


def test_other_libraries_in_the_environment_stay(kept, native, tmp_path):
    source = tmp_path / "other.c"
    source.write_text("unsigned la_version(unsigned version) { return version; }\n")
    other = compile_c(source, tmp_path / "other.so", "-shared", "-fPIC")
    look = """
    names = [[os.path.basename(path) for path in os.environ.get(name, "").split(":")]
             for name in ("LD_PRELOAD", "LD_AUDIT")]
    print(names)
    """
    theirs = {"LD_PRELOAD": str(other), "LD_AUDIT": str(other)}
    ending = kept(look + THREE_VISITS, **theirs)
    assert ending.err == ""
    assert ending.out == (
        "[['other.so', 'libmoored_keep.so'], ['other.so', 'libmoored_audit.so']]\n[1, 2, 3]\n"
    )
    ending = kept(look + THREE_VISITS, "--no-children", **theirs)
    assert ending.out == "[['other.so'], ['other.so']]\n[1, 2, 3]\n"


def test_run_under_run_is_the_inner_one(moored_run):
    look = "import os; print(len(os.environ['LD_PRELOAD'].split(':')), 'LD_AUDIT' in os.environ)"
    words = [sys.executable, "-m", "moored", "run", "--fresh", "-c", look]
    assert moored_run("--exec", *words).out == "1 False\n"
