"""What live native threads keep in threading.local when the process ends without the end of Python,
or becomes another program: it is finalised before, as it is without moored.
"""

from __future__ import annotations

import signal
import sysconfig
from pathlib import Path

import pytest
from programs import HERE
from support.building import PYTHON_INCLUDE, compile_library

NO_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
FILL = """
        import careless_extension, multiprocessing, subprocess
        def fill():
            if not hasattr(here, "file"):
                here.file = open(os.environ["LOG"], "a")
            here.file.write("a line" + chr(10))
        def work():
            careless_extension.start(fill)
            careless_extension.again()
"""
ENDS = {
    "os._exit": "os._exit(0)",
    "exec": 'os.execv("/bin/true", ["true"])',
    "execlp": 'os.execlp("true", "true")',
    "exec by descriptor": 'os.execve(os.open("/bin/true", os.O_RDONLY), ["true"], os.environ)',
    "exit of a thread that is attached": "ctypes.PyDLL(None).exit(0)",
    "exit of a thread that is not": "ctypes.CDLL(None).exit(0)",
    "fork": """process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        sys.exit(process.exitcode)""",
}

pytestmark = pytest.mark.skipif(NO_GIL, reason="without a GIL no other thread may finalise them")


@pytest.fixture(autouse=True)
def careless(tmp_path: Path, environment: dict[str, str]) -> None:
    """Let scripts import careless_extension."""
    target = tmp_path / f"careless_extension{sysconfig.get_config_var('EXT_SUFFIX')}"
    compile_library(HERE / "careless_extension.c", target, f"-I{PYTHON_INCLUDE}")
    environment["PYTHONPATH"] += f":{tmp_path}"


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_files_of_idle_threads_are_complete(stock, kept, environment, tmp_path, end):
    forks = "fork" in end
    script = FILL + f"        {'' if forks else 'work()'}\n        {end}\n"
    for number, run in enumerate((stock, kept)):
        environment["LOG"] = str(tmp_path / f"{number}.log")
        ending = run(script)
        assert (ending.code, ending.err) == (0, "")
        assert Path(environment["LOG"]).read_text() == 2 * "a line\n", number


def test_a_program_that_was_started_takes_nothing(kept, tmp_path):
    ending = kept(
        FILL
        + """
        work()
        subprocess.run(["true"], check=True)
        subprocess.run(["true"], check=True, preexec_fn=lambda: None)
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        print(os.path.getsize(os.environ["LOG"]))
        careless_extension.end()
        print(os.path.getsize(os.environ["LOG"]))
    """,
        LOG=str(tmp_path / "log"),
    )
    assert (ending.code, ending.out, ending.err) == (0, "0\n14\n", "")


def test_threads_go_on_when_there_is_no_other_program(kept, tmp_path):
    ending = kept(
        FILL
        + """
        work()
        try:
            os.execv("/none", ["none"])
        except FileNotFoundError:
            print(os.path.getsize(os.environ["LOG"]))
        careless_extension.again()
        careless_extension.end()
        print(os.path.getsize(os.environ["LOG"]))
    """,
        LOG=str(tmp_path / "log"),
    )
    assert (ending.code, ending.out, ending.err) == (0, "14\n21\n", "")


def test_a_handler_of_a_signal_ends_the_process_at_once(kept, tmp_path):
    """No finaliser is run on a thread that a signal has interrupted anywhere."""
    ending = kept(
        FILL
        + """
        work()
        import signal
        libc = ctypes.PyDLL(None)
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.signal(signal.SIGUSR1, ctypes.cast(libc._exit, ctypes.c_void_p))
        getattr(libc, "raise")(signal.SIGUSR1)
    """,
        LOG=str(tmp_path / "log"),
    )
    assert (ending.code, ending.out, ending.err) == (signal.SIGUSR1, "", "")
    assert (tmp_path / "log").read_text() == ""
