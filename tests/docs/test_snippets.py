"""Every block of code in the README and in docs/use is compiled or run, as it stands on the page.

What a block takes for granted stands in an HTML comment before it, which readers do not see:
`<!-- before` and code, and `<!-- inside` and code for what is a part of a function. A block of `sh`
is run in a folder of its own that has the examples in it.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.building import PYTHON_INCLUDE, build, needs_cmake
from support.limits import BUILD_S
from support.processes import finish, succeed

import moored

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs" / "use").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<how>before|inside)\n(?P<hidden>.*?)^-->\n+)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
NOT_CODE = {"text", "toml", "ini", "dockerfile", "console"}
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-unused-variable")


@dataclass(frozen=True)
class Snippet:
    """One block of one page."""

    place: str
    language: str
    hidden: str
    code: str
    is_inside: bool

    @property
    def as_c(self) -> str:
        """The whole of a translation unit in C or C++."""
        if self.is_inside:
            return f"{self.hidden}void on_the_page() {{\n{self.code}}}\n"
        return self.hidden + self.code


def snippets() -> list[Snippet]:
    """Every block of every page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("code"))
            place = f"{page.relative_to(CHECKOUT)}:{line}"
            hidden, inside = match["hidden"] or "", match["how"] == "inside"
            found.append(Snippet(place, match["language"], hidden, match["code"], inside))
    return found


def those_in(*languages: str) -> pytest.MarkDecorator:
    chosen = [one for one in snippets() if one.language in languages]
    return pytest.mark.parametrize("snippet", chosen, ids=lambda one: one.place)


def test_no_language_is_left_out() -> None:
    tested = {"c", "cpp", "python", "cython", "rust", "cmake", "sh"}
    assert {one.language for one in snippets()} <= tested | NOT_CODE


@those_in("cpp", "c")
def test_c_and_cpp_compile(snippet: Snippet, tmp_path: Path) -> None:
    is_cpp = snippet.language == "cpp"
    source = tmp_path / f"page.{snippet.language}"
    source.write_text(snippet.as_c)
    includes = [PYTHON_INCLUDE, moored.get_include()]
    for package in ("pybind11", "nanobind"):
        if re.search(rf"\b{package}\b", snippet.as_c):
            module = pytest.importorskip(package)
            ask = getattr(module, "get_include", None) or module.include_dir
            includes.append(ask())
    words = [word for include in includes for word in ("-isystem", include)]
    compiler = ("c++", "-std=c++17") if is_cpp else ("cc", "-std=c11")
    build(*compiler, *WARNINGS, *words, "-fsyntax-only", source)


@those_in("python")
def test_python_runs(snippet: Snippet, tmp_path: Path) -> None:
    source = snippet.hidden + snippet.code
    compile(source, snippet.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if re.search(r"^(async for|await) ", snippet.code, re.MULTILINE):
        body = "".join(f"    {line}\n" for line in source.splitlines())
        source = f"import asyncio\nasync def on_the_page():\n{body}\nasyncio.run(on_the_page())\n"
    (tmp_path / "page.py").write_text(source)
    succeed(sys.executable, tmp_path / "page.py", folder=tmp_path)


@those_in("cython")
def test_cython_compiles(snippet: Snippet, tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    (tmp_path / "page.pyx").write_text(snippet.hidden + snippet.code)
    build(sys.executable, "-m", "cython", "-3", "--cplus", tmp_path / "page.pyx")
    words = ["-isystem", PYTHON_INCLUDE, "-isystem", moored.get_include()]
    build("c++", "-std=c++17", "-w", *words, "-fsyntax-only", tmp_path / "page.cpp")


@pytest.mark.skipif(not shutil.which("rustc"), reason="no rustc here")
@those_in("rust")
def test_rust_compiles(snippet: Snippet, tmp_path: Path) -> None:
    (tmp_path / "page.rs").write_text(snippet.hidden + snippet.code)
    build("rustc", "--crate-type=lib", "--emit=metadata", "page.rs", folder=tmp_path)


@needs_cmake
@those_in("cmake")
def test_cmake_configures(snippet: Snippet, tmp_path: Path) -> None:
    before = "cmake_minimum_required(VERSION 3.22)\nproject(page LANGUAGES CXX)\n"
    (tmp_path / "CMakeLists.txt").write_text(before + snippet.hidden + snippet.code)
    (tmp_path / "module.cpp").write_text("\n")
    (tmp_path / "moored").symlink_to(CHECKOUT)
    build(
        *("cmake", "-S", tmp_path, "-B", tmp_path / "build"),
        *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dmoored_DIR={moored.get_cmake_dir()}"),
    )


@those_in("sh")
def test_commands_run(snippet: Snippet, tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "examples", tmp_path / "examples")
    binaries = Path(sys.executable).parent
    ending = finish(
        *("bash", "-e", "-o", "pipefail", "-c", snippet.hidden + snippet.code),
        folder=tmp_path,
        limit=BUILD_S,
        PATH=f"{binaries}:{os.environ['PATH']}",
        VIRTUAL_ENV=str(binaries.parent),
    )
    assert ending.code == 0, ending.out + ending.err
