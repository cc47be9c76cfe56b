"""Has clang look at the locks of moored: its thread-safety analysis, over the headers and src/c.

Each header that users include is looked at by itself, with what it includes, as C++17 and as C++20.
Two need what another project offers, and are left out, with a word, where that is not installed.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
HEADERS = CHECKOUT / "include" / "moored"
STANDARDS = ("c++17", "c++20")
FLAGS = (
    *("-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion"),
    *("-Wthread-safety", "-Werror"),
)
# Which module, by which function, says where the headers are that one of ours includes.
NEEDS = {
    "interop/nanobind.hpp": ("nanobind", "include_dir"),
    "interop/pybind11.hpp": ("pybind11", "get_include"),
}
LIMIT_S = 600


def sources() -> Iterator[tuple[str, list[str]]]:
    """Yield a line that includes each file, and the folders besides moored's and Python's."""
    folders = (HEADERS, HEADERS / "study", HEADERS / "interop")
    for header in sorted(one for folder in folders for one in folder.glob("*.h*")):
        name = header.relative_to(HEADERS).as_posix()
        line = f"#include <moored/{name}>\n"
        if name not in NEEDS:
            yield line, []
            continue
        module, function = NEEDS[name]
        try:
            where: Callable[[], str] = getattr(importlib.import_module(module), function)
        except ImportError:
            print(f"analysis: left out for lack of {module}: {name}", file=sys.stderr)
        else:
            yield line, [where()]
    for source in sorted((CHECKOUT / "src" / "c").glob("*.cpp")):
        yield f'#include "{source}"\n', []


def analyse(clang: str, standard: str, line: str, folders: list[str]) -> str:
    """Return what clang has to say of one file."""
    outside = [f"-isystem{folder}" for folder in (sysconfig.get_path("include"), *folders)]
    done = subprocess.run(
        [clang, f"-std={standard}", *FLAGS, f"-I{CHECKOUT / 'include'}", *outside, "-xc++", "-"],
        input=line,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return "" if done.returncode == 0 else f"analysis: as {standard}: {line}{done.stderr}"


def main() -> int:
    """Look at everything; 1 if there is something to be mended."""
    clang = shutil.which("clang++")
    if clang is None:
        print("analysis: no clang++; install clang (make setup does, as root)", file=sys.stderr)
        return 3
    files = list(sources())
    with ThreadPoolExecutor(os.cpu_count() or 1) as several:
        said = list(
            several.map(
                lambda one: analyse(clang, one[0], *one[1]),
                [(standard, file) for standard in STANDARDS for file in files],
            )
        )
    complaints = [text for text in said if text]
    for text in complaints:
        print(text, end="")
    if complaints:
        return 1
    print(f"clang's analysis of locks: {len(files)} files, as {' and '.join(STANDARDS)}, are clean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
