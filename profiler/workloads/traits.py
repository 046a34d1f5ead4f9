"""What the kernels say about an op's memory, remembered: planning a step asks for it hundreds of times."""

from __future__ import annotations

from functools import lru_cache

from profiler.ops import Add, BufferSpec, Op, Pass, Relu

_CACHED_OPS = 1 << 16


@lru_cache(maxsize=_CACHED_OPS)
def buffers_of(op: Op) -> tuple[BufferSpec, ...]:
    """The op's buffers, scratch left out."""
    return op.buffers()


@lru_cache(maxsize=_CACHED_OPS)
def scratch_bytes(op: Op) -> int:
    """Bytes of scratch that the op's kernel wants."""
    try:
        from profiler import kernels  # noqa: PLC0415 - not written yet
    except ImportError:
        return 0
    return kernels.scratch_bytes(op)


@lru_cache(maxsize=_CACHED_OPS)
def in_place(op: Op) -> dict[int, int]:
    """Written buffer to the read buffer whose memory it may take over, by index."""
    try:
        from profiler import kernels  # noqa: PLC0415 - not written yet
    except ImportError:
        if isinstance(op.geometry, Relu):
            return {1: 0} if op.pass_ is Pass.FORWARD else {2: 1}
        return {2: 0} if isinstance(op.geometry, Add) else {}
    return kernels.in_place(op)
