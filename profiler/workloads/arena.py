"""Where every tensor of a training step lies in the arena.

Tensors that live through the whole run (trained weights, gradients, moments) lie at the bottom, one behind the other.
The others live from the op that first writes them to the last that reads them; two may share bytes only where no op
needs both, or where the kernel declares that its output may overwrite an input that nothing reads afterwards, from the
same byte on or trailing what has been read of it.
Finding the lowest peak is a packing problem: :mod:`profiler.workloads.packing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from profiler.ops import Access, Add
from profiler.workloads.blocks import Block, aligned, bytes_over_time, largest_sum
from profiler.workloads.network import INPUT
from profiler.workloads.packing import SEARCHES, pack, packed_bytes
from profiler.workloads.step import FIXED, TRANSIENT, Part, Role, StepOp, StepTensor, TrainingStep
from profiler.workloads.traits import buffers_of, in_place, scratch_bytes, trailing


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
    blocks, shared, scratch_of = _blocks(needs_of(step))
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
    return sum(persistent_bytes(step, resident).values()) + largest_sum(_blocks(needs_of(step))[0])


def bytes_alive(step: TrainingStep, *, resident: Collection[str] = ()) -> list[int]:
    """Bytes that tensors and scratch take together while each op of the step runs: no placement's peak is below the
    largest, but for the alignment of what lies highest."""
    alive = np.full(len(step.ops), sum(persistent_bytes(step, resident).values()))
    transient = bytes_over_time(_blocks(needs_of(step))[0])
    alive[: len(transient)] += transient
    return alive.tolist()


def transient_bytes(ops: Sequence[OpNeeds]) -> tuple[int, int]:
    """Peak of what does not live through the whole run, where :func:`place` puts it without a search, and the lower
    bound of any peak."""
    return packed_bytes(_blocks(ops)[0])


def persistent_bytes(step: TrainingStep | Part, resident: Collection[str] = ()) -> dict[str, int]:
    """What each tensor takes that lives through the run, rounded up to the alignment, by its name."""
    return {t.name: aligned(t.byte_count) for t in step.tensors.values() if _persists(t, resident)}


def _persists(tensor: StepTensor, resident: Collection[str]) -> bool:
    if tensor.role in TRANSIENT:
        return False
    if tensor.role in FIXED:
        return tensor.trained or tensor.name in resident
    return True


class OpNeeds(NamedTuple):
    """What an op needs in the arena beside what lives through the run.

    Attributes:
        tensors: Names of those that must be there.
        made: Of those, what it writes or is there before the first op: name, bytes, and the tensors (with by how many
            bytes it begins before them) whose memory it takes over, the first of them that nothing reads afterwards.
        scratch_bytes: While it runs.
    """

    tensors: tuple[str, ...]
    made: tuple[tuple[str, int, tuple[tuple[str, int], ...]], ...]
    scratch_bytes: int


def needs_of(step: TrainingStep | Part) -> list[OpNeeds]:
    """What each op needs, in order."""
    return [_needs(step_op, step.tensors) for step_op in step.ops]


def _needs(step_op: StepOp, tensors: Mapping[str, StepTensor]) -> OpNeeds:
    transient = [(i, tensors[name]) for i, name in enumerate(step_op.tensors) if tensors[name].role in TRANSIENT]
    specs = buffers_of(step_op.op)
    made = tuple(
        (tensor.name, tensor.byte_count, tuple(_overwritten(step_op, i, tensors)))
        for i, tensor in transient
        if tensor.role is Role.IMAGE or specs[i].access is not Access.READ
    )
    return OpNeeds(tuple(tensor.name for _, tensor in transient), made, scratch_bytes(step_op.op))


def _blocks(ops: Sequence[OpNeeds]) -> tuple[list[Block], dict[str, str], dict[int, int]]:
    """Blocks of the transient tensors and of scratch; who shares; block index to op index for scratch."""
    last: dict[str, int] = {}
    for index, op in enumerate(ops):
        for name in op.tensors:
            last[name] = index
    blocks: list[Block] = []
    of: dict[str, Block] = {}
    shared: dict[str, str] = {}
    scratch_of: dict[int, int] = {}
    for index, (_, made, scratch) in enumerate(ops):
        if scratch:
            scratch_of[len(blocks)] = index
            blocks.append(Block(scratch, index, index))
        for name, size, sources in made:
            if name in of:
                continue
            for source, ahead in sources:
                if last[source] == index:
                    of[name] = of[source]
                    of[name].take_over(name, source, ahead, (size, index, last[name]))
                    shared[name] = source
                    break
            else:
                begin = 0 if name == INPUT else index  # filled before the first op
                of[name] = Block(size, begin, last[name], name)
                blocks.append(of[name])
    return blocks, shared, scratch_of


def _overwritten(step_op: StepOp, position: int, tensors: Mapping[str, StepTensor]) -> Iterator[tuple[str, int]]:
    """The tensors that the op's buffer at ``position`` may overwrite if they die here, and by how many bytes it begins
    before them, to share memory."""
    op, names = step_op.op, step_op.tensors
    size = tensors[names[position]].byte_count
    if position in (shares := in_place(op)):
        # Terms of a float32 sum change places where the second dies and the first does not.
        terms = names[:2] if isinstance(op.geometry, Add) and op.dtype == "f32" else (names[shares[position]],)
        candidates = [(name, 0) for name in terms if size <= tensors[name].byte_count]
    elif position in (follows := trailing(op)):
        source, ahead_bytes = follows[position]
        ahead, source_bytes = aligned(ahead_bytes), tensors[names[source]].byte_count
        together = max(size, ahead + source_bytes)
        worth = size + source_bytes - together >= _WORTH_TRAILING_BYTES
        candidates = [(names[source], ahead)] if worth else []
    else:
        return
    for name, ahead in candidates:
        if tensors[name].role in TRANSIENT and names.count(name) == 1:
            yield name, ahead


#: A tensor trails the one that it is made from where that saves so much: it binds the two, and all that is bound to
#: them, to one place.
_WORTH_TRAILING_BYTES = 6144
