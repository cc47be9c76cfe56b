"""What moored asks of the dynamic loader, and what several copies of it in one process share."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from building import HERE, needs_compiler, needs_library, run

import moored

SOURCES = HERE / "loading"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
OLD_ABI = "-D_GLIBCXX_USE_CXX11_ABI=0"

pytestmark = needs_compiler


def include_flags(headers: str | Path) -> list[str | Path]:
    return ["-I", headers, "-I", sysconfig.get_path("include")]


def build_extension(
    folder: Path, name: str, *flags: str, headers: str | Path | None = None
) -> Path:
    """Compile extension.cpp with default visibility, as a plain command does."""
    target = folder / f"{name}{SUFFIX}"
    run(
        *("c++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-DNAME={name}", *flags),
        *include_flags(headers or moored.get_include()),
        *(SOURCES / "extension.cpp", "-o", target),
    )
    return target


def python(script: str, folder: Path) -> str:
    return run(sys.executable, "-c", script, PYTHONPATH=str(folder), limit=60)


def test_an_extension_with_much_thread_local_storage_loads(tmp_path: Path) -> None:
    build_extension(tmp_path, "big", "-DTLS=4096")
    assert python("import big; print(big.touch())", tmp_path) == "True\n"


def test_many_small_extensions_load(tmp_path: Path) -> None:
    names = [f"small{number}" for number in range(24)]
    compiled = build_extension(tmp_path, names[0], "-DTLS=200")
    # One and the same library under several names: to the loader each is another file.
    for name in names[1:]:
        shutil.copy(compiled, tmp_path / f"{name}.so")
    script = f"""
import importlib.machinery, importlib.util
for name in {names}:
    path = {str(tmp_path)!r} + "/" + (name + ".so" if name != "small0" else {compiled.name!r})
    loader = importlib.machinery.ExtensionFileLoader("small0", path)
    spec = importlib.util.spec_from_loader("small0", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert module.touch()
"""
    python(script, tmp_path)


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_an_extension_shows_no_symbol_of_moored_but_the_cache(tmp_path: Path) -> None:
    compiled = build_extension(tmp_path, "shown")
    symbols = [line for line in run("nm", "-D", "-C", compiled).splitlines() if "moored" in line]
    assert symbols
    assert not [line for line in symbols if "the_chunk_cache" not in line]


OTHER_LAYOUT = [
    ("detail/channel/core.hpp", "class channel_core", "private:"),
    ("detail/gate/gate.hpp", "class gate ", "private:"),
]


def headers_of_another_layout(folder: Path) -> Path:
    """Copy the headers, and give classes of which a process could have one two members more."""
    shutil.copytree(moored.get_include(), folder)
    for name, of_class, before in OTHER_LAYOUT:
        path = folder / "moored" / name
        text = path.read_text()
        at = text.index(before, text.index(of_class))
        more = "private:\n  std::uint64_t more_[2] = {1, 2};\n "
        path.write_text(text[:at] + more + text[at + len(before) :])
    return folder


@pytest.mark.parametrize("as_global", [False, True], ids=["local", "global"])
@pytest.mark.parametrize("second", ["layout", "old library", "same"])
def test_copies_of_the_headers_share_nothing(tmp_path: Path, second: str, as_global: bool) -> None:
    build_extension(tmp_path, "first")
    if second == "layout":
        headers = headers_of_another_layout(tmp_path / "include")
        build_extension(tmp_path, "second", headers=headers)
    else:
        flags = [OLD_ABI] if second == "old library" else []
        build_extension(tmp_path, "second", *flags)
    loads = "sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)" if as_global else "pass"
    script = f"""
import os, sys
{loads}
import first, second
told = []
for module in (first, second, first):
    module.tell(lambda batch, name=module.__name__: told.extend((name, event) for event in batch))
print(told)
print(first.where() != second.where(), first.touch(), second.touch())
"""
    told = [(name, event) for name in ("first", "second", "first") for event in (1, 2)]
    assert python(script, tmp_path) == f"{told}\nTrue True True\n"


@pytest.mark.parametrize("when", ["at once", "within an exit handler"])
def test_who_comes_after_the_end_is_refused(tmp_path: Path, when: str) -> None:
    build_extension(tmp_path, "first")
    script = """
def load():
    import first
    first.attach_late()
"""
    script += "load()" if when == "at once" else "import atexit; atexit.register(load)"
    refused = "there is no running Python interpreter\n"
    assert python(script, tmp_path) == 2 * refused


@needs_library
@pytest.mark.parametrize(
    ("function", "thread", "said"),
    [
        ("open_gate", "0", "there\n"),
        ("keep", "1", "there\n"),
        ("tell", "0", "[1]\nthere\n"),
        ("nothing", "0", "gone\n"),
    ],
)
def test_a_plugin_that_left_hooks_behind_stays(
    tmp_path: Path, function: str, thread: str, said: str
) -> None:
    plugin = tmp_path / "plugin.so"
    run(
        *("c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
        "-fno-gnu-unique",  # the loader keeps a library with such a symbol by itself
        *include_flags(moored.get_include()),
        *(SOURCES / "plugin.cpp", "-o", plugin),
    )
    folder = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    program = tmp_path / "closing"
    run(
        *("c++", "-std=c++17", "-pthread", SOURCES / "closing.cpp", "-o", program),
        *include_flags(moored.get_include()),
        *(f"-L{folder}", f"-Wl,-rpath,{folder}", f"-lpython{version}", "-ldl"),
    )
    done = subprocess.run(
        [program, plugin, function, thread], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")
