"""Where every tensor of a training step lies in the arena.

Tensors that live through the whole run (trained weights, gradients, moments) lie at the bottom, one behind the other.
The others live from the op that first writes them to the last that reads them; two may share bytes only where no op
needs both, or where the kernel declares that its output may overwrite an input that nothing reads afterwards, from the
same byte on or trailing what has been read of it.
Finding the lowest peak is a packing problem: :mod:`profiler.workloads.packing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from profiler.workloads.packing import SEARCHES, Block, aligned, bytes_over_time, largest_sum, pack
from profiler.workloads.step import FIXED, TRANSIENT, Role, StepOp, StepTensor, TrainingStep
from profiler.workloads.traits import in_place, scratch_bytes, trailing


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
    block_offsets, top, bound = pack(blocks, searches=SEARCHES if search and step.plan.savings else 0)
    scratch: dict[int, int] = {}
    for index, (block, offset) in enumerate(zip(blocks, block_offsets, strict=True)):
        for name, within in block.offsets.items():
            offsets[name] = bottom + offset + within
        if index in scratch_of:
            scratch[scratch_of[index]] = bottom + offset
    if top:
        peak = bottom + top
    return Placement(offsets, scratch, shared, peak, bottom, bottom + bound)


def lowest_peak(step: TrainingStep, *, resident: Collection[str] = ()) -> int:
    """The lower bound of :func:`place`'s peak, to the alignment: for much less work where placing searches."""
    persistent = sum(aligned(t.byte_count) for t in step.tensors.values() if _persists(t, resident))
    return persistent + largest_sum(_blocks(step)[0])


def bytes_alive(step: TrainingStep, *, resident: Collection[str] = ()) -> list[int]:
    """Bytes that tensors and scratch take together while each op of the step runs: no placement's peak is below the
    largest, but for the alignment of what lies highest."""
    persistent = sum(aligned(t.byte_count) for t in step.tensors.values() if _persists(t, resident))
    alive = np.zeros(len(step.ops), dtype=int)
    transient = bytes_over_time(_blocks(step)[0])
    alive[: len(transient)] = transient
    return (persistent + alive).tolist()


def _persists(tensor: StepTensor, resident: Collection[str]) -> bool:
    if tensor.role in TRANSIENT:
        return False
    if tensor.role in FIXED:
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
