"""What moored asks of the dynamic loader, and what several copies of it in one process share."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest
from building import HERE
from support.building import build, needs_compiler, needs_library
from support.processes import finish

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
    build(
        *("c++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-DNAME={name}", *flags),
        *include_flags(headers or moored.get_include()),
        *(SOURCES / "extension.cpp", "-o", target),
    )
    return target


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the extension that most tests load, and return its folder."""
    return build_extension(tmp_path_factory.mktemp("first"), "first", "-DTLS=200").parent


def python(script: str, *folders: Path) -> str:
    return build(
        sys.executable, "-c", script, PYTHONPATH=os.pathsep.join(map(str, folders)), limit=60
    )


def test_an_extension_with_much_thread_local_storage_loads(tmp_path: Path) -> None:
    build_extension(tmp_path, "big", "-DTLS=4096")
    assert python("import big; print(big.touch())", tmp_path) == "True\n"


def test_many_small_extensions_load(first: Path, tmp_path: Path) -> None:
    # One and the same library under several names: to the loader each is another file.
    for number in range(24):
        shutil.copy(first / f"first{SUFFIX}", tmp_path / f"{number}.so")
    python(
        f"""
from importlib import machinery, util
for number in range(24):
    loader = machinery.ExtensionFileLoader("first", f"{tmp_path}/{{number}}.so")
    module = util.module_from_spec(util.spec_from_loader("first", loader))
    loader.exec_module(module)
    assert module.touch()
"""
    )


@pytest.mark.skipif(not shutil.which("nm"), reason="no nm here")
def test_an_extension_shows_no_symbol_of_moored_but_the_cache(first: Path) -> None:
    shown = build("nm", "-D", "-C", first / f"first{SUFFIX}").splitlines()
    symbols = [line for line in shown if "moored" in line]
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


@pytest.fixture(scope="module", params=["layout", "old library", "same"])
def second(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an extension with other headers, or another ABI of the C++ library."""
    folder = tmp_path_factory.mktemp("second")
    if request.param == "layout":
        headers = headers_of_another_layout(folder / "include")
        return build_extension(folder, "second", headers=headers).parent
    flags = [OLD_ABI] if request.param == "old library" else []
    return build_extension(folder, "second", *flags).parent


@pytest.mark.parametrize("as_global", [False, True], ids=["local", "global"])
def test_copies_of_the_headers_share_nothing(first: Path, second: Path, as_global: bool) -> None:
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
    assert python(script, first, second) == f"{told}\nTrue True True\n"


@pytest.mark.parametrize("when", ["at once", "within an exit handler"])
def test_who_comes_after_the_end_is_refused(first: Path, when: str) -> None:
    script = """
def load():
    import first
    first.attach_late()
"""
    script += "load()" if when == "at once" else "import atexit; atexit.register(load)"
    refused = "there is no running Python interpreter\n"
    assert python(script, first) == 2 * refused


@pytest.fixture(scope="module")
def closing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a program that closes a plugin, and the plugin."""
    folder = tmp_path_factory.mktemp("closing")
    build(
        *("c++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
        "-fno-gnu-unique",  # the loader keeps a library with such a symbol by itself
        *include_flags(moored.get_include()),
        *(SOURCES / "plugin.cpp", "-o", folder / "plugin.so"),
    )
    libraries = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    build(
        *("c++", "-std=c++17", "-pthread", SOURCES / "closing.cpp", "-o", folder / "closing"),
        *include_flags(moored.get_include()),
        *(f"-L{libraries}", f"-Wl,-rpath,{libraries}", f"-lpython{version}", "-ldl"),
    )
    return folder / "closing", folder / "plugin.so"


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
    closing: tuple[Path, Path], function: str, thread: str, said: str
) -> None:
    done = finish(*closing, function, thread, limit=60)
    assert (done.code, done.out, done.err) == (0, said, "")
