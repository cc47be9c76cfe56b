"""Page: one HTML file that shows a recording, offline and without a single request."""

from __future__ import annotations

from .html import export

__all__ = ["export"]
