"""Paths: where the lab's native parts are, and one clear line when they were not built."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from moored._places import installed

NOT_BUILT = (
    "the lab was not built into this installation: apt install libasio-dev node-llhttp "
    "(or libllhttp-dev) and reinstall moored"
)


class NotBuilt(ImportError):
    """The lab is not in this installation; the message says what to do."""

    def __init__(self) -> None:
        super().__init__(NOT_BUILT)


def native() -> ModuleType:
    """Return the module of the native server, or raise NotBuilt."""
    try:
        return importlib.import_module("moored._lab")
    except ModuleNotFoundError as error:
        if error.name != "moored._lab":
            raise
        raise NotBuilt from error


def load_sender() -> Path:
    """Return the path of the load sender's executable, or raise NotBuilt."""
    try:
        return installed("lab/bin/load")
    except FileNotFoundError as error:
        raise NotBuilt from error
