"""Symbols: the function that an address in a library lies in, found fast and kept."""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress

from .demangle import demangle
from .elf import ElfFile, NotElf, Section
from .recording import Frame

DEBUG_FILES = "/usr/lib/debug/.build-id"
"""Where distributions put the symbols that they strip off, by build-id."""

_SYMBOL_BYTES = 24
_FUNCTIONS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC


class SymbolTable:
    """The functions of one file, in the order of their addresses; the file is not needed any more.

    A process may have more libraries than a process may have open files.
    """

    def __init__(self, file: ElfFile, table: Section) -> None:
        self._strings = file.strings_of(table)
        whole = table.size - table.size % _SYMBOL_BYTES
        with (
            memoryview(file.map) as view,
            view[table.offset : table.offset + whole] as rows,
            rows.cast("Q") as numbers,
        ):
            # Each symbol is three numbers: name, kind and section in one; address; size.
            heads, addresses = numbers[0::3].tolist(), numbers[1::3].tolist()
            sizes = numbers[2::3].tolist()
        functions = [
            at for at, head in enumerate(heads) if (head >> 32) & 15 in _FUNCTIONS and head >> 48
        ]
        functions.sort(key=lambda at: (addresses[at], sizes[at]))
        self._addresses = [addresses[at] for at in functions]
        self._sizes = [sizes[at] for at in functions]
        self._names = [heads[at] & 0xFFFFFFFF for at in functions]

    def __len__(self) -> int:
        return len(self._addresses)

    def find(self, address: int) -> tuple[str, int] | None:
        """Return the demangled name of the function there, and where it begins."""
        at = bisect_right(self._addresses, address) - 1
        if at < 0:
            return None
        start, size = self._addresses[at], self._sizes[at]
        if size and address >= start + size:
            return None
        name = self._names[at]
        end = self._strings.find(b"\0", name)
        return demangle(self._strings[name : max(end, name)].decode("utf-8", "replace")), start


class Symbols:
    """The symbol tables of the files that were asked for, and every answer that was given."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, str], SymbolTable | None] = {}
        self._frames: dict[tuple[str, int, str], Frame] = {}

    def frame(self, module: str, offset: int, build_id: str = "") -> Frame:
        """Name a return address.

        `offset` is the address less the module's load bias: dlpi_addr of
        dl_iterate_phdr. The call lies before the address that it returns to, and so in the function
        of the byte before.
        A file that is gone, or another than the one that ran, gives no name.
        """
        key = module, offset, build_id
        if key not in self._frames:
            found = self._find(module, offset - 1, build_id)
            symbol, start = found or ("", 0)
            self._frames[key] = Frame(module, symbol, offset - start, build_id)
        return self._frames[key]

    def _find(self, module: str, address: int, build_id: str) -> tuple[str, int] | None:
        key = module, build_id
        if key not in self._tables:
            self._tables[key] = _table(module, build_id)
        table = self._tables[key]
        return table.find(address) if table else None


def _table(module: str, build_id: str) -> SymbolTable | None:
    """Return the fullest table that there is: the file's own, the stripped-off one, the exports."""
    paths = [(module, ".symtab"), (_debug_file(build_id), ".symtab"), (module, ".dynsym")]
    for path, name in paths:
        with suppress(NotElf), ElfFile(path) as file:
            section = file.section(name)
            if section and (not build_id or file.build_id() == build_id):
                return SymbolTable(file, section)
    return None


def _debug_file(build_id: str) -> str:
    return os.path.join(DEBUG_FILES, build_id[:2], build_id[2:] + ".debug")
