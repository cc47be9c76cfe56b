"""The command line of `moored run`: what it takes, what it passes on, what it refuses."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from programs import LAUNCHER
from support.building import compile_library, compile_program
from support.processes import finish, run_moored, succeed

import moored

PYTHON_NAME = Path(sysconfig.get_path("stdlib")).name
SHOW = "import sys; print(sys.argv, sys.path[0], sys.flags.dev_mode, sys.warnoptions)"


@pytest.mark.parametrize(
    "words",
    [
        ["-c", SHOW, "-x", "--stats", "a b"],
        ["-X", "dev", "-W", "error", "-uc", SHOW, "--help"],
        ["-Xdev", "-Werror", "-Ic", SHOW],
        ["-m", "platform", "--terse"],
        ["-um", "platform"],
    ],
)
def test_python_gets_the_words_as_they_are(moored_run, environment, words):
    direct = finish(sys.executable, *words, env=environment)
    ending = moored_run(*words)
    assert (ending.code, ending.out, ending.err) == (0, direct.out, direct.err)


def test_a_script_runs_as_with_python(moored_run, environment, tmp_path):
    script = tmp_path / "show me.py"
    script.write_text(f"{SHOW}\nprint(sys.prefix, __file__, __name__)\n")
    words = [script, "--json", "x", "-c"]
    direct = finish(sys.executable, *words, env=environment)
    assert moored_run(*words).out == direct.out
    assert moored_run("--", *words).out == direct.out


def test_python_dash_m_moored_is_the_same_command(environment, tmp_path):
    script = tmp_path / "show.py"
    script.write_text("import os, sys; print(sys.argv[1:], 'MOORED_RUN' in os.environ)")
    done = run_moored("run", "--fresh", script, "--fresh", env=environment)
    assert (done.code, done.out, done.err) == (0, "['--fresh'] True\n", "")


def test_help_is_explained_by_either(environment):
    texts = {
        succeed(*words, "run", *before, "--help", env=environment | {"COLUMNS": "80"})
        for words in ([LAUNCHER], [sys.executable, "-m", "moored"])
        for before in ([], ["--stats"])
    }
    assert len(texts) == 1
    assert "--no-children" in texts.pop()


def test_other_commands_do_not_import_from_where_one_stands(environment, tmp_path):
    (tmp_path / "argparse.py").write_text("raise SystemExit('imported from the wrong place')")
    done = finish(LAUNCHER, "--version", env=environment, folder=tmp_path)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "run: say what to run: a script, -m MODULE, -c CODE or --exec PROGRAM"),
        (["--stats"], "run: say what to run: a script, -m MODULE, -c CODE or --exec PROGRAM"),
        (["--frsh", "x.py"], "run: there is no option --frsh; `moored run --help` lists them"),
        (["-Z", "x.py"], "run: there is no option -Z; `moored run --help` lists them"),
        (["-c"], "run: -c wants a value"),
        (["--json"], "run: --json wants a value"),
        (["--json=", "x.py"], "run: --json wants a value"),
        (["--exec"], "run: --exec wants a value"),
        (
            ["-u", "--exec", "true"],
            "run: Python's own options do not go with --exec; put them behind the program",
        ),
    ],
)
def test_bad_usage(moored_run, words, said):
    ending = moored_run(*words)
    assert (ending.code, ending.out, ending.err) == (2, "", f"moored: {said}\n")


def test_a_missing_script_is_pythons_to_report(moored_run):
    ending = moored_run("no_such_script.py")
    assert ending.code == 2
    assert "can't open file" in ending.err


def test_a_program_is_found_as_a_shell_finds_it(moored_run):
    assert moored_run("--exec", "true").code == 0
    assert moored_run("--exec", "sh", "-c", "echo $0; exit 6", "name").out == "name\n"
    ending = moored_run("--exec", "no-such-program")
    assert (ending.code, ending.err) == (127, "moored: run: there is no program no-such-program\n")
    ending = moored_run("--exec", "./no-such-program")
    assert (ending.code, ending.err) == (
        127,
        "moored: run: there is no program ./no-such-program\n",
    )


def test_what_is_no_program(moored_run, tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("words\n")
    ending = moored_run("--exec", plain)
    assert (ending.code, ending.err) == (
        126,
        f"moored: run: cannot run {plain}: Permission denied\n",
    )
    plain.chmod(0o755)
    assert moored_run("--exec", plain).err == f"moored: run: cannot run {plain}: it is no program\n"
    ending = moored_run("--exec", tmp_path)
    assert (ending.code, ending.err) == (
        126,
        f"moored: run: cannot run {tmp_path}: it is a directory\n",
    )


def test_a_script_with_an_interpreter_line(moored_run, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 4\n")
    script.chmod(0o755)
    assert moored_run("--exec", script).code == 4


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "main.c"
    path.write_text("int main(void) { return 0; }\n")
    return path


def test_a_static_program_is_refused(moored_run, source, tmp_path):
    program = compile_program(source, tmp_path / "static", "-static")
    ending = moored_run("--exec", program)
    assert ending.code == 3
    assert ending.err == (
        f"moored: run: {program} is a static executable, into which nothing can be loaded; "
        "call moored.install() in the Python that it runs\n"
    )
    assert moored_run("--cache-only", "--exec", program).code == 3


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a program to another user")
def test_a_set_uid_program_is_refused(moored_run, source, tmp_path):
    program = compile_program(source, tmp_path / "privileged")
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    ending = moored_run("--exec", program)
    assert ending.code == 3
    assert ending.err.startswith(f"moored: run: {program} has the set-uid bit, and then ")
    program.chmod(0o2755)
    assert "the set-gid bit" in moored_run("--exec", program).err


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a program capabilities")
@pytest.mark.skipif(not shutil.which("setcap"), reason="no setcap here")
def test_a_program_with_capabilities_is_refused(moored_run, source, tmp_path):
    program = compile_program(source, tmp_path / "capable")
    succeed("setcap", "cap_net_raw+ep", program)
    ending = moored_run("--exec", program)
    assert ending.code == 3
    assert "has file capabilities" in ending.err


def test_a_32_bit_program_is_refused(moored_run, source, tmp_path):
    program = compile_program(source, tmp_path / "short")
    content = bytearray(program.read_bytes())
    content[4] = 1  # ELFCLASS32
    program.write_bytes(content)
    ending = moored_run("--exec", program)
    assert ending.code == 3
    assert "is a 32-bit program" in ending.err


def test_a_program_of_another_c_library_is_refused(moored_run, source, tmp_path):
    program = compile_program(
        source, tmp_path / "musl", "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    )
    ending = moored_run("--exec", program)
    assert ending.code == 3
    assert "is linked to musl" in ending.err


@pytest.mark.parametrize("bind", ["", "1"])
@pytest.mark.parametrize("options", [[], ["--fresh"], ["--no-children", "--stats"]])
def test_programs_without_python_are_not_disturbed(moored_run, options, bind):
    for program in (["true"], ["sh", "-c", "ls / >/dev/null; env >/dev/null"], ["ldd", "/bin/sh"]):
        ending = moored_run(*options, "--exec", *program, LD_BIND_NOW=bind)
        assert (ending.code, ending.err) == (0, "")


def test_an_old_glibc_is_refused_but_the_cache_works(moored_run, tmp_path):
    source = tmp_path / "old.c"
    source.write_text('const char* gnu_get_libc_version(void) { return "2.31"; }\n')
    old = compile_library(source, tmp_path / "old.so")
    ending = moored_run("-c", "pass", LD_PRELOAD=str(old))
    assert (ending.code, ending.err) == (
        3,
        "moored: run: states can be kept with glibc 2.35 or later, and this is 2.31; "
        "run it with --cache-only, which makes them cheap\n",
    )
    assert moored_run("--cache-only", "-c", "pass", LD_PRELOAD=str(old)).code == 0


def launcher_alone(launcher: Path, *words: str, path: str = "") -> tuple[int, str]:
    done = finish(launcher, *words, env={"PATH": path or os.environ["PATH"]})
    return done.code, done.out + done.err


WORDS = (["run", "-c", "print(5)"], ["--version"], ["lab", "--help"])


@pytest.mark.parametrize("words", WORDS)
def test_a_launcher_that_was_copied_runs_no_python(tmp_path, words):
    """Neither this one, which the PATH names, nor one beside it that has no moored."""
    copied = Path(shutil.copy(LAUNCHER, tmp_path))
    (tmp_path / PYTHON_NAME).symlink_to(sys.executable)
    for path in (str(LAUNCHER.parent), str(tmp_path)):
        code, said = launcher_alone(copied, *words, path=path)
        assert code == 3
        assert said == (
            "moored: this launcher cannot tell which Python it belongs to, for it is not where pip "
            "put it; start it there, or say: python -m moored\n"
        )


def script_of(python: Path | str, by: str = "first line") -> str:
    """What installers write for a console script."""
    if by == "first line":
        return f"#!{python}\nimport sys\n"
    quote = {"shell": "", "shell, quoted": '"', "shell, quoted by uv": "'"}[by]
    return f"#!/bin/sh\n'''exec' {quote}{python}{quote} \"$0\" \"$@\"\n' '''\nimport sys\n"


@pytest.mark.parametrize("by", ["first line", "shell", "shell, quoted", "shell, quoted by uv"])
def test_a_launcher_knows_its_python_by_the_script_beside_it(tmp_path, by):
    """As after pip install --user: neither the Python nor its prefix is near."""
    copied = Path(shutil.copy(LAUNCHER, tmp_path))
    (tmp_path / "moored-python").write_text(script_of(sys.executable, by))
    show = "import sys, os; print(sys.executable, 'MOORED_RUN' in os.environ)"
    code, said = launcher_alone(copied, "run", "-c", show, path="/nowhere")
    assert (code, said) == (0, f"{sys.executable} True\n")
    assert launcher_alone(copied, "--version") == (0, f"moored {moored.__version__}\n")


def test_the_script_beside_the_launcher_is_the_same_command():
    script = LAUNCHER.with_name("moored-python")
    assert launcher_alone(script, "--version") == (0, f"moored {moored.__version__}\n")
    assert launcher_alone(script, "run", "-c", "print(5)") == (0, "5\n")


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A folder laid out as ~/.local, with the launcher and the package, and no Python."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    shutil.copy(LAUNCHER, home / "bin")
    packages = home / "lib" / PYTHON_NAME / "site-packages"
    packages.mkdir(parents=True)
    (packages / "moored").symlink_to(Path(moored.__file__).parent)
    return home


@pytest.mark.parametrize("words", WORDS)
def test_a_python_that_cannot_be_executed_is_one_line(user_folder, tmp_path, words):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ran\n")
    python.chmod(0o644)
    script = user_folder / "bin" / "moored-python"
    for path, why in ((python, "Permission denied"), (tmp_path / "gone", "No such file")):
        script.write_text(script_of(path))
        code, said = launcher_alone(user_folder / "bin" / "moored", *words)
        assert code == 3
        assert said.startswith(f"moored: cannot run {path}, which moored was installed with: {why}")
        assert said.count("\n") == 1


def test_an_environments_python_that_cannot_be_executed_is_one_line(user_folder):
    """Its own Python is a link into a folder that this user may not enter, or that is gone."""
    (user_folder / "pyvenv.cfg").write_text("")
    python = user_folder / "bin" / PYTHON_NAME
    python.symlink_to("/no/such/folder/python3")
    code, said = launcher_alone(user_folder / "bin" / "moored", "run", "-c", "print(5)")
    assert code == 3
    assert said.startswith(f"moored: cannot run {python}, which moored was installed with: No such")


def test_an_environment_has_its_own_python(user_folder):
    (user_folder / "pyvenv.cfg").write_text("")
    (user_folder / "bin" / PYTHON_NAME).symlink_to(sys.executable)
    (user_folder / "bin" / "moored-python").write_text(script_of("/no/such/python"))
    code, said = launcher_alone(user_folder / "bin" / "moored", "run", "-c", "print(5)")
    assert (code, said) == (0, "5\n")


def test_a_python_that_has_lost_moored_is_one_line(user_folder, tmp_path):
    bare = tmp_path / "bare"
    succeed(sys.executable, "-m", "venv", "--without-pip", bare)
    python = bare / "bin" / "python"
    (user_folder / "bin" / "moored-python").write_text(script_of(python))
    code, said = launcher_alone(user_folder / "bin" / "moored", "lab", "--help")
    assert (code, said) == (
        3,
        f"moored: {python} cannot import moored: No module named 'moored'; "
        "install moored again with the Python that you use\n",
    )


def test_pythons_options_that_need_no_target(environment):
    version = f"Python {platform.python_version()}"
    assert finish(LAUNCHER, "run", "-V", env=environment).out.startswith(version)
    talk = finish(LAUNCHER, "run", "-i", env=environment, stdin="print(6 * 7)\n")
    assert (talk.code, talk.out) == (0, "42\n")


def test_a_program_may_be_given_with_an_equals_sign(moored_run):
    ending = moored_run(f"--exec={sys.executable}", "-c", "print(5)")
    assert (ending.code, ending.out, ending.err) == (0, "5\n", "")
    ending = moored_run("--exec=")
    assert (ending.code, ending.err) == (2, "moored: run: --exec wants a value\n")


def test_a_program_that_is_named_like_a_script(moored_run):
    ending = moored_run("sh", "app.py")
    assert (ending.code, ending.out) == (2, "")
    assert ending.err == (
        "moored: run: there is no script sh, but a program of that name; to run a script leave sh "
        "out, to run the program say: moored run --exec sh\n"
    )


def test_a_package_that_is_not_whole_or_not_speakable(tmp_path):
    package = Path(moored.__file__).parent
    shutil.copytree(package / "lib", tmp_path / "a b" / "lib")
    launcher = shutil.copy(LAUNCHER, tmp_path)
    words = ("run", f"--with-python={sys.executable}")
    code, said = launcher_alone(launcher, *words, "-c", "pass", path="")
    assert (code, said) == (
        3,
        "moored: run: the package has lost its libraries; install moored again\n",
    )
    libraries = f"--with-libraries={tmp_path / 'a b' / 'lib'}"
    code, said = launcher_alone(launcher, *words, libraries, "-c", "pass", path="")
    assert code == 3
    assert "whose name has a space, a colon or a semicolon in it" in said


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_the_libraries_show_and_want_nothing_else():
    folder = Path(moored.__file__).parent / "lib"

    def symbols(library: str, which: str) -> list[tuple[str, str]]:
        said = succeed("nm", "-D", which, folder / library)
        pairs = [line.split()[-2:] for line in said.splitlines()]
        return [(kind, name) for kind, name in pairs]

    shown = [name for _, name in symbols("libmoored_keep.so", "--defined-only")]
    caches = [name for name in shown if "the_chunk_cache" in name]
    assert len(caches) == 1
    ours = {name for name in shown if name.startswith(("moored_hook_Py", "moored_real_Py"))}
    starts = {"execl", "execle", "execlp", "execv", "execve", "execvp", "execvpe", "fexecve"}
    starts |= {"posix_spawn", "posix_spawnp", "chroot"}
    descriptors = {"close", "dup2", "dup3", "freopen", "freopen64"}
    threads = {"pthread_create", "pthread_self", "thrd_create", "thrd_join"}
    threads |= {
        f"pthread_{join}" for join in ("join", "timedjoin_np", "clockjoin_np", "tryjoin_np")
    }
    threads |= {f"pthread_cond_{what}" for what in ("signal", "timedwait", "wait")}
    ends = {"_exit", "exit"}
    expected = starts | ends | descriptors | threads | {"moored_run_table", "moored_must_look"}
    assert {*shown} - {*caches} - ours == expected
    wanted = symbols("libmoored_keep.so", "--undefined-only")
    assert {kind for kind, name in wanted if name.startswith(("Py", "_Py"))} == {"w"}
    assert symbols("libmoored_audit.so", "--undefined-only") == []
