"""Time limits. They end what hangs, and say nothing of how long anything may take.

So they are far longer than anything takes, also on a machine that is busy with other things.
"""

from __future__ import annotations

HANG_S = 300
"""A process that runs, or one answer of it."""

BUILD_S = 900
"""A compiler or a build."""
