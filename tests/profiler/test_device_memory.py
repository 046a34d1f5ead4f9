"""Memory as devices measure it against what the planner says, to the byte; and arenas in regions of their own."""

from __future__ import annotations
