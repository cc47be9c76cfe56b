"""Every block of code in the README and in docs/use is compiled or run, as it stands on the page.

What a block takes for granted stands in an HTML comment before it, which readers do not see:
`<!-- before` and code, and `<!-- inside` and code for what is a part of a function. A block of `sh`
is run in a folder of its own that has the examples in it.

`<!-- file: NAME -->` makes a block a file of a tutorial: all files of a section, and of the chapter
that the section is in, go into one folder, in which the section's commands are run. A chapter with
commands of its own has built what the Python of its sections imports.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable
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
    r"(?:^<!-- (?P<how>before|inside)\n(?P<hidden>.*?)^-->\n+|^<!-- file: (?P<file>\S+) -->\n+)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```"
    r"|^(?P<level>##|###) (?P<heading>[^\n]*)$",
    re.DOTALL | re.MULTILINE,
)
C_FACE = CHECKOUT / "include" / "moored" / "moored.h"
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
    file: str
    chapter: str
    section: str

    @property
    def as_c(self) -> str:
        """The whole of a translation unit in C or C++."""
        if self.is_inside:
            return f"{self.hidden}void on_the_page() {{\n{self.code}}}\n"
        return self.hidden + self.code


@functools.cache
def snippets() -> tuple[Snippet, ...]:
    """Every block of every page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        name = page.relative_to(CHECKOUT)
        chapter, section = f"{name}", ""
        for match in BLOCK.finditer(text):
            if match["level"] == "##":
                chapter, section = f"{name}#{match['heading']}", ""
            elif match["level"] == "###":
                section = match["heading"]
            else:
                line = text.count("\n", 0, match.start("code"))
                found.append(
                    Snippet(
                        place=f"{name}:{line}",
                        language=match["language"],
                        hidden=match["hidden"] or "",
                        code=match["code"],
                        is_inside=match["how"] == "inside",
                        file=match["file"] or "",
                        chapter=chapter,
                        section=section,
                    )
                )
    return tuple(found)


def of_section(chapter: str, section: str) -> list[Snippet]:
    return [one for one in snippets() if (one.chapter, one.section) == (chapter, section)]


def is_tutorial(chapter: str, section: str) -> bool:
    """Whether it has commands, and files for them."""
    there = of_section(chapter, section)
    return any(one.file for one in there) and any(one.language == "sh" for one in there)


def tutorials() -> list[tuple[str, str]]:
    every = dict.fromkeys((one.chapter, one.section) for one in snippets())
    return [one for one in every if is_tutorial(*one)]


def is_alone(snippet: Snippet) -> bool:
    """Whether the block is tried by itself, and not with its tutorial."""
    return not snippet.file and not is_tutorial(snippet.chapter, snippet.section)


def those_in(*languages: str) -> pytest.MarkDecorator:
    chosen = [one for one in snippets() if one.language in languages and is_alone(one)]
    return pytest.mark.parametrize("snippet", chosen, ids=lambda one: one.place)


def as_activated() -> dict[str, str]:
    """Return what an active virtual environment sets."""
    binaries = Path(sys.executable).parent
    return {"PATH": f"{binaries}:{os.environ['PATH']}", "VIRTUAL_ENV": str(binaries.parent)}


def run_commands(commands: str, folder: Path) -> None:
    build("bash", "-e", "-o", "pipefail", "-c", commands, folder=folder, **as_activated())


def skip_without_tools(files: list[Snippet]) -> None:
    """Skip where a package or a compiler that the files need is missing; the skip says which."""
    languages = {one.language for one in files}
    code = "".join(one.code for one in files)
    needed = {name for name in ("pybind11", "nanobind") if f"{name}/{name}.h" in code}
    needed |= {"setuptools"} if "from setuptools " in code else set()
    needed |= {"Cython"} if "cython" in languages else set()
    for package in sorted(needed):
        pytest.importorskip(package)
    programs = {"c++"}
    programs |= {"cmake"} if "cmake" in languages else set()
    programs |= {"cargo"} if "rust" in languages else set()
    for program in sorted(programs):
        if not shutil.which(program):
            pytest.skip(f"no {program} here")


def follow(chapter: str, section: str, folder: Path) -> Path:
    """Do what a tutorial says, in a folder."""
    shared = of_section(chapter, "") if section else []
    there = of_section(chapter, section)
    files = [one for one in [*shared, *there] if one.file]
    skip_without_tools(files)
    for one in files:
        path = folder / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one.code)
    if any(one.language == "rust" for one in files):
        fetched = finish("cargo", "fetch", folder=folder, limit=BUILD_S)
        if fetched.code != 0:
            pytest.skip(f"cargo cannot fetch the crates: {fetched.err}")
    for one in there:
        if one.language == "sh":
            run_commands(one.code, folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build what a chapter's own commands build, once."""

    @functools.cache
    def once(chapter: str) -> Path:
        return follow(chapter, "", tmp_path_factory.mktemp("chapter"))

    return once


def test_no_language_is_left_out() -> None:
    tested = {"c", "cpp", "python", "cython", "rust", "cmake", "sh"}
    assert {one.language for one in snippets()} <= tested | NOT_CODE
    assert {one.language for one in snippets()} >= tested
    assert tutorials()
    alone = {one.language for one in snippets() if is_alone(one)}
    assert alone <= (tested - {"cython", "rust"}) | NOT_CODE  # those are files of tutorials


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


@pytest.mark.parametrize(("chapter", "section"), tutorials())
def test_a_tutorial(
    chapter: str, section: str, tmp_path: Path, built: Callable[[str], Path]
) -> None:
    if section:
        follow(chapter, section, tmp_path)
    else:
        built(chapter)


@those_in("python")
def test_python_runs(snippet: Snippet, tmp_path: Path, built: Callable[[str], Path]) -> None:
    source = snippet.hidden + snippet.code
    for package in re.findall(r"^import (gevent|trio|uvloop)$", source, re.MULTILINE):
        pytest.importorskip(package)
    imports = built(snippet.chapter) / "build" if is_tutorial(snippet.chapter, "") else tmp_path
    compile(source, snippet.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if re.search(r"^(async for|await) ", snippet.code, re.MULTILINE):
        body = "".join(f"    {line}\n" for line in source.splitlines())
        source = f"import asyncio\nasync def on_the_page():\n{body}\nasyncio.run(on_the_page())\n"
    (tmp_path / "page.py").write_text(source)
    succeed(sys.executable, tmp_path / "page.py", folder=tmp_path, PYTHONPATH=str(imports))


def test_rust_names_what_the_c_face_has() -> None:
    declared = set(re.findall(r"\bmoored_\w+(?=\()", C_FACE.read_text()))
    used = {
        name
        for one in snippets()
        if one.language == "rust"
        for name in re.findall(r"\bfn (moored_\w+)", one.code)
    }
    assert used
    assert used <= declared


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
    run_commands(snippet.hidden + snippet.code, tmp_path)
