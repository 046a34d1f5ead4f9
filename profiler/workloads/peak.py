"""What lies in the arena of a training step when it is fullest."""

from __future__ import annotations

from typing import NamedTuple

from profiler.workloads.arena import Placement
from profiler.workloads.step import TRANSIENT, Role, TrainingStep
from profiler.workloads.traits import scratch_bytes


class PeakRow(NamedTuple):
    """A tensor at the peak, or all of one kind that live through the whole run.

    Attributes:
        what: The tensor's name, ``scratch of KIND``, or the role of tensors that persist.
        tensors: How many.
        offset_bytes: Where it begins; None for several.
        byte_count: What it takes.
    """

    what: str
    tensors: int
    offset_bytes: int | None
    byte_count: int


def peak_op(step: TrainingStep, placement: Placement) -> int:
    """Index of the op during which the arena reaches highest; of several the one with most in it."""
    fill = [
        (max((at + size for _, at, size in alive), default=0), sum(size for _, _, size in alive))
        for alive in _alive(step, placement)
    ]
    return max(range(len(fill)), key=lambda i: fill[i])


def at_peak(step: TrainingStep, placement: Placement) -> list[PeakRow]:
    """What lies in the arena at the peak, the largest first; what persists, by role.

    Tensors that share memory in place stand there with all their bytes, so the rows may sum to more than the peak; and
    to less by gaps that no tensor fits.
    """
    persistent: dict[str, list[int]] = {}
    for name in placement.offsets:
        tensor = step.tensors[name]
        if tensor.role not in TRANSIENT:
            what = f"trained {tensor.role}" if tensor.trained else str(tensor.role)
            persistent.setdefault(what, []).append(tensor.byte_count)
    rows = [PeakRow(what, len(sizes), None, sum(sizes)) for what, sizes in persistent.items()]
    alive = _alive(step, placement)[peak_op(step, placement)]
    rows += [PeakRow(name, 1, at, size) for name, at, size in alive]
    return sorted(rows, key=lambda row: -row.byte_count)


def _alive(step: TrainingStep, placement: Placement) -> list[list[tuple[str, int, int]]]:
    """(name, offset, bytes) of the transient tensors and the scratch, for each op."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, step_op in enumerate(step.ops):
        for name in step_op.tensors:
            first.setdefault(name, index)
            last[name] = index
    found: list[list[tuple[str, int, int]]] = [[] for _ in step.ops]
    for name, tensor in step.tensors.items():
        if tensor.role not in TRANSIENT:
            continue
        begins = 0 if tensor.role is Role.IMAGE else first[name]  # the image is there before the first op
        for index in range(begins, last[name] + 1):
            found[index].append((name, placement.offsets[name], tensor.byte_count))
    for index, at in placement.scratch.items():
        op = step.ops[index].op
        found[index].append((f"scratch of {op.kind} {op.pass_}", at, scratch_bytes(op)))
    return found
