"""Places: where the package's native parts and headers are."""

from __future__ import annotations

from pathlib import Path

import moored


def installed(name: str) -> Path:
    """Return where the build has put it, or raise FileNotFoundError.

    An editable install has the package in two folders: the sources, and what was built.
    """
    for folder in moored.__path__:
        path = Path(folder, name).resolve()
        if path.exists():
            return path
    raise FileNotFoundError(f"moored was installed without its {name}; install it again")
