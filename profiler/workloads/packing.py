"""Packing: blocks of memory, each taken for some time, beside and above one another with the lowest peak.

Finding the lowest is hard in general; a few greedy orders are tried, then orders near the best by annealing, and the
search stops at the first that reaches the largest sum of blocks alive at once, below which nothing can go.

Most blocks of a training step live where memory is far from full, and find room wherever the others lie. Those are set
aside first, as registers' allocators do with values that have few neighbours (Chaitin et al. 1981), so that only the
rest has to be tried.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

#: Every buffer starts at a multiple of this: the low bits of a reference are its region.
ALIGNMENT_BYTES = 16


def aligned(byte_count: int) -> int:
    """``byte_count`` rounded up to the arena's alignment."""
    return -(-byte_count // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class Rectangle(NamedTuple):
    """Bytes that are taken for some ops: ``size`` bytes from ``offset`` on, from op ``start`` to op ``stop``."""

    offset: int
    size: int
    start: int
    stop: int


@dataclass
class Block:
    """Memory that is placed as one: a tensor, and those that take over its bytes one after the other.

    Attributes:
        rectangles: What is taken and when; offsets are from the block's beginning. Those of one block may overlap,
            where an op writes one tensor over another.
        offsets: Of the tensors, by name, from the block's beginning; none for scratch.
        longest_life: Ops of the longest-lived tensor.
    """

    rectangles: list[Rectangle]
    offsets: dict[str, int]
    longest_life: int

    @classmethod
    def of(cls, size: int, start: int, stop: int, name: str | None = None) -> Block:
        """A block of one tensor, or of scratch."""
        return cls([Rectangle(0, size, start, stop)], {} if name is None else {name: 0}, stop - start)

    # Most blocks are one rectangle, and are asked for these thousands of times.

    @property
    def byte_count(self) -> int:
        if len(self.rectangles) == 1:
            return self.rectangles[0].size
        return max(r.offset + r.size for r in self.rectangles)

    @property
    def start(self) -> int:
        if len(self.rectangles) == 1:
            return self.rectangles[0].start
        return min(r.start for r in self.rectangles)

    @property
    def stop(self) -> int:
        if len(self.rectangles) == 1:
            return self.rectangles[0].stop
        return max(r.stop for r in self.rectangles)

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
        shift = max(0, -offset)
        if shift:
            self.rectangles = [r._replace(offset=r.offset + shift) for r in self.rectangles]
            self.offsets = {tensor: at + shift for tensor, at in self.offsets.items()}
            offset = 0
        self.offsets[name] = offset
        self.longest_life = max(self.longest_life, stop - start)
        for i, r in enumerate(self.rectangles):
            if (r.offset, r.size) == (offset, size) and r.start <= start <= r.stop:
                self.rectangles[i] = r._replace(stop=max(r.stop, stop))
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


def pack(blocks: Sequence[Block], *, searches: int = 0) -> tuple[list[int], int, int]:
    """Offsets such that no two blocks overlap in both time and memory.

    Args:
        blocks: What to place.
        searches: How many random changes of the order are tried where the bound is not reached; always the same.

    Returns:
        The offset of each block, the peak, and the lower bound of any peak (with sizes rounded up to the alignment).
    """
    bound = largest_sum(blocks)
    if not blocks:
        return [], 0, bound
    core, aside = set_aside(blocks, bound)
    _, peak, order = _by_greedy_orders([blocks[i] for i in core], bound)
    fit = BestFit(blocks)
    if aligned(peak) <= bound:
        offsets, peak = fit.place([*(core[i] for i in order), *aside])
        return offsets, peak, bound
    best, best_peak, _ = _by_greedy_orders(blocks, bound, fit)
    if searches and aligned(best_peak) > bound:
        for seed in range(_RESTARTS):
            found, found_peak = _anneal(blocks, fit, searches // _RESTARTS, bound, seed)
            if found_peak < best_peak:
                best, best_peak = found, found_peak
    return best, best_peak, bound


def packed_bytes(blocks: Sequence[Block]) -> tuple[int, int]:
    """Peak and bound of :func:`pack` without searches, for less work: nothing gets an offset."""
    bound = largest_sum(blocks)
    if not blocks:
        return 0, bound
    core, _ = set_aside(blocks, bound)
    _, peak, _ = _by_greedy_orders([blocks[i] for i in core], bound)
    if aligned(peak) > bound:
        _, peak, _ = _by_greedy_orders(blocks, bound)
    return peak, bound


def set_aside(blocks: Sequence[Block], bound: int) -> tuple[list[int], list[int]]:
    """Part blocks into those that must be tried and those that find room below the others' peak wherever these lie.

    Among ``n`` neighbours the memory that a block finds free is in ``n + 1`` pieces at most, of which the largest is at
    least their mean. What is found to have room is no neighbour to think of any more, which may give room to others.

    Args:
        blocks: All of them.
        bound: Their largest sum.

    Returns:
        Numbers of those to be tried, in order, and of the others in the order in which they are to be put into the
        gaps.
    """
    starts = np.array([block.start for block in blocks])
    ends = np.array([block.stop for block in blocks]) + 1
    sizes = np.array([aligned(block.byte_count) for block in blocks])
    times = int(ends.max()) + 1
    core, aside = np.arange(len(blocks)), np.array([], dtype=int)
    while len(core):
        start, end, size = starts[core], ends[core], sizes[core]
        # Neighbours are those that began before a block's end, less those that had ended by its start.
        begun, over = (np.cumsum(np.bincount(when, minlength=times)) for when in (start, end))
        begun_bytes, over_bytes = (np.cumsum(np.bincount(when, size, times)) for when in (start, end))
        neighbours = begun[end - 1] - over[start] - 1
        # The others' peak is above this: the sizes of those that make up the bound are rounded up by less.
        free = bound - ALIGNMENT_BYTES - (begun_bytes[end - 1] - over_bytes[start] - size)
        has_room = free > (neighbours + 1) * (size - ALIGNMENT_BYTES)
        if not has_room.any():
            break
        aside = np.concatenate([core[has_room], aside])
        core = core[~has_room]
    return core.tolist(), aside.tolist()


def _by_greedy_orders(
    blocks: Sequence[Block], bound: int, fit: BestFit | None = None
) -> tuple[list[int], int, list[int]]:
    """The best of some orders, or the first that reaches the bound: offsets, peak, and the order itself."""
    fit = fit or BestFit(blocks)
    best: list[int] = []
    best_peak = -1
    best_order: list[int] = []
    for key in _ORDERS:
        order = sorted(range(len(blocks)), key=lambda i: key(blocks[i]))
        offsets, peak = fit.place(order)
        if best_peak < 0 or peak < best_peak:
            best, best_peak, best_order = offsets, peak, order
        if aligned(best_peak) <= bound:
            return best, best_peak, best_order
    # What sticks out at the top came too late: give it the first choice and try again.
    order, offsets, peak = best_order, best, best_peak
    for _ in range(_REPAIRS):
        highest = [i for i in order if offsets[i] + fit.byte_counts[i] == peak]
        order = highest + [i for i in order if i not in highest]
        offsets, peak = fit.place(order)
        if peak < best_peak:
            best, best_peak, best_order = offsets, peak, order
        if aligned(best_peak) <= bound:
            break
    return best, best_peak, best_order


def _anneal(blocks: Sequence[Block], fit: BestFit, searches: int, bound: int, seed: int) -> tuple[list[int], int]:
    """Simulated annealing over the order in which blocks are placed (Kirkpatrick et al. 1983): a change is kept where
    it is no worse, and at first often where it is."""
    rng = random.Random(seed)
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].longest_life, -blocks[i].byte_count))
    offsets, peak = fit.place(order)
    best, best_peak = offsets, peak
    for step in range(searches):
        if aligned(best_peak) <= bound:
            break
        changed = list(order)
        i, j = rng.randrange(len(changed)), rng.randrange(len(changed))
        if rng.random() < _SHARE_OF_SWAPS:
            changed[i], changed[j] = changed[j], changed[i]
        else:
            changed.insert(j, changed.pop(i))
        temperature = 0.03 * best_peak * (1 - step / searches) + 1
        found = fit.replace(changed, min(i, j), (order[i], order[j]), offsets, _Acceptance(rng, peak, temperature))
        if found is None:
            continue
        order, (offsets, peak) = changed, found
        if peak < best_peak:
            best, best_peak = offsets, peak
    return best, best_peak


class _Acceptance:
    """Whether annealing keeps a change, asked as soon as part of it is placed: a peak only rises.

    Args:
        rng: Drawn from once, for changes that are worse.
        peak: Before the change.
        temperature: In bytes.
    """

    def __init__(self, rng: random.Random, peak: int, temperature: float) -> None:
        self._rng, self._peak, self._temperature = rng, peak, temperature
        self._drawn: float | None = None

    def __call__(self, peak: int) -> bool:
        if peak <= self._peak:
            return True
        if self._drawn is None:
            self._drawn = self._rng.random()
        return self._drawn < math.exp((self._peak - peak) / self._temperature)


_SHARE_OF_SWAPS = 0.5
#: Tried for plans that ask for savings of memory; some seconds.
SEARCHES = 1800
#: Searches from the same beginning: one may end far from the best.
_RESTARTS = 3

#: How often a packing above the lower bound is tried again with another order.
_REPAIRS = 12

#: Large blocks first is good where sizes differ much; long-lived first where they outlast many others; by size times
#: duration between the two; in order of birth for chains.
_ORDERS: tuple[Callable[[Block], tuple], ...] = (
    lambda b: (-b.byte_count, b.start),
    lambda b: (b.start - b.stop, -b.byte_count),
    lambda b: (-b.byte_count * (b.stop - b.start + 1), b.start),
    lambda b: (b.start, -b.byte_count),
)


def largest_sum(blocks: Sequence[Block]) -> int:
    """Of bytes that blocks take at once, sizes rounded up: no peak is lower."""
    return int(bytes_over_time(blocks).max(initial=0))


def bytes_over_time(blocks: Sequence[Block]) -> np.ndarray:
    """Bytes taken while each op runs, up to the last that takes any, sizes rounded up; shape (ops,)."""
    starts, ends, taken = [], [], []
    for block in blocks:
        if len(block.rectangles) == 1:
            _, size, start, stop = block.rectangles[0]
            starts.append(start)
            ends.append(stop + 1)
            taken.append(aligned(size))
            continue
        # What a block takes changes only where one of its tensors begins, or has ended.
        times = sorted({t for r in block.rectangles for t in (r.start, r.stop + 1)})
        starts += times[:-1]
        ends += times[1:]
        taken += map(block.bytes_at, times[:-1])
    if not blocks:
        return np.zeros(0, dtype=int)
    begun, over = (np.bincount(when, taken, max(ends) + 1) for when in (starts, ends))
    return np.cumsum(begun - over)[:-1].astype(int)


class BestFit:
    """Puts each block, in a given order, into the smallest gap between those already there; else on top of them.

    Args:
        blocks: What to place. Which of them meet in time, and how far apart they must lie then, is worked out once.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.byte_counts = [block.byte_count for block in blocks]
        #: Of each block, for every pair of rectangles that meet in time: the other block, and strictly between what
        #: distances above its offset this one may not begin.
        self._near: list[list[tuple[int, int, int]]] = [[] for _ in blocks]
        starts, stops = [block.start for block in blocks], [block.stop for block in blocks]
        #: Rounded up, of blocks of one tensor; the others' tensors are looked at one by one.
        sizes = [aligned(b.rectangles[0].size) if len(b.rectangles) == 1 else 0 for b in blocks]
        alive: list[int] = []
        for a in sorted(range(len(blocks)), key=lambda i: starts[i]):
            alive = [b for b in alive if stops[b] >= starts[a]]
            size, near = sizes[a], self._near[a]
            for b in alive:
                if size and sizes[b]:
                    near.append((b, -size, sizes[b]))
                    self._near[b].append((a, -sizes[b], size))
                else:
                    self._add(a, blocks[a], b, blocks[b])
            alive.append(a)

    @cached_property
    def _met(self) -> list[set[int]]:
        """Of each block those that it meets in time."""
        return [{other for other, *_ in near} for near in self._near]

    def _add(self, a: int, block: Block, b: int, other: Block) -> None:
        near, of_other = self._near[a], self._near[b]
        for at, size, start, stop in block.rectangles:
            for other_at, other_size, other_start, other_stop in other.rectangles:
                if other_start <= stop and start <= other_stop:
                    below = other_at - at - aligned(size)
                    above = other_at + aligned(other_size) - at
                    near.append((b, below, above))
                    of_other.append((a, -above, -below))

    def place(self, order: Sequence[int]) -> tuple[list[int], int]:
        """The offset of each block, and the peak."""
        offsets = [-1] * len(order)
        for index in order:
            offsets[index] = self._lowest(index, offsets)
        return offsets, max((o + size for o, size in zip(offsets, self.byte_counts, strict=True)), default=0)

    def replace(
        self, order: Sequence[int], first: int, moved: Sequence[int], known: Sequence[int], go_on: Callable[[int], bool]
    ) -> tuple[list[int], int] | None:
        """The same of another order than one that is known: only what a change reaches is placed anew.

        Args:
            order: The order.
            first: Place in it before which nothing changed.
            moved: Blocks, among them all that stand elsewhere to those that they meet in time.
            known: Offsets by the other order.
            go_on: Asked of every peak that a part of the blocks reaches, rising.

        Returns:
            What :meth:`place` does; None where ``go_on`` said no.
        """
        offsets = [-1] * len(order)
        peak = 0
        for index in order[:first]:
            offsets[index] = known[index]
            peak = max(peak, known[index] + self.byte_counts[index])
        changed = bytearray(len(order))
        for index in moved:
            changed[index] = 1
            for other in self._met[index]:
                changed[other] = 1
        for index in order[first:]:
            at = known[index]
            if changed[index] and (anew := self._lowest(index, offsets)) != at:
                at = anew
                for other in self._met[index]:
                    changed[other] = 1
            offsets[index] = at
            if at + self.byte_counts[index] > peak:
                peak = at + self.byte_counts[index]
                if not go_on(peak):
                    return None
        return offsets, peak

    def _lowest(self, index: int, offsets: Sequence[int]) -> int:
        """Where a block goes with those there that have an offset; -1 stands for none."""
        taken = [(o + low, o + high) for other, low, high in self._near[index] if (o := offsets[other]) >= 0]
        taken.sort()
        free_from, best_gap, best = 0, -1, -1
        for begin, end in taken:
            gap = begin - free_from
            if gap >= 0 and (best_gap < 0 or gap < best_gap):
                best_gap, best = gap, free_from
            free_from = max(free_from, end)
        return free_from if best_gap < 0 else best
