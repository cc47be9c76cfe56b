"""Extensions, each as its binding makes them, unmodified: all get a kept state."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from programs import HERE
from support.building import PYTHON_INCLUDE, build, compile_program

SCRIPT = """
import sys, threading
{before}
import native_extension
here = threading.local()
visits = []
def visit():
    here.visits = getattr(here, "visits", 0) + 1
    visits.append(here.visits)
native_extension.call_many(visit, 3)
print(visits)
"""
AS_SHARED = ["-shared", "-fPIC", f"-I{PYTHON_INCLUDE}"]
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")

LINKED = {
    "lazy": ["-Wl,-z,lazy"],
    "now and read-only": ["-Wl,-z,now,-z,relro"],
    "without PLT": ["-fno-plt", "-Wl,-z,now,-z,relro"],
    "by a pointer in the data": ["-DBY_POINTER"],
    "with the old hash table": ["-Wl,--hash-style=sysv"],
    "by a state of its own": ["-DBY_OWN_STATE"],
    "by a state of its own, without PLT": ["-DBY_OWN_STATE", "-fno-plt", "-Wl,-z,now"],
}


if sys.version_info >= (3, 15):
    LINKED |= {"by a view": ["-DBY_VIEW"], "by a guard": ["-DBY_GUARD"]}


def keeps(moored_run, folder: Path, before: str = "", **variables: str) -> None:
    path = {"PYTHONPATH": str(folder)}
    script = SCRIPT.format(before=before)
    ending = moored_run("-c", script, **path, **variables)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2, 3]\n", "")
    ending = moored_run("--fresh", "-c", script, **path, **variables)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 1, 1]\n", "")


@pytest.fixture(params=LINKED.values(), ids=LINKED.keys())
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    target = tmp_path / f"native_extension{SUFFIX}"
    compile_program(HERE / "plain_extension.c", target, *AS_SHARED, *request.param)
    return tmp_path


def test_plain_c(moored_run, plain):
    keeps(moored_run, plain)


def test_plain_c_with_everything_bound_at_once(moored_run, plain):
    keeps(moored_run, plain, LD_BIND_NOW="1")


def test_plain_c_deeply_bound(moored_run, plain):
    keeps(moored_run, plain, "import os; sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)")


def test_pybind11(moored_run, tmp_path):
    pybind11 = pytest.importorskip("pybind11")
    compile_program(
        HERE / "bound_extension.cpp",
        tmp_path / f"native_extension{SUFFIX}",
        *("-std=c++17", "-DBY_PYBIND11", "-fvisibility=hidden", *AS_SHARED),
        f"-I{pybind11.get_include()}",
    )
    keeps(moored_run, tmp_path)


def test_nanobind(moored_run, tmp_path):
    nanobind = pytest.importorskip("nanobind")
    package = Path(nanobind.__file__).parent
    compile_program(
        HERE / "bound_extension.cpp",
        tmp_path / f"native_extension{SUFFIX}",
        *("-std=c++17", "-fvisibility=hidden", "-fno-strict-aliasing", *AS_SHARED),
        *(f"-I{package / folder}" for folder in ("include", "ext/robin_map/include")),
        str(package / "src" / "nb_combined.cpp"),
    )
    keeps(moored_run, tmp_path)


def test_cython(moored_run, tmp_path):
    pytest.importorskip("Cython")
    source = tmp_path / "native_extension.pyx"
    source.write_text("""
cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t*, void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
cdef long rounds
cdef void enter(void* callback) noexcept with gil:
    (<object>callback)()
cdef void* work(void* callback) noexcept nogil:
    cdef long at
    for at in range(rounds):
        enter(callback)
    return NULL
def call_many(callback, long times):
    global rounds
    rounds = times
    cdef pthread_t thread
    cdef void* argument = <void*>callback
    with nogil:
        pthread_create(&thread, NULL, work, argument)
        pthread_join(thread, NULL)
""")
    build(sys.executable, "-m", "cython", "-3", source)
    target = tmp_path / f"native_extension{SUFFIX}"
    compile_program(source.with_suffix(".c"), target, *AS_SHARED, "-w")
    keeps(moored_run, tmp_path)


def test_cffi_keeps_by_itself_and_goes_on(stock, kept):
    pytest.importorskip("cffi")
    script = """
        import cffi
        ffi = cffi.FFI()
        ffi.cdef("int call_on_a_thread(void (*)(void), long);")
        library = ffi.dlopen(os.path.join(os.path.dirname(caller.__file__), "native_caller.so"))
        library.call_on_a_thread(ffi.callback("void(void)", visit), 3)
        print(visits)
    """
    assert stock(script).out == "[1, 2, 3]\n"
    ending = kept(script)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2, 3]\n", "")
    assert ending.row["states_kept"] == 0


RUST = """
use std::os::raw::{c_char, c_int, c_long, c_void};
extern "C" {
    fn PyGILState_Ensure() -> c_int;
    fn PyGILState_Release(token: c_int);
    fn PyRun_SimpleString(code: *const c_char) -> c_int;
}
#[no_mangle]
pub extern "C" fn call_many(code: *const c_char, times: c_long) {
    let address = code as usize;
    std::thread::spawn(move || {
        for _ in 0..times {
            unsafe {
                let token = PyGILState_Ensure();
                PyRun_SimpleString(address as *const c_char);
                PyGILState_Release(token);
            }
        }
    })
    .join()
    .unwrap();
    let _: *const c_void = code as *const c_void;
}
"""


@pytest.mark.skipif(not shutil.which("rustc"), reason="no rustc here")
def test_rust(kept, tmp_path):
    source = tmp_path / "native.rs"
    source.write_text(RUST)
    library = tmp_path / "native.so"
    build("rustc", "-O", "--crate-type=cdylib", source, "-o", library)
    ending = kept(f"""
        ctypes.CDLL({str(library)!r}).call_many(b"import __main__; __main__.visit()", 3)
        print(visits)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2, 3]\n", "")


def embed_flags() -> list[str]:
    name = sysconfig.get_config_var("LDVERSION")
    folder = sysconfig.get_config_var("LIBDIR")
    return [f"-I{PYTHON_INCLUDE}", f"-L{folder}", f"-Wl,-rpath,{folder}", f"-lpython{name}"]


needs_library = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"), reason="this Python cannot be embedded"
)


@needs_library
@pytest.mark.parametrize("bind", ["", "1"])
@pytest.mark.parametrize("flags", [[], ["-fno-plt"], ["-fno-pie", "-no-pie"]])
def test_a_program_with_python_in_it(moored_run, tmp_path, flags, bind):
    program = compile_program(HERE / "embedding.c", tmp_path / "embedding", *flags, *embed_flags())
    home = {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": "", "LD_BIND_NOW": bind}
    ending = moored_run("--stats", "--exec", program, **home)
    assert (ending.code, ending.out) == (0, "1\n2\n3\n")
    assert "calls served from a kept state" in ending.err
    ending = moored_run("--fresh", "--exec", program, **home)
    assert (ending.code, ending.out, ending.err) == (0, "1\n1\n1\n", "")


@needs_library
def test_two_lives_of_the_interpreter(moored_run, tmp_path):
    program = compile_program(HERE / "embedding.c", tmp_path / "embedding", *embed_flags())
    ending = moored_run("--exec", program, "again", PYTHONHOME=sys.base_prefix, PYTHONPATH="")
    assert (ending.code, ending.out, ending.err) == (0, "1\n2\n3\n1\n2\n3\n", "")
