"""Where the consumers are, and how CMake finds the installed moored for them."""

from __future__ import annotations

from pathlib import Path

import moored

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent
FROM_WHEEL = f"-Dmoored_DIR={moored.get_cmake_dir()}"
