"""What `import moored` offers."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support.processes import finish, succeed

import moored
import moored_sdk


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
    said = succeed(sys.executable, "-c", script)
    assert said.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("set_kept_limit(-1)", "ValueError: the limit is a number of states, or 0 for any number"),
        (
            "set_kept_limit(-(2**70))",
            "ValueError: the limit is a number of states, or 0 for any number",
        ),
        ("set_kept_limit('2')", "TypeError: 'str' object cannot be interpreted as an integer"),
        ("set_kept_limit(2.5)", "TypeError: 'float' object cannot be interpreted as an integer"),
        ("set_closing_bound(-1)", "ValueError: the bound is a number of seconds from 0 to 86400"),
        (
            "set_closing_bound(float('nan'))",
            "ValueError: the bound is a number of seconds from 0 to 86400",
        ),
        ("set_closing_bound('1')", "TypeError: must be real number, not str"),
    ],
)
def test_what_is_no_limit_or_bound_is_refused_in_plain_words(call: str, said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        eval(f"moored.{call}")
    assert f"{refused.type.__name__}: {refused.value}" == said


def test_any_number_is_a_limit() -> None:
    moored.set_kept_limit(2**70)
    moored.set_kept_limit(states=0)


def test_an_editable_install_has_its_parts_in_a_second_folder(tmp_path: Path) -> None:
    """As scikit-build-core makes it: the sources in one folder, what was built in another."""
    package = Path(moored_sdk.__file__).parent
    shutil.copytree(package, tmp_path / "moored_sdk")
    for folder in ("include", "share"):
        shutil.move(tmp_path / "moored_sdk" / folder, tmp_path / "built" / folder)
    script = (
        f"import moored, moored_sdk; moored_sdk.__path__.append({str(tmp_path / 'built')!r});"
        "print(moored.get_include(), moored.get_cmake_dir(), moored.get_c_source())"
    )
    said = succeed(sys.executable, "-c", script, folder=tmp_path)
    paths = [Path(path) for path in said.split()]
    assert all(path.exists() and path.is_relative_to(tmp_path / "built") for path in paths)
    assert len(paths) == 3


CONFIG = Path(sys.executable).with_name("moored-config")


def test_moored_config_says_where_things_are() -> None:
    include = moored.get_include()
    assert succeed(CONFIG, "--includes", "--cmake-dir", "--c-source").splitlines() == [
        f"-I{include}",
        moored.get_cmake_dir(),
        moored.get_c_source(),
    ]
    assert Path(succeed(CONFIG, "--pkg-config-dir").strip(), "moored.pc").is_file()
    for words in ((), ("--include",), ("--cmake-dir", "x")):
        done = finish(CONFIG, *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("moored-config: ")
    assert finish(CONFIG, "--help").out.startswith("usage: moored-config ")


def test_a_build_finds_its_headers_where_moored_cannot_be_imported() -> None:
    script = (
        "import sys; sys.modules['moored'] = None\n"
        "from importlib.metadata import entry_points\n"
        "from importlib.resources import files\n"
        "root, = entry_points(group='cmake.root', name='moored')\n"
        "print((files(root.load()) / 'share/cmake/moored/moored-config.cmake').is_file())\n"
        "print(sorted(name for name in sys.modules if name.startswith('moored')))\n"
    )
    assert succeed(sys.executable, "-c", script) == "True\n['moored', 'moored_sdk']\n"


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="no pkg-config here")
def test_pkg_config_finds_the_headers() -> None:
    folder = succeed(CONFIG, "--pkg-config-dir").strip()
    flags = succeed("pkg-config", "--cflags", "moored", PKG_CONFIG_PATH=folder).strip()
    assert Path(flags.removeprefix("-I"), "moored", "moored.hpp").is_file()
    version = succeed("pkg-config", "--modversion", "moored", PKG_CONFIG_PATH=folder)
    assert version.strip() == moored.__version__


def documents() -> list[Path]:
    checkout = Path(__file__).resolve().parents[2]
    patterns = ("*.md", "docs/**/*.md", "python/**/*.py", "src/**/*.[ch]pp", "examples/**/*.py")
    return [path for pattern in patterns for path in checkout.glob(pattern)]


def test_nothing_is_installed_by_a_name_that_no_index_has() -> None:
    by_name = re.compile(r"pip3? install\s+(-\S+\s+)*['\"]?moored\b")
    assert [path for path in documents() if by_name.search(path.read_text("utf-8"))] == []


def test_documents_agree_about_builds_without_a_gil() -> None:
    refused = re.compile(r"(GIL-free|without a GIL|free-threaded)[^.|]*[.|]?[^.|]*not supported")
    assert [path for path in documents() if refused.search(path.read_text("utf-8"))] == []
