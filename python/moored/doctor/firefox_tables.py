"""Firefox tables: a thread's stacks, frames and functions in the profiler's processed format."""

from __future__ import annotations

from typing import Any

from .recording import Frame

NATIVE, WAITING = 1, 2
"""Categories, as their places in the list of the document."""

LIBRARY = 1
"""A kind of resource."""


_UNKNOWN_OF_FRAMES = ("nativeSymbol", "innerWindowID", "implementation", "line", "column")
_UNKNOWN_OF_FUNCTIONS = ("fileName", "source", "lineNumber", "columnNumber")


class Strings:
    """Texts that are told by their number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a text, a new one if need be."""
        return self._numbers.setdefault(text, len(self._numbers))

    def array(self) -> list[str]:
        """Return the texts in the order of their numbers."""
        return list(self._numbers)


class Libraries:
    """The libraries that frames lie in."""

    def __init__(self, architecture: str) -> None:
        self._architecture = architecture
        self._numbers: dict[tuple[str, str], int] = {}

    def number(self, frame: Frame) -> int:
        """Return the number of a frame's library."""
        return self._numbers.setdefault((frame.module, frame.build_id), len(self._numbers))

    def array(self) -> list[dict[str, Any]]:
        """Return the list of the document."""
        return [
            {
                "arch": self._architecture,
                "name": module.rpartition("/")[2],
                "path": module,
                "debugName": module.rpartition("/")[2],
                "debugPath": module,
                "breakpadId": "",
                "codeId": build_id or None,
            }
            for module, build_id in self._numbers
        ]


class Tables:
    """What one thread's stacks refer to."""

    def __init__(self, strings: Strings, libraries: Libraries) -> None:
        self._strings = strings
        self._libraries = libraries
        self._resources: dict[int, str] = {}
        self._functions: dict[tuple[int, int | None], int] = {}
        self._frames: dict[tuple[int, int], int] = {}
        self._stacks: dict[tuple[int, int | None], int] = {}

    def stack(self, name: str, frame: Frame | None, prefix: int | None, category: int) -> int:
        """Return the number of the stack that `prefix` becomes with one more frame."""
        resource = None
        if frame is not None:
            resource = self._libraries.number(frame)
            self._resources.setdefault(resource, frame.module.rpartition("/")[2] or "?")
        key = self._strings.number(name), resource
        function = self._functions.setdefault(key, len(self._functions))
        placed = self._frames.setdefault((function, category), len(self._frames))
        return self._stacks.setdefault((placed, prefix), len(self._stacks))

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Return the tables of the thread."""
        of_library = {library: at for at, library in enumerate(self._resources)}
        functions, frames, stacks = list(self._functions), list(self._frames), list(self._stacks)
        return {
            "stackTable": {
                "frame": [frame for frame, _ in stacks],
                "prefix": [prefix for _, prefix in stacks],
                "category": [frames[frame][1] for frame, _ in stacks],
                "subcategory": [0] * len(stacks),
                "length": len(stacks),
            },
            "frameTable": {
                "address": [-1] * len(frames),
                "inlineDepth": [0] * len(frames),
                "category": [category for _, category in frames],
                "subcategory": [0] * len(frames),
                "func": [function for function, _ in frames],
                **{name: [None] * len(frames) for name in _UNKNOWN_OF_FRAMES},
                "length": len(frames),
            },
            "funcTable": {
                "name": [name for name, _ in functions],
                "isJS": [False] * len(functions),
                "relevantForJS": [False] * len(functions),
                "resource": [-1 if one is None else of_library[one] for _, one in functions],
                **{name: [None] * len(functions) for name in _UNKNOWN_OF_FUNCTIONS},
                "length": len(functions),
            },
            "resourceTable": {
                "lib": list(self._resources),
                "name": [self._strings.number(name) for name in self._resources.values()],
                "host": [None] * len(self._resources),
                "type": [LIBRARY] * len(self._resources),
                "length": len(self._resources),
            },
            "nativeSymbols": {
                **{name: [] for name in ("libIndex", "address", "name", "functionSize")},
                "length": 0,
            },
        }
