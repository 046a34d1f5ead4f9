"""Limits of one training step, held against the upper end of what is predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from profiler.errors import UserError

if TYPE_CHECKING:
    from costmodels.sources import StepCost, StepSums

#: What a budget may limit, by the names under which plans note it.
QUANTITIES = ("latency_ms", "energy_mj", "memory_bytes")


@dataclass(frozen=True)
class Budget:
    """Limits of one training step.

    Attributes:
        latency_ms: Forward and backward of the batch and the update.
        memory_bytes: Peak of arena and stack, and the program beside them; None for no limit.
        confidence: Probability with which latency, and energy, are each to stay below their limit, by the cost
            source's own standard deviation (taken as normal): from 0.5 to below 1. A source without one is believed
            as it is.
        energy_mj: Of the step, gross.

    Raises:
        ValueError: another confidence.
    """

    latency_ms: float = math.inf
    memory_bytes: int | None = None
    confidence: float = 0.5
    energy_mj: float = math.inf

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be from 0.5 to below 1, got {self.confidence}")

    @property
    def deviations(self) -> float:
        """How many standard deviations above the prediction the upper end lies."""
        return NormalDist().inv_cdf(self.confidence)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are, by name, those of :data:`QUANTITIES` in their order."""
        limits = {
            "latency_ms": self.latency_ms,
            "energy_mj": self.energy_mj,
            "memory_bytes": math.inf if self.memory_bytes is None else float(self.memory_bytes),
        }
        return {name: limit for name, limit in limits.items() if limit != math.inf}

    def upper(self, cost: StepCost | StepSums, quantity: str) -> float:
        """What a quantity stays below with the asked confidence; memory is taken as it is predicted.

        Raises:
            UserError: energy is limited and the cost source knows none.
        """
        mean, std = mean_and_std(cost, quantity)
        return mean + self.deviations * std

    def upper_latency_ms(self, cost: StepCost) -> float:
        """What the latency stays below with the asked confidence."""
        return self.upper(cost, "latency_ms")

    def allows(self, cost: StepCost) -> bool:
        return not self.excess(cost)

    def excess(self, cost: StepCost) -> dict[str, float]:
        """By how much each broken limit is passed, as a share of it."""
        shares = {name: self.upper(cost, name) / limit - 1 for name, limit in self.limits.items()}
        return {name: share for name, share in shares.items() if share > 0}


def mean_and_std(cost: StepCost | StepSums, quantity: str) -> tuple[float, float]:
    """A predicted quantity and its standard deviation, 0 where the source has none."""
    if quantity == "memory_bytes":
        return float(cost.total_memory_bytes), 0.0
    if quantity == "latency_ms":
        mean, std = cost.latency_ms, cost.latency_std_ms
    else:
        mean, std = cost.energy_mj, cost.energy_std_mj
        if mean is None or math.isnan(mean):
            raise UserError(
                "the budget limits energy, and the cost source predicts none",
                hint="fit a cost model to a run with energies (profile --energy), or give no --energy-mj",
            )
    return mean, 0.0 if math.isnan(std) else std
