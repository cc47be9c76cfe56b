"""What the children of a program inherit, and what else is in the environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from support.building import compile_library, compile_program
from support.processes import succeed

VARIABLES = (
    "('LD_PRELOAD', 'LD_AUDIT', 'GLIBC_TUNABLES', "
    "'MOORED_RUN', 'MOORED_RUN_JSON', 'MOORED_RUN_COMMAND')"
)

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
    other = compile_library(source, tmp_path / "other.so")
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


# Room for thread_locals in glibc's static block


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """As jemalloc: thread_locals of some size, which must be in the static block."""
    source = tmp_path / "large.c"
    source.write_text(
        'static __thread char block[2600] __attribute__((tls_model("initial-exec")));\n'
        "char* touch(void) { return block; }\n"
    )
    return compile_library(source, tmp_path / "liblarge.so")


def test_a_preloaded_library_with_large_thread_locals(kept, large):
    ending = kept(IN_A_CHILD + THREE_VISITS, LD_PRELOAD=str(large))
    assert (ending.code, ending.err) == (0, "")
    assert ending.out.splitlines()[1:] == ["[1, 2, 3]", "[1, 2, 3]"]


def test_a_preloaded_library_with_huge_thread_locals(kept, tmp_path):
    """As the thread sanitizer's."""
    source = tmp_path / "huge.c"
    source.write_text(
        'static __thread char block[800000] __attribute__((tls_model("initial-exec")));\n'
        "char* touch(void) { return block; }\n"
    )
    huge = compile_library(source, tmp_path / "huge.so")
    ending = kept(THREE_VISITS, LD_PRELOAD=str(huge))
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2, 3]\n", "")


def test_a_program_and_a_child_that_are_linked_to_it(moored_run, large, tmp_path):
    source = tmp_path / "main.c"
    source.write_text("char* touch(void);\nint main(void) { return touch() == 0; }\n")
    program = compile_program(source, tmp_path / "program", str(large), f"-Wl,-rpath,{tmp_path}")
    ending = moored_run("--exec", program)
    assert (ending.code, ending.err) == (0, "")
    ending = moored_run("-c", f"import subprocess; subprocess.run([{str(program)!r}], check=True)")
    assert (ending.code, ending.err) == (0, "")


def test_threads_with_the_smallest_stack_are_still_made(moored_run, tmp_path):
    source = tmp_path / "main.c"
    source.write_text("""
        #include <limits.h>
        #include <pthread.h>
        static void* work(void* argument) { return argument; }
        int main(void) {
          pthread_attr_t small;
          pthread_t thread;
          pthread_attr_init(&small);
          return pthread_attr_setstacksize(&small, 16384) != 0 ||
                 pthread_create(&thread, &small, work, 0) != 0 || pthread_join(thread, 0) != 0;
        }
    """)
    program = compile_program(source, tmp_path / "program")
    assert moored_run("--exec", program).code == 0
    smallest = """
import itertools, threading
for pages in itertools.count(8):
    try:
        threading.stack_size(pages * 4096)
        break
    except ValueError:
        pass  # each Python has its own minimum
thread = threading.Thread(target=print)
thread.start()
thread.join()
"""
    ending = moored_run("-c", smallest)
    assert (ending.code, ending.out, ending.err) == (0, "\n", "")


TUNABLES = "import os; print(os.environ.get('GLIBC_TUNABLES'))"
ROOM = "glibc.rtld.optional_static_tls"


@pytest.mark.parametrize(
    "theirs", ["glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.check=0"]
)
def test_the_tunables_of_the_user_stay(moored_run, theirs):
    out = moored_run("-c", TUNABLES, GLIBC_TUNABLES=theirs).out
    assert out.startswith(f"{theirs}:{ROOM}=")
    for options in (["--no-children"], ["--fresh"], ["--cache-only"]):
        assert moored_run(*options, "-c", TUNABLES, GLIBC_TUNABLES=theirs).out == f"{theirs}\n"
    own = f"{theirs}:{ROOM}=5000"
    for options in ([], ["--no-children"]):
        assert moored_run(*options, "-c", TUNABLES, GLIBC_TUNABLES=own).out == f"{own}\n"


def test_the_room_is_made_once_and_goes_with_the_rest(moored_run):
    inner = [sys.executable, "-m", "moored", "run"]
    once = moored_run("-c", TUNABLES).out
    assert moored_run("--exec", *inner, "-c", TUNABLES).out == once
    for options in (["--no-children"], ["--fresh"]):
        assert moored_run("--exec", *inner, *options, "-c", TUNABLES).out == "None\n"
        assert moored_run(*options, "-c", TUNABLES).out == "None\n"


# Programs to which the libraries cannot go along


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder to be a root, with a dynamic program in it that says its name."""
    if os.getuid() != 0:
        pytest.skip("only root can change the root")
    folder = tmp_path / "root"
    said = succeed("ldd", "/bin/echo")
    needed = [word for word in said.split() if word.startswith("/")]
    for path in ["/bin/echo", "/bin/sh", *needed]:
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


WAYS_INTO_A_ROOT = {
    "the program chroot": "subprocess.run(['chroot', ROOT, *WORDS], check=True)",
    "before exec": "subprocess.run(WORDS, preexec_fn=change, check=True)",
    "with an environment": (
        "subprocess.run(WORDS, preexec_fn=change, env={**os.environ, 'A': 'b'}, check=True)"
    ),
    "os.execv": "change(); os.execv(WORDS[0], WORDS)",
    "os.execve": "e = dict(os.environ); change(); os.execve(WORDS[0], WORDS, e)",
    "os.execvp": "change(); os.execvp('echo', WORDS)",
    "os.posix_spawn": (
        "e = dict(os.environ); change(); os.waitpid(os.posix_spawn(WORDS[0], WORDS, e), 0)"
    ),
    "os.system": "change(); os.system('/bin/echo in the root')",
    "a fork": "os.fork() or (change(), os.execv(WORDS[0], WORDS)); os.wait()",
}


@pytest.mark.parametrize("way", WAYS_INTO_A_ROOT.values(), ids=WAYS_INTO_A_ROOT.keys())
@pytest.mark.parametrize("options", [[], ["--fresh"]])
def test_a_child_in_another_root_is_quiet(moored_run, root, way, options):
    script = f"""
import os, subprocess
ROOT, WORDS = {str(root)!r}, ["/bin/echo", "in the root"]
def change():
    os.chroot(ROOT)
    os.chdir("/")
{way}
"""
    ending = moored_run(*options, "-c", script)
    assert (ending.code, ending.out, ending.err) == (0, "in the root\n", "")


def test_variables_of_the_user_go_along_into_another_root(moored_run, root):
    script = f"""
import os
os.environ["MOORED_RUNNER"] = "theirs"
environment = dict(os.environ)
os.chroot({str(root)!r})
os.chdir("/")
show = "echo $LD_PRELOAD,$LD_AUDIT,$MOORED_RUN,$GLIBC_TUNABLES,$MOORED_RUNNER"
os.execve("/bin/sh", ["sh", "-c", show], environment)
"""
    theirs = "glibc.malloc.arena_max=2"
    ending = moored_run("-c", script, GLIBC_TUNABLES=theirs)
    assert (ending.code, ending.out, ending.err) == (0, f",,,{theirs},theirs\n", "")


EXEC_FAMILY = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern char** environ;
int main(int count, char** words) {
  char* const shell[] = {"sh", "-c", "echo ${LD_PRELOAD:+inherited}", NULL};
  const char* how = words[1];
  if (count > 2 && (chroot(words[2]) != 0 || chdir("/") != 0)) return 9;
  char** copy = environ;
  pid_t child = 0;
  if (!strcmp(how, "execl")) execl("/bin/sh", "sh", "-c", shell[2], (char*)NULL);
  if (!strcmp(how, "execlp")) execlp("sh", "sh", "-c", shell[2], (char*)NULL);
  if (!strcmp(how, "execle")) execle("/bin/sh", "sh", "-c", shell[2], (char*)NULL, copy);
  if (!strcmp(how, "execv")) execv("/bin/sh", shell);
  if (!strcmp(how, "execvp")) execvp("sh", shell);
  if (!strcmp(how, "execvpe")) execvpe("sh", shell, copy);
  if (!strcmp(how, "execve")) execve("/bin/sh", shell, copy);
  if (!strcmp(how, "fexecve")) fexecve(open("/bin/sh", O_RDONLY), shell, copy);
  if (!strcmp(how, "posix_spawn")) posix_spawn(&child, "/bin/sh", NULL, NULL, shell, copy);
  if (!strcmp(how, "posix_spawnp")) posix_spawnp(&child, "sh", NULL, NULL, shell, copy);
  if (!strcmp(how, "vfork") && (child = vfork()) == 0) execve("/bin/sh", shell, copy);
  return child != 0 ? waitpid(child, NULL, 0) != child : 8;
}
"""
FUNCTIONS = (
    *("execl", "execlp", "execle", "execv", "execvp", "execvpe", "execve", "fexecve"),
    *("posix_spawn", "posix_spawnp", "vfork"),
)


def test_every_way_to_start_a_program_passes_its_words_on(moored_run, root, tmp_path):
    source = tmp_path / "main.c"
    source.write_text(EXEC_FAMILY)
    program = compile_program(source, tmp_path / "program")
    for function in FUNCTIONS:
        ending = moored_run("--exec", program, function)
        assert (function, ending.code, ending.out) == (function, 0, "inherited\n")
        ending = moored_run("--exec", program, function, root)
        assert (function, ending.code, ending.out, ending.err) == (function, 0, "\n", "")


@pytest.mark.skipif(not shutil.which("musl-gcc"), reason="no musl here")
def test_a_child_of_another_c_library_runs(moored_run, tmp_path):
    source = tmp_path / "main.c"
    source.write_text('#include <stdio.h>\nint main(void) { return puts("musl") < 0; }\n')
    program = compile_program(source, tmp_path / "program", compiler="musl-gcc")
    script = f"import subprocess; subprocess.run([{str(program)!r}], check=True)"
    ending = moored_run("-c", script)
    assert (ending.code, ending.out, ending.err) == (0, "musl\n", "")
