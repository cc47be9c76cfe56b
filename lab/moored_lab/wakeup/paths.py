"""Paths: where the lab's native programs and libraries are."""

from __future__ import annotations

from pathlib import Path

import moored_lab


def installed(name: str) -> Path:
    """Return where the build has put it, or raise FileNotFoundError.

    An editable install has the package in two folders: the sources, and what was built.
    """
    for folder in moored_lab.__path__:
        path = Path(folder, name).resolve()
        if path.exists():
            return path
    raise FileNotFoundError(f"moored-lab was installed without its {name}; install it again")


def load_sender() -> Path:
    """Return the path of the load sender's executable."""
    return installed("bin/load")
