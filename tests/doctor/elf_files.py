"""ELF files made by hand: exports, needs, strings, symbols, in as many bytes as a test wants."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

BUILD_ID = bytes.fromhex("c0ffee00112233445566778899aabbccddeeff00")


def _strings(names: Sequence[str]) -> tuple[bytes, list[int]]:
    content, places = bytearray(b"\0"), []
    for name in names:
        places.append(len(content))
        content += name.encode() + b"\0"
    return bytes(content), places


def write(
    path: Path,
    *,
    exports: Sequence[str] = (),
    imports: Sequence[str] = (),
    needed: Sequence[str] = (),
    text: bytes = b"",
    debug: bytes = b"",
    functions: Sequence[tuple[str, int, int]] = (),
    padding: int = 0,
) -> Path:
    """Write a shared library; `functions` are those of .symtab: name, address, size."""
    dynamic_strings, places = _strings([*exports, *imports, *needed])
    exported = b"".join(
        struct.pack("<IBBHQQ", place, 0x12, 0, 1 if at < len(exports) else 0, 0x1000 + 16 * at, 16)
        for at, place in enumerate(places[: len(exports) + len(imports)])
    )
    wanted = b"".join(
        struct.pack("<qQ", 1, place) for place in places[len(exports) + len(imports) :]
    )
    note = struct.pack("<III4s", 4, len(BUILD_ID), 3, b"GNU\0") + BUILD_ID
    local_strings, local_places = _strings([name for name, _, _ in functions])
    symbols = b"".join(
        struct.pack("<IBBHQQ", place, 0x02, 0, 1, address, size)
        for place, (_, address, size) in zip(local_places, functions, strict=True)
    )
    sections: list[tuple[str, int, int, bytes, int]] = [
        ("", 0, 0, b"", 0),
        (".dynstr", 3, 2, dynamic_strings, 0),
        (".dynsym", 11, 2, exported, 1),
        (".dynamic", 6, 2, wanted + bytes(16), 1),
        (".note.gnu.build-id", 7, 2, note, 0),
        (".rodata", 1, 2, text + bytes(padding), 0),
        (".debug_str", 1, 0, debug, 0),
        (".strtab", 3, 0, local_strings, 0),
        (".symtab", 2, 0, symbols, 7),
    ]
    names, name_places = _strings([name for name, *_ in sections] + [".shstrtab"])
    sections.append((".shstrtab", 3, 0, names, 0))
    content, rows = bytearray(64), b""
    for place, (_, kind, flags, data, link) in zip(name_places, sections, strict=True):
        content += bytes(-len(content) % 8)
        rows += struct.pack(
            "<IIQQQQIIQQ", place, kind, flags, 0, len(content), len(data), link, 0, 8, 0
        )
        content += data
    content += bytes(-len(content) % 8)
    content[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        *(3, 62, 1, 0, 0, len(content), 0, 64, 56, 0, 64, len(sections), len(sections) - 1),
    )
    path.write_bytes(bytes(content) + rows)
    return path
