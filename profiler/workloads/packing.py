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
from functools import cached_property

import numpy as np

from profiler.workloads.blocks import ALIGNMENT_BYTES, Block, Extents, aligned, largest_sum


def pack(blocks: Sequence[Block], *, searches: int = 0) -> tuple[list[int], int, int]:
    """Offsets such that no two blocks overlap in both time and memory.

    Args:
        blocks: What to place.
        searches: How many random changes of the order are tried where the bound is not reached; always the same.

    Returns:
        The offset of each block, the peak, and the lower bound of any peak (with sizes rounded up to the alignment).
    """
    peak, bound, order = _first_order(blocks)
    fit = BestFit(blocks)
    offsets, _ = fit.place(order)
    if searches and aligned(peak) > bound:
        for seed in range(_RESTARTS):
            found, found_peak = _anneal(blocks, fit, searches // _RESTARTS, bound, seed)
            if found_peak < peak:
                offsets, peak = found, found_peak
    return offsets, peak, bound


def packed_bytes(blocks: Sequence[Block]) -> tuple[int, int]:
    """Peak and bound of :func:`pack` without searches, for less work: most blocks get no offset."""
    return _first_order(blocks)[:2]


def _first_order(blocks: Sequence[Block]) -> tuple[int, int, list[int]]:
    """Peak, bound and order: the best of some, or the first that reaches the bound."""
    extents = Extents.of(blocks)
    bound = largest_sum(blocks, extents)
    core, aside = set_aside(extents, bound)
    peak, order = _by_greedy_orders([blocks[i] for i in core], bound)
    return peak, bound, [*(core[i] for i in order), *aside]


def set_aside(extents: Extents, bound: int) -> tuple[list[int], list[int]]:
    """Part blocks into those that must be tried and those that find room below the others' peak wherever these lie.

    Among ``n`` neighbours the memory that a block finds free is in ``n + 1`` pieces at most, of which the largest is at
    least their mean. What is found to have room is no neighbour to think of any more, which may give room to others.

    Args:
        extents: Of all of them.
        bound: Their largest sum.

    Returns:
        Numbers of those to be tried, in order, and of the others in the order in which they are to be put into the
        gaps.
    """
    starts, ends, sizes = extents
    times = int(ends.max(initial=0)) + 1
    core, aside = np.arange(len(starts)), np.array([], dtype=int)
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


def _by_greedy_orders(blocks: Sequence[Block], bound: int) -> tuple[int, list[int]]:
    """Peak and order of blocks none of which is set aside."""
    fit = BestFit(blocks)
    best_peak, best_order, of_best = -1, [], []
    for key in _ORDERS:
        order = sorted(range(len(blocks)), key=lambda i: key(blocks[i]))
        offsets, peak = fit.place(order)
        if best_peak < 0 or peak < best_peak:
            best_peak, best_order, of_best = peak, order, offsets
        if aligned(best_peak) <= bound:
            return best_peak, best_order
    # What sticks out at the top came too late: give it the first choice and try again.
    order, offsets, peak = best_order, of_best, best_peak
    for _ in range(_REPAIRS):
        highest = [i for i in order if offsets[i] + fit.byte_counts[i] == peak]
        order = highest + [i for i in order if i not in highest]
        offsets, peak = fit.place(order)
        if peak < best_peak:
            best_peak, best_order = peak, order
        if aligned(best_peak) <= bound:
            break
    return best_peak, best_order


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
