"""Compiles each public header: C++17 and C++20, g++, and clang, which follows the locks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nanobind  # type: ignore[import-untyped]
import pybind11

CHECKOUT = Path(__file__).resolve().parent.parent
INCLUDE = CHECKOUT / "include"
SOURCES = [
    *sorted(INCLUDE.glob("moored/*.h*")),
    *sorted(INCLUDE.glob("moored/study/*.hpp")),
    *sorted(INCLUDE.glob("moored/interop/*.hpp")),
    *sorted(CHECKOUT.glob("src/c/*.cpp")),
]
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror")
COMPILERS = {"g++": (), "clang++": ("-Wthread-safety",)}
OTHERS = (sysconfig.get_path("include"), nanobind.include_dir(), pybind11.get_include())


def main() -> int:
    """Compile them all; say what each compiler says."""
    failed = False
    for compiler, more in COMPILERS.items():
        if shutil.which(compiler) is None:
            print(f"moored: there is no {compiler}; run: make setup", file=sys.stderr)
            return 1
        for standard in ("-std=c++17", "-std=c++20"):
            for source in SOURCES:
                words = [compiler, standard, *WARNINGS, *more, "-fsyntax-only", f"-I{INCLUDE}"]
                words += [word for folder in OTHERS for word in ("-isystem", str(folder))]
                # By an include, so that it is not the main file, which has no #pragma once.
                code = f'#include "{source}"\n'
                done = subprocess.run([*words, "-xc++", "-"], input=code, text=True, check=False)
                failed |= done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
