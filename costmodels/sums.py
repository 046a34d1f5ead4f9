"""Costs of layers and steps as sums over ops, each part asked for once.

A step is cut into parts: all ops of one layer. Which ops those are depends on little: what of the layer trains, whether
a gradient passes it and reaches its inputs and, of int8 steps, what is kept of it. Parts that agree in all of that are
one, but for the number of channels that train. So a step is lowered to ops only where one of its parts is new, and all
other plans that a selection tries are some additions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from profiler.ops import Layer, Op, Optimizer, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan

if TYPE_CHECKING:
    from profiler.workloads.program_size import ProgramSizes
    from profiler.workloads.step import StepBuilder, StepOp
    from profiler.workloads.step_s8 import Int8Builder

#: Label of all ops of the head.
_HEAD = "head"


class StepTotals(NamedTuple):
    """What a step costs, of all its parts.

    Attributes:
        columns: Sums over all that runs, shape (n_columns,).
        peak: The largest.
        program_bytes: What its program takes beside the arena.
    """

    columns: np.ndarray
    peak: float
    program_bytes: int


class OpSums:
    """What a cost source that sums over ops says of layers and of many similar steps.

    Args:
        costs: Costs of ops in order, an array of shape (n_ops,) or (n_ops, n_columns), the first column latency in
            microseconds. Columns may become more from call to call; those that are missing are 0.
        peak: What of an op counts by its largest in a step, not by the sum; nothing by default.
        programs: How large programs are on the device, asked for when the first step is; by default they take nothing.
    """

    def __init__(
        self,
        costs: Callable[[Sequence[Op]], Sequence[float] | np.ndarray],
        peak: Callable[[Op], float] = lambda op: 0.0,
        programs: Callable[[], ProgramSizes | None] = lambda: None,
    ) -> None:
        self._costs, self._peak, self._programs = costs, peak, programs
        self._families: dict[Hashable, int] = {}
        #: Label and all that its ops depend on, to those ops: (op, whether it runs once an image).
        self._templates: dict[Hashable, tuple[tuple[Op, bool], ...]] = {}
        #: The same, to in which ways what these ops read starts: a bit each.
        self._starts: dict[Hashable, int] = {}
        self._bits: dict[Hashable, int] = {}
        #: The same and the number of trained channels, to a row of these two tables: costs an image, costs a step.
        self._row_of: dict[Hashable, int] = {}
        self._image = np.zeros((64, 1))
        self._once = np.zeros((64, 1))
        self._peak_of_row: list[float] = []
        self._program_of_row: list[tuple[int, int]] = []

    def step_costs(self, network: Network, plan: StepPlan, *, checked: bool = False) -> StepTotals:
        """What a step costs.

        Args:
            network: What is trained.
            plan: How.
            checked: Whether the plan is known to be for this network.

        Raises:
            UserError: the plan is for another network, or cannot be lowered.
        """
        if not checked:
            plan.check(network)
        # A number instead of what it stands for: each part of the plan is looked up by it.
        family = (network.fingerprint, plan.dtype, plan.savings, plan.head, plan.optimizer)
        parts = list(_parts(network, plan, self._families.setdefault(family, len(self._families))))
        try:
            rows = [self._row_of[part] for part in parts]
        except KeyError:
            self._learn(network, plan, parts)
            rows = [self._row_of[part] for part in parts]
        sums = plan.images * self._image[rows].sum(axis=0) + self._once[rows].sum(axis=0)
        return StepTotals(sums, max([self._peak_of_row[row] for row in rows]), self._program_bytes(rows))

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """:meth:`costmodels.sources.CostSource.step_latency_ms`."""
        return float(self.step_costs(network, plan).columns[0]) / 1e3

    def layer_latency_us(self, layer: Layer, *, images: int, optimizer: Optimizer) -> float:
        """An image's ``grad_weight`` of all channels and ``grad_input`` of one layer, and its share of the update."""
        g = layer.geometry
        everything = {"trained_channels": g.channels("out"), "trains_bias": bool(g.bias_elements)}  # type: ignore[attr-defined]
        gradient = Op(g, Pass.GRAD_WEIGHT, **everything)
        update = Op(g, Pass.UPDATE, optimizer=optimizer, **everything)
        each = self._columns([gradient, update, Op(g, Pass.GRAD_INPUT)])[:, 0]
        return float(each[0] + each[2] + each[1] / images)

    def _program_bytes(self, rows: Sequence[int]) -> int:
        programs = self._programs()
        if programs is None:
            return 0
        total = starts = 0
        for row in rows:
            of_ops, ways = self._program_of_row[row]
            total += of_ops
            starts |= ways
        return total + programs.fills_bytes(starts.bit_count())

    def _columns(self, ops: Sequence[Op]) -> np.ndarray:
        return np.asarray(self._costs(ops), dtype=np.float64).reshape(len(ops), -1)

    def _learn(self, network: Network, plan: StepPlan, parts: Sequence[tuple]) -> None:
        """Find the costs of those parts that are new, all their ops asked for at once."""
        if any(part[:-1] not in self._templates for part in parts):
            self._lower(network, plan, parts)
        new = [part for part in dict.fromkeys(parts) if part not in self._row_of]
        ops, images = [], []
        spans = []
        for part in new:
            of_part = [(_with_channels(op, part[-1]), per_image) for op, per_image in self._templates[part[:-1]]]
            spans.append((len(ops), len(ops) + len(of_part)))
            ops += [op for op, _ in of_part]
            images += [per_image for _, per_image in of_part]
        columns = self._columns(ops) if ops else np.zeros((0, 1))
        each_image = np.array(images, dtype=bool)[:, None]
        self._make_room(len(self._row_of) + len(new), columns.shape[1])
        width = columns.shape[1]
        programs = self._programs()
        for part, (begin, end) in zip(new, spans, strict=True):
            row = len(self._row_of)
            self._image[row, :width] = (columns * each_image)[begin:end].sum(axis=0)
            self._once[row, :width] = (columns * ~each_image)[begin:end].sum(axis=0)
            self._peak_of_row.append(max(map(self._peak, ops[begin:end]), default=0.0))
            stored = 0 if programs is None else sum(map(programs.op_bytes, ops[begin:end]))
            self._program_of_row.append((stored, self._starts[part[:-1]]))
            self._row_of[part] = row

    def _lower(self, network: Network, plan: StepPlan, parts: Sequence[tuple]) -> None:
        from profiler.workloads.program_size import starts_of  # noqa: PLC0415  (loads the kernels' library)
        from profiler.workloads.step import training_step  # noqa: PLC0415

        step = training_step(network, plan)
        by_label: dict[str, list[StepOp]] = {}
        for item in step.ops:
            label = _HEAD if item.layer.startswith(f"{_HEAD}.") and item.layer not in network.by_name else item.layer
            by_label.setdefault(label, []).append(item)
        programs = self._programs()
        starts = {} if programs is None else programs.starts(network, step)
        for part in parts:
            if part[:-1] not in self._templates:
                own = by_label.get(part[1], ())
                self._templates[part[:-1]] = tuple((item.op, item.per_image) for item in own)
                ways = (self._bits.setdefault(way, len(self._bits)) for way in starts_of(own, starts))
                self._starts[part[:-1]] = sum(1 << bit for bit in ways)

    def _make_room(self, rows: int, columns: int) -> None:
        have = self._image.shape
        if rows <= have[0] and columns <= have[1]:
            return
        shape = (max(have[0], 2 * rows), max(have[1], columns))
        grown = []
        for table in (self._image, self._once):
            larger = np.zeros(shape)
            larger[: have[0], : have[1]] = table
            grown.append(larger)
        self._image, self._once = grown


def _with_channels(op: Op, channels: int) -> Op:
    """The op with another number of trained channels, where any train."""
    return dataclasses.replace(op, trained_channels=channels) if op.trained_channels else op


def _parts(network: Network, plan: StepPlan, family: int) -> Iterator[tuple]:
    """(family, label, all that its ops depend on, number of trained channels) of every part of a step.

    Args:
        network: What is trained.
        plan: How.
        family: Stands for the network and all of the plan that no part of it has to itself.

    Raises:
        UserError: the network and the plan give no step of the plan's dtype.
    """
    from profiler.workloads.step import StepBuilder  # noqa: PLC0415  (loads the kernels' library)

    if plan.dtype == "s8":
        from profiler.workloads.step_s8 import Int8Builder  # noqa: PLC0415

        int8 = Int8Builder(network, plan)
        yield family, _HEAD, bool(int8.needs_gradient), 0
        yield from _int8_parts(family, int8)
        return
    builder = StepBuilder(network, plan)
    yield family, _HEAD, bool(builder.needs_gradient), 0
    yield from _float_parts(family, builder)


def _float_parts(family: int, builder: StepBuilder) -> Iterator[tuple]:
    needs, planned = builder.needs_gradient, builder.planned
    for layer in builder.network.layers:
        own, channels = _own(planned.get(layer.name))
        reached = tuple([name in needs for name in layer.inputs])
        yield family, layer.name, (own, layer.name in needs, reached), channels


def _int8_parts(family: int, builder: Int8Builder) -> Iterator[tuple]:
    needs, planned, saved = builder.needs, builder.planned, builder.saved
    streamed_into = {node.name for node in builder.streamed.values()}
    recomputed_for = {source.name for source in builder.recomputed.values()}
    for name, node in builder.nodes.items():
        own, channels = _own(planned.get(name))
        depends = (
            own,
            name in needs,
            name in saved,
            tuple([(source in needs, source in saved) for source in node.inputs]),
            name in builder.streamed,
            name in streamed_into,
            name in builder.recomputed,
            name in recomputed_for,
        )
        yield family, name, depends, channels


def _own(layer_plan: LayerPlan | None) -> tuple[tuple | None, int]:
    """What trains of a layer but how many channels; and how many."""
    if layer_plan is None:
        return None, 0
    channels = len(layer_plan.channels)
    return (channels > 0, layer_plan.axis if channels else "out", layer_plan.bias), channels
