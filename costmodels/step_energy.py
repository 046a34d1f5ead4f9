"""The energy of whole steps, from their ops' energies or from their latency, whichever comes closer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from costmodels.calibration import Calibration, mape_percent


@dataclass(frozen=True)
class StepEnergy:
    """From what is predicted of a step to its energy: ``factor`` times the sum of its ops' energies, or ``power_w``
    times its latency.

    Attributes:
        method: ``ops`` or ``power``: whichever was closer on measured steps left out in turn; ``ops`` before any was
            measured.
        factor: Of the sum of ops.
        power_w: Of the whole step; NaN before any was measured.
        calibration: Of the step's energy.
        n_steps: How many steps with energies it was fitted to.
        figures: ``ops_mape_percent`` and ``power_mape_percent`` on steps left out in turn.
    """

    method: str = "ops"
    factor: float = 1.0
    power_w: float = math.nan
    calibration: Calibration = field(default_factory=Calibration)
    n_steps: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        measured_uj: np.ndarray,
        *,
        ops: tuple[np.ndarray, np.ndarray] | None,
        latency: tuple[np.ndarray, np.ndarray],
        floor: float = 0.0,
    ) -> StepEnergy:
        """Learn from measured steps, arrays of shape (n_steps,).

        Args:
            measured_uj: Measured energies.
            ops: Predicted sums of the ops' energies, and their standard deviations, in uJ; None: ops have none.
            latency: Predicted latencies of the steps, and their standard deviations, in us.
            floor: Smallest relative standard deviation of a step's energy.
        """
        candidates = {"power": latency} | ({} if ops is None else {"ops": ops})
        ratios = {name: measured_uj / basis for name, (basis, _) in candidates.items()}
        left_out = {
            name: basis * [_median_without(ratios[name], i) for i in range(len(basis))]
            for name, (basis, _) in candidates.items()
        }
        figures = {f"{name}_mape_percent": mape_percent(predicted, measured_uj) for name, predicted in left_out.items()}
        method = min(candidates, key=lambda name: figures[f"{name}_mape_percent"])
        factor = {name: float(np.median(ratio)) for name, ratio in ratios.items()}
        std = factor[method] * candidates[method][1]
        calibration = Calibration.of(left_out[method], measured_uj, std, floor)
        return cls(method, factor.get("ops", 1.0), factor["power"], calibration, len(measured_uj), figures)

    def of(
        self, ops: tuple[float, float, float] | None, latency: tuple[float, float, float]
    ) -> tuple[float, float] | None:
        """Energy of a step and its standard deviation, in uJ; None where nothing is known.

        Args:
            ops: Sum of the ops' energies, its standard deviation from ops whose kernels were fitted, and that from the
                others, in uJ; None where ops have none.
            latency: The same of the step, in us.
        """
        if self.method == "power":
            mean, std, of_unfitted = (self.power_w * value for value in latency)
        elif ops is None:
            return None
        else:
            mean, std, of_unfitted = (self.factor * value for value in ops)
        return mean, self.calibration.std(mean, std, of_unfitted)

    def to_record(self) -> dict:
        return dataclasses.asdict(self) | {"power_w": None if math.isnan(self.power_w) else self.power_w}

    @classmethod
    def from_record(cls, record: dict) -> StepEnergy:
        power = math.nan if record["power_w"] is None else record["power_w"]
        return cls(**record | {"calibration": Calibration(**record["calibration"]), "power_w": power})


def _median_without(ratios: np.ndarray, i: int) -> float:
    """Median of the others; of one alone its own."""
    return float(np.median(np.delete(ratios, i) if len(ratios) > 1 else ratios))
