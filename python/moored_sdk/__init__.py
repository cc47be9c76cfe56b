"""What builds need of moored: headers, CMake and pkg-config files, and the command moored-config.

Nothing is imported here, not even moored: a build has to find its headers also where moored itself
cannot be imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

OPTIONS = {
    "--includes": "the compiler's flags, as -I and the folder of the headers",
    "--include-dir": "the folder of the headers",
    "--cmake-dir": "the folder of moored-config.cmake, for -Dmoored_DIR=",
    "--pkg-config-dir": "the folder of moored.pc, for PKG_CONFIG_PATH",
    "--c-source": "the source to compile into what uses moored.h",
}


def installed(name: str) -> str:
    """Return where the build has put a file or a folder, or raise FileNotFoundError.

    An editable install has this package in two folders: the sources, and what was built.
    """
    for folder in __path__:
        path = Path(folder, name).resolve()
        if path.exists():
            return str(path)
    raise FileNotFoundError(f"moored was installed without its {name}; install it again")


def include_dir() -> str:
    """Return the folder to give to the compiler with -I, so that <moored/moored.hpp> is found."""
    return installed("include")


def cmake_dir() -> str:
    """Return the folder to give to CMake as moored_DIR, so that find_package(moored) works."""
    return installed("share/cmake/moored")


def pkg_config_dir() -> str:
    """Return the folder of moored.pc."""
    return installed("share/pkgconfig")


def c_source() -> str:
    """Return the C++ source to compile into a program or an extension that uses moored.h."""
    return installed("include/moored/moored_c.cpp")


def main() -> int:
    """Be the command moored-config: print what the options ask for, a line each."""
    words = sys.argv[1:]
    usage = "usage: moored-config " + " ".join(f"[{option}]" for option in OPTIONS)
    if words in (["--help"], ["-h"]):
        print(usage, "", *(f"  {option:18}{what}" for option, what in OPTIONS.items()), sep="\n")
        return 0
    wrong = [word for word in words if word not in OPTIONS]
    if wrong or not words:
        why = f"there is no option {wrong[0]}" if wrong else "say what to print"
        print(f"moored-config: {why}\n{usage}", file=sys.stderr)
        return 2
    answers = {
        "--includes": lambda: f"-I{include_dir()}",
        "--include-dir": include_dir,
        "--cmake-dir": cmake_dir,
        "--pkg-config-dir": pkg_config_dir,
        "--c-source": c_source,
    }
    try:
        for word in words:
            print(answers[word]())
    except FileNotFoundError as error:
        print(f"moored-config: {error}", file=sys.stderr)
        return 1
    return 0
