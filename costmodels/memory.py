"""Peak memory from the arena planner: what the programs that a device runs will take of its arena."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING

from costmodels.sources import MemoryBounds, Moment
from profiler.devices.identity import Identity
from profiler.ops import Op, Pass
from profiler.workloads.arena import Placement, aligned, bytes_alive, place
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import DeviceMemory, DoesNotFit, microbenchmark, resident_weights
from profiler.workloads.program_size import ProgramSizes
from profiler.workloads.step import TrainingStep, training_step
from profiler.workloads.traits import buffers_of, scratch_bytes

if TYPE_CHECKING:
    from profiler.ops import Geometry


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
        self._plans: dict[Hashable, tuple[int, int]] = {}
        self._bounds: dict[Hashable, MemoryBounds] = {}
        self._of_layers: dict[Hashable, tuple[int, tuple[int, ...]]] = {}

    def op_bytes(self, op: Op, scratch_bytes: int) -> int:
        """Arena of the microbenchmark of one op: its buffers and scratch, frozen weights in the blob left out."""
        if op not in self._ops:
            self._ops[op] = self._op_bytes(op, scratch_bytes)
        return self._ops[op]

    def step_bytes(self, step: TrainingStep) -> int:
        """Arena of the program of a training step."""
        return self._placed(step).peak_bytes

    def plan_bytes(self, network: Network, plan: StepPlan) -> int:
        """The same of a plan; plans that differ in how many channels train are planned once where nothing but what
        lives through the whole step, one behind the other, depends on that."""
        key, persistent = self._key_of(network, plan)
        if key not in self._plans:
            placement = self._placed(training_step(network, plan))
            bound = placement.lower_bound_bytes
            self._plans[key] = placement.peak_bytes - persistent, bound - persistent
        return self._plans[key][0] + persistent

    def plan_bounds(self, network: Network, plan: StepPlan) -> MemoryBounds:
        """Bounds of :meth:`plan_bytes` that want no planning once there were some plans with the same frontier.

        The lower is the largest sum of tensors alive at once where the frontier trains alone, which a plan that trains
        more cannot undercut. The upper is the plan in which every layer that the gradient meets trains whole: as long
        as the planner reaches its own lower bound (of float32 steps it does), training less takes no more. Int8 steps
        are placed, but not searched for a lower peak.
        """
        key, persistent = self._key_of(network, plan)
        if plan.dtype == "s8" and key not in self._plans:
            return self._unsearched(network, plan, key)
        if key in self._plans or not any(p.trains for p in plan.layers.values()):
            exact = self.plan_bytes(network, plan)
            return MemoryBounds(exact, exact)
        low, high = (self._known(network, p) for p in (_frontier_alone(network, plan), _everything(network, plan)))
        return MemoryBounds(low[1] + persistent, high[0] + persistent)

    def _unsearched(self, network: Network, plan: StepPlan, key: Hashable) -> MemoryBounds:
        """Bounds of an int8 step."""
        if key not in self._bounds:
            placement = self._placed(training_step(network, plan), search=False)
            # The planner's bound ends on a multiple of the alignment, what lies highest may not.
            low = placement.lower_bound_bytes - aligned(1) + 1
            self._bounds[key] = MemoryBounds(low, placement.peak_bytes)
        return self._bounds[key]

    def plan_moments(self, network: Network, plan: StepPlan) -> dict[Moment, int]:
        """See :meth:`costmodels.sources.CostSource.step_moments`."""
        if plan.dtype != "s8":
            return {(): self.plan_bounds(network, plan).low}
        step = training_step(network, plan)
        return moments_of(step, self._resident(step))

    def _known(self, network: Network, plan: StepPlan) -> tuple[int, int]:
        """Peak and lower bound of what does not live through the whole step."""
        key, _ = self._key_of(network, plan)
        if key not in self._plans:
            self.plan_bytes(network, plan)
        return self._plans[key]

    def _key_of(self, network: Network, plan: StepPlan) -> tuple[Hashable, int]:
        """What the placement depends on, and bytes that only move it up: those of what trains, of float32 steps."""
        planned = [(name, p) for name, p in plan.layers.items() if p.trains]
        if plan.dtype == "s8":
            trained = tuple((name, len(p.channels), p.axis, p.bias) for name, p in planned)
            return (network.fingerprint, plan.dtype, plan.savings, plan.head, plan.optimizer, trained), 0
        persistent, structure = 0, []
        for name, p in planned:
            key = (network.fingerprint, name, len(p.channels), p.axis, p.bias, plan.optimizer)
            if key not in self._of_layers:
                self._of_layers[key] = _of_layer(network[name].geometry, p, plan)
            own, scratch = self._of_layers[key]
            persistent += own
            structure.append((name, bool(p.channels), scratch))
        return (network.fingerprint, plan.dtype, plan.head, tuple(sorted(structure))), persistent

    def _placed(self, step: TrainingStep, *, search: bool = True) -> Placement:
        return place(step, resident=self._resident(step), search=search)

    def _resident(self, step: TrainingStep) -> Collection[str]:
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


def _of_layer(geometry: Geometry, layer_plan: LayerPlan, plan: StepPlan) -> tuple[int, tuple[int, ...]]:
    """Bytes of a float32 layer that live through the step because it trains, and scratch of its two ops."""
    what = {
        "trained_channels": len(layer_plan.channels),
        "trained_axis": layer_plan.axis,
        "trains_bias": layer_plan.bias,
    }
    update = Op(geometry, Pass.UPDATE, optimizer=plan.optimizer, **what)
    gradient = Op(geometry, Pass.GRAD_WEIGHT, **what)
    own = sum(aligned(spec.byte_count) for spec in buffers_of(update))
    return own, (scratch_bytes(gradient), scratch_bytes(update))


def _frontier_alone(network: Network, plan: StepPlan) -> StepPlan:
    """The plan with nothing but its first layer."""
    name = next(
        layer.name for layer in network.trainable if layer.name in plan.layers and plan.layers[layer.name].trains
    )
    own = plan.layers[name]
    least = LayerPlan((0,), own.axis, own.bias) if own.channels else own
    return dataclasses.replace(plan, layers={name: least})


def _everything(network: Network, plan: StepPlan) -> StepPlan:
    """The plan in which all channels of all layers train that the gradient meets."""
    influenced = plan.influenced(network)
    layers = {layer.name: LayerPlan.whole(layer) for layer in network.trainable if layer.name in influenced}
    return dataclasses.replace(plan, layers=layers)
