"""Costs of layers and steps as sums over ops, each part asked for once.

The steps of a network share most of their parts, so all but the first plans that a selection tries are some additions.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from profiler.ops import Layer, Op, Optimizer, Pass
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan
from profiler.workloads.program_size import ProgramSizes
from profiler.workloads.step import Part, step_parts
from profiler.workloads.values import Start


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
        #: Part to a row of these two tables: costs an image, costs a step.
        self._row_of: dict[Part, int] = {}
        self._image = np.zeros((64, 1))
        self._once = np.zeros((64, 1))
        self._peak_of_row: list[float] = []
        #: Bytes of the ops' entries, and in which ways each tensor may start that is filled: a bit a way.
        self._program_of_row: list[tuple[int, dict[str, int]]] = []
        self._bits: dict[Start, int] = {}

    def step_costs(self, network: Network, plan: StepPlan, parts: Sequence[Part] | None = None) -> StepTotals:
        """What a step costs.

        Args:
            network: What is trained.
            plan: How.
            parts: The step's, where they are known.

        Raises:
            UserError: the plan is for another network, or cannot be lowered.
        """
        if parts is None:
            plan.check(network)
            parts = step_parts(network, plan)
        try:
            rows = [self._row_of[part] for part in parts]
        except KeyError:
            self._learn(network, parts)
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
        stored, filled = 0, {}
        for row in reversed(rows):  # the first part that names a tensor decides
            of_ops, ways = self._program_of_row[row]
            stored += of_ops
            filled |= ways
        return stored + programs.fills_bytes(functools.reduce(operator.or_, filled.values(), 0).bit_count())

    def _program_of(self, network: Network, part: Part) -> tuple[int, dict[str, int]]:
        """What :meth:`_program_bytes` adds up."""
        programs = self._programs()
        if programs is None:
            return 0, {}
        ways = {
            name: sum(1 << self._bits.setdefault(start, len(self._bits)) for start in starts)
            for name, starts in programs.starts(network, part).items()
        }
        return sum(programs.op_bytes(item.op) for item in part.ops), ways

    def _columns(self, ops: Sequence[Op]) -> np.ndarray:
        return np.asarray(self._costs(ops), dtype=np.float64).reshape(len(ops), -1)

    def _learn(self, network: Network, parts: Sequence[Part]) -> None:
        """Find the costs of those parts that are new, all their ops asked for at once."""
        new = [part for part in dict.fromkeys(parts) if part not in self._row_of]
        items = [item for part in new for item in part.ops]
        ops = [item.op for item in items]
        columns = self._columns(ops) if ops else np.zeros((0, 1))
        each_image = np.array([item.per_image for item in items], dtype=bool)[:, None]
        self._make_room(len(self._row_of) + len(new), columns.shape[1])
        width = columns.shape[1]
        begin = 0
        for part in new:
            row, end = len(self._row_of), begin + len(part.ops)
            self._image[row, :width] = (columns * each_image)[begin:end].sum(axis=0)
            self._once[row, :width] = (columns * ~each_image)[begin:end].sum(axis=0)
            self._peak_of_row.append(max(map(self._peak, ops[begin:end]), default=0.0))
            self._program_of_row.append(self._program_of(network, part))
            self._row_of[part] = row
            begin = end

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
