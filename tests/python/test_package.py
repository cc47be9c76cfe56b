"""What `import moored` offers."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from limits import HANG_S

import moored


def test_version_is_the_packages_and_the_headers() -> None:
    assert moored.__version__ == version("moored")
    header = Path(moored.get_include(), "moored", "version.hpp").read_text()
    assert f'"{moored.__version__}"' in header


def test_folders_hold_what_their_names_say() -> None:
    assert Path(moored.get_include(), "moored", "moored.hpp").is_file()
    assert Path(moored.get_include(), "moored", "moored.h").is_file()
    assert Path(moored.get_cmake_dir(), "moored-config.cmake").is_file()
    assert Path(moored.get_c_source()).is_file()


def test_everything_promised_is_there() -> None:
    assert all(hasattr(moored, name) for name in moored.__all__)


def test_package_is_typed() -> None:
    package = Path(moored.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


def test_stats_are_named_numbers() -> None:
    stats = moored.stats()
    assert {"states_adopted", "chunk_hits", "chunk_misses", "chunks_held", "chunk_bytes"} <= set(
        stats
    )
    assert all(isinstance(count, int) and count >= 0 for count in stats.values())


def test_import_needs_nothing_outside_the_standard_library() -> None:
    script = (
        "import sys, moored.cli; moored.cli.main(['--version']);"
        "print({n.split('.')[0] for n in sys.modules} & {'rich', 'matplotlib', 'jinja2'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
