"""Blocks of memory, each taken for some time: what is packed into an arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np

_Bytes = TypeVar("_Bytes", int, np.ndarray)

#: Every buffer starts at a multiple of this: the low bits of a reference are its region.
ALIGNMENT_BYTES = 16


def aligned(byte_count: _Bytes) -> _Bytes:
    """``byte_count`` rounded up to the arena's alignment."""
    return -(-byte_count // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class Rectangle(NamedTuple):
    """Bytes that are taken for some ops: ``size`` bytes from ``offset`` on, from op ``start`` to op ``stop``."""

    offset: int
    size: int
    start: int
    stop: int


class Block:
    """Memory that is placed as one: a tensor, and those that take over its bytes one after the other.

    Args:
        size: Bytes of the first tensor, or of scratch.
        start: The op from which on it is there.
        stop: The op up to which it is.
        name: Of the tensor; None for scratch.

    Attributes:
        byte_count: Of all of it.
        start, stop: The first and the last op that need any of it.
        rectangles: What is taken and when; offsets are from the block's beginning. Those of one block may overlap,
            where an op writes one tensor over another.
        offsets: Of the tensors, by name, from the block's beginning; none for scratch.
        longest_life: Ops of the longest-lived tensor.
    """

    __slots__ = ("byte_count", "longest_life", "offsets", "rectangles", "start", "stop")

    def __init__(self, size: int, start: int, stop: int, name: str | None = None) -> None:
        self.byte_count, self.start, self.stop, self.longest_life = size, start, stop, stop - start
        self.rectangles = [Rectangle(0, size, start, stop)]
        self.offsets = {} if name is None else {name: 0}

    def take_over(self, name: str, source: str, ahead: int, rectangle: tuple[int, int, int]) -> None:
        """Give ``name`` (size, start, stop) the bytes from ``ahead`` bytes before ``source`` on; the block grows.

        Args:
            name: The tensor.
            source: A tensor of the block, which lives until ``name`` is made.
            ahead: Bytes by which ``name`` begins before it.
            rectangle: Of ``name``.
        """
        size, start, stop = rectangle
        offset = self.offsets[source] - ahead
        if offset < 0:
            self.rectangles = [r._replace(offset=r.offset - offset) for r in self.rectangles]
            self.offsets = {tensor: at - offset for tensor, at in self.offsets.items()}
            self.byte_count -= offset
            offset = 0
        self.offsets[name] = offset
        self.longest_life = max(self.longest_life, stop - start)
        self.byte_count = max(self.byte_count, offset + size)
        self.stop = max(self.stop, stop)
        for i, (at, taken, begin, end) in enumerate(self.rectangles):
            if at == offset and taken == size and begin <= start <= end:
                self.rectangles[i] = Rectangle(at, taken, begin, max(end, stop))
                return
        self.rectangles.append(Rectangle(offset, size, start, stop))

    def bytes_at(self, op: int) -> int:
        """Bytes taken while an op runs, overlaps counted once and sizes rounded up."""
        if len(self.rectangles) == 1:
            only = self.rectangles[0]
            return aligned(only.size) if only.start <= op <= only.stop else 0
        total = end = 0
        for r in sorted(r for r in self.rectangles if r.start <= op <= r.stop):
            top = r.offset + aligned(r.size)
            total += max(0, top - max(end, r.offset))
            end = max(end, top)
        return total


class Extents(NamedTuple):
    """How far many blocks reach, arrays of shape (blocks,).

    Attributes:
        starts: The first op that needs each.
        ends: The first that does not any more.
        sizes: Bytes, rounded up.
    """

    starts: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Extents:
        starts = np.array([block.start for block in blocks], dtype=int)
        stops = np.array([block.stop for block in blocks], dtype=int)
        return cls(starts, stops + 1, aligned(np.array([block.byte_count for block in blocks], dtype=int)))


def bytes_over_time(blocks: Sequence[Block], extents: Extents | None = None) -> np.ndarray:
    """Bytes taken while each op runs, up to the last that takes any, sizes rounded up; shape (ops,).

    Args:
        blocks: All of them.
        extents: Theirs, where they are known.
    """
    starts, ends, sizes = extents or Extents.of(blocks)
    times = int(ends.max(initial=0)) + 1
    changes = np.bincount(starts, sizes, times) - np.bincount(ends, sizes, times)
    for block in blocks:
        if len(block.rectangles) == 1:
            continue
        # Not all of it is taken all the time: what is changes only where one of its tensors begins, or has ended.
        before, whole = 0, aligned(block.byte_count)
        for time in sorted({t for r in block.rectangles for t in (r.start, r.stop + 1)}):
            spare = whole - block.bytes_at(time) if time <= block.stop else 0
            changes[time] -= spare - before
            before = spare
    return np.cumsum(changes)[:-1].astype(int)


def largest_sum(blocks: Sequence[Block], extents: Extents | None = None) -> int:
    """Of bytes that blocks take at once, sizes rounded up: no peak is lower."""
    return int(bytes_over_time(blocks, extents).max(initial=0))
