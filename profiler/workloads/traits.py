"""What an op's buffers are, remembered: planning a step asks for it hundreds of times."""

from __future__ import annotations

from functools import lru_cache

from profiler.kernels import in_place, scratch_bytes, trailing
from profiler.ops import BufferSpec, Op

__all__ = ["buffers_of", "in_place", "scratch_bytes", "trailing"]


@lru_cache(maxsize=1 << 16)
def buffers_of(op: Op) -> tuple[BufferSpec, ...]:
    """The op's buffers, scratch left out."""
    return op.buffers()
