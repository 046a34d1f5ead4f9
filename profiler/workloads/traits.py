"""What an op's buffers are, remembered: planning a step asks for it hundreds of times."""

from __future__ import annotations

from functools import lru_cache

from profiler.kernels import in_place, scratch_bytes, trailing
from profiler.ops import BufferSpec, Op

__all__ = ["buffers_of", "in_place", "op_of", "scratch_bytes", "trailing"]

#: An op of these fields, the same object as before: most ops of a step were ops of others.
op_of = lru_cache(maxsize=1 << 16)(Op)


@lru_cache(maxsize=1 << 16)
def buffers_of(op: Op) -> tuple[BufferSpec, ...]:
    """The op's buffers, scratch left out."""
    return op.buffers()
