"""Where every tensor of a training step lies in the arena.

Tensors that live through the whole run (trained weights, gradients, moments) lie at the bottom, one behind the other.
The others live from the op that first writes them to the last that reads them; two may share bytes only where no op
needs both, or where the kernel declares that its output may overwrite an input that nothing reads afterwards, from the
same byte on or trailing what has been read of it.
Finding the lowest peak is a packing problem that is hard in general; a few greedy orders are tried, and the search
stops at the first that reaches the largest sum of tensors alive at once, below which nothing can go.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from profiler.workloads.step import TRANSIENT, Role, StepOp, StepTensor, TrainingStep
from profiler.workloads.traits import in_place, scratch_bytes, trailing

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
        rectangles: What each takes and when; offsets are from the block's beginning. Those of one block may overlap,
            where an op writes one tensor over another.
        names: The tensors, in the same order; none for scratch.
    """

    rectangles: list[Rectangle]
    names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, size: int, start: int, stop: int, name: str | None = None) -> Block:
        """A block of one tensor, or of scratch."""
        return cls([Rectangle(0, size, start, stop)], [] if name is None else [name])

    @property
    def byte_count(self) -> int:
        return max(r.offset + r.size for r in self.rectangles)

    @property
    def start(self) -> int:
        return min(r.start for r in self.rectangles)

    @property
    def stop(self) -> int:
        return max(r.stop for r in self.rectangles)

    @property
    def longest_life(self) -> int:
        """Ops of the longest-lived tensor."""
        return max(r.stop - r.start for r in self.rectangles)

    def take_over(self, name: str, source: str, ahead: int, rectangle: tuple[int, int, int]) -> None:
        """Give ``name`` (size, start, stop) the bytes from ``ahead`` bytes before ``source`` on; the block grows."""
        offset = self.rectangles[self.names.index(source)].offset - ahead
        shift = max(0, -offset)
        self.rectangles = [r._replace(offset=r.offset + shift) for r in self.rectangles]
        self.rectangles.append(Rectangle(offset + shift, *rectangle))
        self.names.append(name)

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


@dataclass(frozen=True)
class Placement:
    """Byte offsets in the arena.

    Attributes:
        offsets: Of every tensor that lies in the arena, by name.
        scratch: Of the scratch of each op that wants some, by the op's index.
        shared: Tensor to the tensor whose memory it took over in place.
        peak_bytes: First byte above everything.
        persistent_bytes: How much of that lives through the whole run.
        lower_bound_bytes: No placement of these tensors has a lower peak (alignment aside).
    """

    offsets: dict[str, int]
    scratch: dict[int, int]
    shared: dict[str, str]
    peak_bytes: int
    persistent_bytes: int
    lower_bound_bytes: int


def place(
    step: TrainingStep,
    *,
    resident: Collection[str] = (),
    order: Callable[[StepTensor], object] | None = None,
    search: bool = True,
) -> Placement:
    """Place a step's tensors in the arena.

    Args:
        step: The training step. Its frozen weights and biases lie outside the arena, in the device's blob.
        resident: Frozen weights that must lie in the arena all the same.
        order: Sort key of the tensors that live through the run.
        search: Whether steps with savings are searched for a lower peak, which takes seconds.

    Returns:
        Offsets, multiples of 16 bytes.
    """
    persistent = [t for t in step.tensors.values() if _persists(t, resident)]
    if order is not None:
        persistent.sort(key=order)
    offsets: dict[str, int] = {}
    bottom, peak = 0, 0
    for tensor in persistent:
        offsets[tensor.name] = bottom
        peak = bottom + tensor.byte_count
        bottom = aligned(peak)
    blocks, shared, scratch_of = _blocks(step)
    block_offsets, top, bound = pack(blocks, searches=_SEARCHES if search and step.plan.savings else 0)
    scratch: dict[int, int] = {}
    for index, (block, offset) in enumerate(zip(blocks, block_offsets, strict=True)):
        for name, rectangle in zip(block.names, block.rectangles, strict=False):
            offsets[name] = bottom + offset + rectangle.offset
        if index in scratch_of:
            scratch[scratch_of[index]] = bottom + offset
    if top:
        peak = bottom + top
    return Placement(offsets, scratch, shared, peak, bottom, bottom + bound)


def lowest_peak(step: TrainingStep, *, resident: Collection[str] = ()) -> int:
    """The lower bound of :func:`place`'s peak, to the alignment: for much less work where placing searches."""
    persistent = sum(aligned(t.byte_count) for t in step.tensors.values() if _persists(t, resident))
    return persistent + _largest_sum(_blocks(step)[0])


def _persists(tensor: StepTensor, resident: Collection[str]) -> bool:
    if tensor.role in TRANSIENT:
        return False
    if tensor.role in (Role.WEIGHT, Role.BIAS, Role.CONSTANT):
        return tensor.trained or tensor.name in resident
    return True


def _blocks(step: TrainingStep) -> tuple[list[Block], dict[str, str], dict[int, int]]:
    """Blocks of the transient tensors and of scratch; who shares; block index to op index for scratch."""
    transient = {name for name, t in step.tensors.items() if t.role in TRANSIENT}
    last: dict[str, int] = {}
    for index, step_op in enumerate(step.ops):
        for name in step_op.tensors:
            last[name] = index
    blocks: list[Block] = []
    of: dict[str, Block] = {}
    shared: dict[str, str] = {}
    scratch_of: dict[int, int] = {}
    for name in transient:
        if step.tensors[name].role is Role.IMAGE:  # filled before the first op
            of[name] = Block.of(step.tensors[name].byte_count, 0, last[name], name)
            blocks.append(of[name])
    for index, step_op in enumerate(step.ops):
        scratch = scratch_bytes(step_op.op)
        if scratch:
            scratch_of[len(blocks)] = index
            blocks.append(Block.of(scratch, index, index))
        for position, name in enumerate(step_op.tensors):
            if name not in transient or name in of:
                continue
            size = step.tensors[name].byte_count
            found = _overwritten(step_op, position, index, last, transient)
            joined = None if found is None else _joined(step_op, position, step.tensors[found], size)
            if found is not None and joined is not None:
                block = of[found]
                block.take_over(name, found, joined, (size, index, last[name]))
                shared[name] = found
            else:
                block = Block.of(size, index, last[name], name)
                blocks.append(block)
            of[name] = block
    return blocks, shared, scratch_of


def _overwritten(
    step_op: StepOp, position: int, index: int, last: dict[str, int], transient: Collection[str]
) -> str | None:
    """The tensor that the op's buffer at ``position`` may overwrite: one that dies here and is read only once."""
    source_position = in_place(step_op.op).get(position)
    if source_position is None:
        source_position, _ = trailing(step_op.op).get(position, (None, 0))
    if source_position is None:
        return None
    source = step_op.tensors[source_position]
    dies = last[source] == index and step_op.tensors.count(source) == 1
    return source if dies and source in transient else None


#: A tensor trails the one that it is made from where that saves so much: it binds the two, and all that is bound to
#: them, to one place.
_WORTH_TRAILING_BYTES = 6144


def _joined(step_op: StepOp, position: int, source: StepTensor, byte_count: int) -> int | None:
    """By how many bytes the buffer at ``position`` begins before its source, to share memory; None: better not."""
    if position in in_place(step_op.op):
        return 0 if byte_count <= source.byte_count else None
    ahead = aligned(trailing(step_op.op)[position][1])
    together = max(byte_count, ahead + source.byte_count)
    saved = byte_count + source.byte_count - together
    return ahead if saved >= _WORTH_TRAILING_BYTES else None


def pack(blocks: Sequence[Block], *, searches: int = 0) -> tuple[list[int], int, int]:
    """Offsets such that no two blocks overlap in both time and memory.

    Args:
        blocks: What to place.
        searches: How many random changes of the order are tried where the bound is not reached; always the same.

    Returns:
        The offset of each block, the peak, and the lower bound of any peak (with sizes rounded up to the alignment).
    """
    bound = _largest_sum(blocks)
    best: list[int] = []
    best_peak = -1
    best_order: list[int] = []
    for key in _ORDERS:
        order = sorted(range(len(blocks)), key=lambda i: key(blocks[i]))
        offsets, peak = _best_fit(blocks, order)
        if best_peak < 0 or peak < best_peak:
            best, best_peak, best_order = offsets, peak, order
        if aligned(best_peak) <= bound:
            return best, best_peak, bound
    # What sticks out at the top came too late: give it the first choice and try again.
    order, offsets, peak = best_order, best, best_peak
    for _ in range(_REPAIRS):
        highest = [i for i in order if offsets[i] + blocks[i].byte_count == peak]
        order = highest + [i for i in order if i not in highest]
        offsets, peak = _best_fit(blocks, order)
        if peak < best_peak:
            best, best_peak = offsets, peak
        if aligned(best_peak) <= bound:
            break
    if searches and aligned(best_peak) > bound:
        for seed in range(_RESTARTS):
            found, found_peak = _anneal(blocks, searches // _RESTARTS, bound, seed)
            if found_peak < best_peak:
                best, best_peak = found, found_peak
    return best, best_peak, bound


def _anneal(blocks: Sequence[Block], searches: int, bound: int, seed: int) -> tuple[list[int], int]:
    """Simulated annealing over the order in which blocks are placed (Kirkpatrick et al. 1983): a change is kept where
    it is no worse, and at first often where it is."""
    rng = random.Random(seed)
    order = sorted(range(len(blocks)), key=lambda i: (-blocks[i].longest_life, -blocks[i].byte_count))
    offsets, peak = _best_fit(blocks, order)
    best, best_peak = offsets, peak
    for step in range(searches):
        changed = list(order)
        i, j = rng.randrange(len(changed)), rng.randrange(len(changed))
        if rng.random() < _SHARE_OF_SWAPS:
            changed[i], changed[j] = changed[j], changed[i]
        else:
            changed.insert(j, changed.pop(i))
        offsets, found = _best_fit(blocks, changed)
        temperature = 0.03 * best_peak * (1 - step / searches) + 1
        if found <= peak or rng.random() < math.exp((peak - found) / temperature):
            order, peak = changed, found
        if found < best_peak:
            best, best_peak = offsets, found
        if aligned(best_peak) <= bound:
            break
    return best, best_peak


_SHARE_OF_SWAPS = 0.5
#: Tried for plans that ask for savings of memory; some seconds.
_SEARCHES = 1800
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


def _largest_sum(blocks: Sequence[Block]) -> int:
    changes: dict[int, int] = {}
    for block in blocks:
        # What a block takes changes only where one of its tensors begins, or has ended.
        taken = 0
        for time in sorted({t for r in block.rectangles for t in (r.start, r.stop + 1)}):
            now = block.bytes_at(time)
            changes[time] = changes.get(time, 0) + now - taken
            taken = now
    alive = largest = 0
    for time in sorted(changes):
        alive += changes[time]
        largest = max(largest, alive)
    return largest


def _best_fit(blocks: Sequence[Block], order: Sequence[int]) -> tuple[list[int], int]:
    """Put each block, in the given order, into the smallest gap between those already there; else on top of them.

    Returns:
        The offset of each block, and the peak.
    """
    offsets = [0] * len(blocks)
    placed: list[Rectangle] = []
    for index in order:
        rectangles = blocks[index].rectangles
        # Where the block may not begin: strictly between these, for each pair that meets in time.
        taken = []
        for at, size, start, stop in rectangles:
            below = at + aligned(size)
            taken += [
                (offset - below, offset + other_size - at)
                for offset, other_size, other_start, other_stop in placed
                if other_start <= stop and start <= other_stop
            ]
        taken.sort()
        free_from, best_gap, best = 0, -1, -1
        for begin, end in taken:
            gap = begin - free_from
            if gap >= 0 and (best_gap < 0 or gap < best_gap):
                best_gap, best = gap, free_from
            free_from = max(free_from, end)
        offsets[index] = free_from if best_gap < 0 else best
        placed += [r._replace(offset=r.offset + offsets[index], size=aligned(r.size)) for r in rectangles]
    return offsets, max((o + b.byte_count for o, b in zip(offsets, blocks, strict=True)), default=0)
