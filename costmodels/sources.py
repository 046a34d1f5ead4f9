"""Cost sources: what answers "what does this op, or this training step, cost?"

:class:`costmodels.analytical.AnalyticalCosts` and :class:`costmodels.model.CostModel` are interchangeable wherever a
:class:`CostSource` is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import pandas as pd

from profiler.ops import Layer, Op, Optimizer
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan


@dataclass(frozen=True)
class StepCost:
    """What one training step costs: forward and backward of every image of the batch, then one update.

    Attributes:
        latency_ms: Sum over the step's ops, the harness's own cost per op left out (as the store does).
        latency_std_ms: One standard deviation of that sum; NaN where the source has none.
        energy_mj: None: no energy has been measured yet.
        memory_bytes: Peak of arena and stack, or what the source's formula calls memory.
        rows: One record an op of the step, in order; :attr:`table` shows them.
    """

    latency_ms: float
    latency_std_ms: float
    energy_mj: float | None
    memory_bytes: int
    rows: tuple[dict[str, object], ...] = field(repr=False)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row an op: ``layer, kind, pass, dtype, count, macs, latency_ms, latency_std_ms, energy_mj,
        extrapolates``.

        ``count`` is how often it runs in the step (once an image, or once a step for ``update``); latencies are those
        of all of them together. Built on first use, because a selection asks for thousands of steps and no table.
        """
        return pd.DataFrame.from_records(self.rows)


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
        """Cost of one training step of ``network`` under ``plan``."""

    def step_latency_ms(self, network: Network, plan: StepPlan) -> float:
        """``step(network, plan).latency_ms`` up to rounding, so fast that a selection can ask for every candidate."""

    def layer_cost(self, layer: Layer, *, images: int, optimizer: Optimizer) -> tuple[float, str]:
        """What training all of one layer costs by itself, an image: the criterion's c_i, and its unit."""
