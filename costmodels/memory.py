"""Peak memory from the arena planner: what the programs that a device runs will take of its arena."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import NamedTuple

from costmodels.sources import MemoryBounds, Moment
from profiler.devices.identity import Identity
from profiler.ops import Op, Pass
from profiler.workloads.arena import (
    OpNeeds,
    aligned,
    bytes_alive,
    needs_of,
    persistent_bytes,
    place,
    transient_bytes,
)
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from profiler.workloads.program import DeviceMemory, DoesNotFit, microbenchmark, resident_weights
from profiler.workloads.program_size import ProgramSizes
from profiler.workloads.step import Part, TrainingStep, assembled, step_parts, training_step

#: Of how many plans the memory is kept.
_MOST_PLANS = 1 << 16


class _PartBytes(NamedTuple):
    """What a part of a step wants of the arena.

    Attributes:
        persistent: Bytes that live through the run, by tensor.
        ops: What each op needs beside.
    """

    persistent: dict[str, int]
    ops: list[OpNeeds]


class _StepBytes(NamedTuple):
    """What is known of a step before anything is searched for.

    Attributes:
        least: No placement of its tensors takes less, nor of a step that has all of them.
        bounds: Of what the planner's takes.
    """

    least: int
    bounds: MemoryBounds


class ArenaMemory:
    """Arena bytes of ops and steps on one device; the planner's own figures, not a fit.

    Args:
        identity: The device's identity record. Without one (a bare table), or where it tells of no memory (an imported
            run), weights are taken to lie outside the arena and nothing is known of the device's limits.
        region: Name of the memory region that the arena lies in; by default the first.

    Attributes:
        programs: What programs of steps take beside the arena; None where nothing is known of the device's memory.
    """

    def __init__(self, identity: dict, region: str | None = None) -> None:
        known = identity.get("memory")
        self._memory = DeviceMemory.of(Identity.from_dict(identity), region) if known else None
        # A step that does not fit has a cost too, so that selection can see by how much: plan without limits.
        self._roomy = self._memory and dataclasses.replace(
            self._memory, arena_bytes=1 << 40, store_bytes=1 << 40, largest_program=1 << 20
        )
        self.programs = None if self._memory is None else ProgramSizes(self._memory)
        self._ops: dict[Op, int] = {}
        self._parts: dict[Part, _PartBytes] = {}
        self._steps: dict[tuple[Part, ...], _StepBytes] = {}

    def op_bytes(self, op: Op, scratch_bytes: int) -> int:
        """Arena of the microbenchmark of one op: its buffers and scratch, frozen weights in the blob left out."""
        if op not in self._ops:
            self._ops[op] = self._op_bytes(op, scratch_bytes)
        return self._ops[op]

    def step_bytes(self, step: TrainingStep) -> int:
        """Arena of the program of a training step."""
        return place(step, resident=self._resident(step)).peak_bytes

    def plan_bytes(self, network: Network, plan: StepPlan, parts: Sequence[Part] | None = None) -> int:
        """The same of a plan, for less work: only steps with savings are placed, where :meth:`plan_bounds` differ.

        Args:
            network: What is trained.
            plan: How.
            parts: The step's, where they are known.

        Raises:
            UserError: the plan is for another network, or cannot be lowered.
        """
        parts = _parts(network, plan) if parts is None else tuple(parts)
        least, (low, high) = self._step(plan, parts)
        if low < high:
            high = self.step_bytes(assembled(network, plan, parts))
            self._steps[parts] = _StepBytes(least, MemoryBounds(high, high))
        return high

    def plan_bounds(self, network: Network, plan: StepPlan, parts: Sequence[Part] | None = None) -> MemoryBounds:
        """Bounds of :meth:`plan_bytes` that want no search for a lower peak: equal where the planner finds the lowest
        at once, or would not search."""
        return self._step(plan, _parts(network, plan) if parts is None else tuple(parts)).bounds

    def plan_moments(self, network: Network, plan: StepPlan) -> dict[Moment, int]:
        """See :meth:`costmodels.sources.CostSource.step_moments`."""
        if plan.dtype != "s8":
            return {(): self._step(plan, _parts(network, plan)).least}
        step = training_step(network, plan)
        return moments_of(step, self._resident(step))

    def _step(self, plan: StepPlan, parts: tuple[Part, ...]) -> _StepBytes:
        if parts not in self._steps:
            if len(self._steps) >= _MOST_PLANS:
                self._steps.clear()
            self._steps[parts] = self._unsearched(plan, parts)
        return self._steps[parts]

    def _unsearched(self, plan: StepPlan, parts: Sequence[Part]) -> _StepBytes:
        for part in parts:
            if part not in self._parts:
                self._parts[part] = _PartBytes(persistent_bytes(part, self._resident(part)), needs_of(part))
        known = [self._parts[part] for part in parts]
        persistent: dict[str, int] = {}
        for part_bytes in known:
            persistent |= part_bytes.persistent
        bottom = sum(persistent.values())
        peak, bound = transient_bytes([op for part_bytes in known for op in part_bytes.ops])
        # The planner's bound ends on a multiple of the alignment, what lies highest may not.
        least = bottom + bound - aligned(1) + 1
        searches = plan.savings and aligned(peak) > bound
        return _StepBytes(least, MemoryBounds(least if searches else bottom + peak, bottom + peak))

    def _resident(self, step: TrainingStep | Part) -> Collection[str]:
        return () if self._roomy is None else resident_weights(step, self._roomy)

    def _op_bytes(self, op: Op, scratch_bytes: int) -> int:
        if self._memory is None:
            return op.bytes_touched + scratch_bytes
        try:
            return microbenchmark(op, self._memory).arena_bytes
        except DoesNotFit:
            return microbenchmark(op, self._roomy).arena_bytes


def moments_of(step: TrainingStep, resident: Collection[str] = ()) -> dict[Moment, int]:
    """Bytes alive while each op runs that every step with this frontier has, and while a layer's own gradient does.

    Args:
        step: The training step.
        resident: Frozen weights that lie in the arena.

    Returns:
        By layer, pass, kind and how often these came before; by layer and ``own`` of its weights' gradient, or update
        where the two are one. No peak is below any.
    """
    found: dict[Moment, int] = {}
    # What lies highest need not end on a multiple of the alignment.
    slack = aligned(1) - 1
    for item, alive in zip(step.ops, bytes_alive(step, resident=resident), strict=True):
        if not item.per_image:
            continue
        if item.op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            found[item.layer, "own"] = max(found.get((item.layer, "own"), 0), alive - slack)
            continue
        count = 0
        while (key := (item.layer, str(item.op.pass_), item.op.kind, count)) in found:
            count += 1
        found[key] = alive - slack
    return found


def _parts(network: Network, plan: StepPlan) -> tuple[Part, ...]:
    plan.check(network)
    return tuple(step_parts(network, plan))
