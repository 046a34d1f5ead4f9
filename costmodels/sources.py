"""Cost sources: what answers "what does this op, or this training step, cost?"

:class:`costmodels.analytical.AnalyticalCosts` and :class:`costmodels.model.CostModel` are interchangeable wherever a
:class:`CostSource` is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol, overload, runtime_checkable

import pandas as pd
from scipy.special import ndtri

from profiler.ops import Layer, Op, Optimizer
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan

#: Standard deviations to either side of the mean that hold 90 % of normal errors.
NORMAL_90 = 1.6448536269514722

#: One op of a step: ``layer, kind, pass, dtype, count, macs, latency_ms, latency_std_ms, energy_mj, extrapolates``.
StepRow = dict[str, object]


class StepRows(Sequence[StepRow]):
    """Records of a step's ops, made when they are first looked at: a selection asks for thousands of steps and no rows.

    Args:
        make: Makes them.
    """

    def __init__(self, make: Callable[[], tuple[StepRow, ...]]) -> None:
        self._make = make

    @cached_property
    def _rows(self) -> tuple[StepRow, ...]:
        return self._make()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> StepRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[StepRow, ...]: ...
    def __getitem__(self, index: int | slice) -> StepRow | tuple[StepRow, ...]:
        return self._rows[index]

    def __iter__(self) -> Iterator[StepRow]:
        return iter(self._rows)

    def __reduce__(self) -> tuple:
        return tuple, (self._rows,)


class _Uncertain:
    """What follows from means and standard deviations of latency and energy."""

    latency_ms: float
    latency_std_ms: float
    energy_mj: float | None
    energy_std_mj: float

    def latency_upper_ms(self, confidence: float) -> float:
        """What the latency stays below with this probability, from 0.5 to below 1; the prediction itself where the
        source has no uncertainty."""
        return _upper(self.latency_ms, self.latency_std_ms, confidence)

    def energy_upper_mj(self, confidence: float) -> float | None:
        """The same of energy; None where the source knows none."""
        return None if self.energy_mj is None else _upper(self.energy_mj, self.energy_std_mj, confidence)

    @property
    def latency_interval_ms(self) -> tuple[float, float]:
        """90 % of such steps lie in it; NaN where the source has no uncertainty."""
        reach = NORMAL_90 * self.latency_std_ms
        return max(self.latency_ms - reach, 0.0), self.latency_ms + reach

    @property
    def energy_interval_mj(self) -> tuple[float, float] | None:
        """The same of energy; None where the source knows none."""
        if self.energy_mj is None:
            return None
        reach = NORMAL_90 * self.energy_std_mj
        return max(self.energy_mj - reach, 0.0), self.energy_mj + reach


@dataclass(frozen=True)
class StepSums(_Uncertain):
    """What adds up over the ops of a step: all of a :class:`StepCost` but its memory and rows.

    Attributes:
        latency_ms, latency_std_ms, energy_mj, energy_std_mj, program_bytes: See :class:`StepCost`.
    """

    latency_ms: float
    latency_std_ms: float
    energy_mj: float | None = None
    energy_std_mj: float = math.nan
    program_bytes: int = 0


@dataclass(frozen=True)
class StepCost(_Uncertain):
    """What one training step costs: forward and backward of every image of the batch, then one update.

    Attributes:
        latency_ms: Of the step, the harness's own cost per op left out (as the store does).
        latency_std_ms: One standard deviation of its error; NaN where the source has none. Scaled so that 1.645 of them
            to either side make the 90 % interval.
        energy_mj: Gross energy; None where the source knows none.
        memory_bytes: Peak of arena and stack, which a device measures by painting them, or what the source's formula
            calls memory.
        rows: One record an op of the step, in order; :attr:`table` shows them.
        energy_std_mj: As ``latency_std_ms``.
        program_bytes: What the step's stored program and the ticks of one repetition take beside the arena in the same
            memory; 0 where they lie elsewhere, or the source knows nothing of them.
    """

    latency_ms: float
    latency_std_ms: float
    energy_mj: float | None
    memory_bytes: int
    rows: Sequence[StepRow] = field(repr=False)
    energy_std_mj: float = math.nan
    program_bytes: int = 0

    @property
    def total_memory_bytes(self) -> int:
        """Arena, stack and program: what a limit of memory is held against. A step whose total is no more than the
        device has for arena and program runs there, with the stack to spare where that is a memory of its own."""
        return self.memory_bytes + self.program_bytes

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row an op: ``layer, kind, pass, dtype, count, macs, latency_ms, latency_std_ms, energy_mj,
        extrapolates``.

        ``count`` is how often it runs in the step (once an image, or once a step for ``update``); figures are those
        of all of them together.
        """
        return pd.DataFrame.from_records(list(self.rows))


def _upper(mean: float, std: float, confidence: float) -> float:
    if not 0.5 <= confidence < 1:
        raise ValueError(f"the confidence must be from 0.5 to below 1, got {confidence}")
    return mean if math.isnan(std) else mean + float(ndtri(confidence)) * std


class MemoryBounds(NamedTuple):
    """Between which bytes the memory of a step lies; equal where it is known."""

    low: int
    high: int


#: Names what runs at a moment of a step; empty where nothing is known of when its memory is fullest.
Moment = tuple[str | int, ...]


@runtime_checkable
class CostSource(Protocol):
    """What selection, reports and commands ask for costs."""

    @property
    def label(self) -> str:
        """Short name for tables and files, with the timer where time is measured."""

    def op_latency_us(self, op: Op) -> float:
        """Latency of one op, in microseconds."""

    def predict(self, ops: Sequence[Op]) -> pd.DataFrame:
        """A row an op: ``latency_us, latency_std_us, energy_uj, scratch_bytes, memory_bytes, extrapolates``."""

    def step(self, network: Network, plan: StepPlan) -> StepCost:
        """Cost of one training step of ``network`` under ``plan``, memory planned to the byte."""

    def step_sums(self, network: Network, plan: StepPlan) -> StepSums:
        """What adds up of :meth:`step`, so fast that a selection can ask for every candidate: memory is not planned."""

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """``step(network, plan).latency_ms`` up to rounding, as fast as :meth:`step_sums`."""

    def step_memory(self, network: Network, plan: StepPlan) -> MemoryBounds:
        """Bounds of ``step(network, plan).memory_bytes`` for much less work; the program is not in it."""

    def step_moments(self, network: Network, plan: StepPlan) -> dict[Moment, int]:
        """Bytes of arena and stack that the step takes at least, by the moment at which: what a layer adds is the same
        at each, whatever else trains, where at the peak it is not."""

    def layer_cost(self, layer: Layer, *, images: int, optimizer: Optimizer) -> tuple[float, str]:
        """What training all of one layer costs by itself, an image: the criterion's c_i, and its unit."""
