"""ELF: what a 64-bit little-endian library or program says of itself: symbols, needs, build-id."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

SHT_NOBITS = 8
SHF_ALLOC = 2
DT_NEEDED = 1
NT_GNU_BUILD_ID = 3

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_NOTE = struct.Struct("<III")

_PIECE = 4 << 20
"""So much of a file is searched at a time."""


class NotElf(Exception):
    """The file is no ELF file that can be read here."""


@dataclass(frozen=True)
class Section:
    """A section's place in the file."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int


class ElfFile:
    """An open file, mapped; sections that are not there are empty."""

    def __init__(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise NotElf(f"{path}: {error}") from error
        try:
            self.sections = self._read_sections()
        except (struct.error, IndexError, OverflowError, ValueError) as error:
            self.map.close()
            raise NotElf(f"{path}: not a 64-bit little-endian ELF file") from error

    def __enter__(self) -> ElfFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file, unless something still looks into it."""
        with suppress(BufferError):
            self.map.close()

    def _read_sections(self) -> list[Section]:
        header = _HEADER.unpack_from(self.map)
        if header[0][:6] != b"\x7fELF\x02\x01":
            raise IndexError
        start, entry, names_at = header[6], header[11], header[13]
        number = header[12] if start else 0
        rows = [_SECTION.unpack_from(self.map, start + at * entry) for at in range(number)]
        names = rows[names_at][4] if names_at < len(rows) else 0
        return [
            Section(self.text(names + row[0]), row[1], row[2], row[4], row[5], row[6])
            for row in rows
        ]

    def text(self, offset: int) -> str:
        """Return the text that stands there, up to its zero byte."""
        end = self.map.find(b"\0", offset)
        return self.map[offset : max(end, offset)].decode("utf-8", "replace")

    def section(self, name: str) -> Section | None:
        """Return a section that has contents in the file."""
        for section in self.sections:
            if section.name == name and section.kind != SHT_NOBITS and self._is_inside(section):
                return section
        return None

    def _is_inside(self, section: Section) -> bool:
        return section.size > 0 and section.offset + section.size <= len(self.map)

    def _strings_at(self, section: Section) -> int:
        """Return where the strings of a table begin in the file."""
        return self.sections[section.link].offset if section.link < len(self.sections) else 0

    def strings_of(self, section: Section) -> bytes:
        """Return the strings of a table."""
        if section.link >= len(self.sections):
            return b""
        strings = self.sections[section.link]
        return self.map[strings.offset : strings.offset + strings.size]

    def exported(self) -> Iterator[str]:
        """Iterate over the names of the symbols that others may bind to."""
        table = self.section(".dynsym")
        if table is None:
            return
        names = self._strings_at(table)
        size = table.size - table.size % _SYMBOL.size
        with memoryview(self.map) as view, view[table.offset : table.offset + size] as rows:
            symbols = list(_SYMBOL.iter_unpack(rows))
        for name, info, _, section, _, _ in symbols:
            if section and info >> 4:
                yield self.text(names + name)

    def needed(self) -> list[str]:
        """Return the libraries that it asks the loader for."""
        table = self.section(".dynamic")
        if table is None:
            return []
        names = self._strings_at(table)
        size = table.size - table.size % _DYNAMIC.size
        rows = _DYNAMIC.iter_unpack(self.map[table.offset : table.offset + size])
        return [self.text(names + value) for tag, value in rows if tag == DT_NEEDED]

    def build_id(self) -> str:
        """Return the build-id in hexadecimal; empty when it has none."""
        note = self.section(".note.gnu.build-id")
        if note is None or note.size < _NOTE.size:
            return ""
        name, size, kind = _NOTE.unpack_from(self.map, note.offset)
        start = note.offset + _NOTE.size + (name + 3 & ~3)
        return self.map[start : start + size].hex() if kind == NT_GNU_BUILD_ID else ""

    def which(self, words: Iterable[bytes]) -> set[bytes]:
        """Return those of the words that stand in what is loaded, debug information left out."""
        missing = set(words)
        found: set[bytes] = set()
        overlap = max(map(len, missing), default=1) - 1
        loaded = [
            section.offset + section.size
            for section in self.sections
            if section.flags & SHF_ALLOC and section.kind != SHT_NOBITS
        ]
        end = min(max(loaded, default=len(self.map)), len(self.map))
        for start in range(0, end, _PIECE):
            piece = self.map[start : min(start + _PIECE + overlap, end)]
            found |= {word for word in missing if word in piece}
            missing -= found
            if not missing:
                break
        return found
