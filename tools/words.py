"""Checks the words of comments, docstrings, messages and pages: a subject names a thing.

A sentence says "the runner" or "a sender that holds the GIL", never a pronoun for a person.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PERSONS = re.compile(
    r"\b(who|whom|whoever|somebody|someone|nobody|no one|anybody|anyone|everybody|everyone)\b",
    re.IGNORECASE,
)
TEXT = {".c", ".cpp", ".h", ".hpp", ".md", ".py", ".pyi", ".pyx", ".rs", ".sh", ".toml", ".txt"}
SELF = "tools/words.py"
FOLDERS = ("docs", "examples", "include", "lab", "python", "src", "tests", "tools", ".")


def files() -> list[str]:
    """Return the files of the checkout that hold text of ours; what builds leave does not count."""
    found = [
        path.relative_to(CHECKOUT)
        for folder in FOLDERS
        for path in sorted((CHECKOUT / folder).glob("*" if folder == "." else "**/*"))
        if path.is_file()
    ]
    paths = [path for path in found if "build" not in path.parts]
    return [str(p) for p in paths if p.suffix in TEXT or p.name in ("Makefile", "CMakeLists.txt")]


def main() -> int:
    """Name each line with such a word; exit code 1 when there is one."""
    found = 0
    for name in files():
        path = CHECKOUT / name
        if name == SELF:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if PERSONS.search(line):
                found += 1
                print(f"{name}:{number}: {line.strip()}")
    if found:
        print(f"{found} lines speak of persons: name the thread, the caller or the user instead")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
