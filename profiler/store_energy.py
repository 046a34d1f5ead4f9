"""Energy of ops and steps from a run's trials: what lies between executions taken out, rounds put together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profiler.measure.statistics import mad, median

#: Columns that stand beside ``energy_uj``.
ENERGY_COLUMNS: tuple[str, ...] = (
    "energy_uncertainty_uj",
    "net_energy_uj",
    "net_energy_uncertainty_uj",
    "baseline_power_uw",
    "energy_windows",
    "energy_source",
)
#: From the median absolute deviation to a standard deviation, for a normal distribution.
_MAD_TO_SIGMA = 1.4826


@dataclass
class HarnessPower:
    """Mean power while the harness goes from one execution to the next: that of the empty op's windows."""

    powers_uw: dict[str, list[float]] = field(default_factory=dict)

    def add(self, trial: dict[str, Any], caches: str) -> None:
        """Learn from a trial of the empty op, if it has its energy."""
        energy = trial.get("energy") or {}
        if energy.get("status") == "ok" and energy["duration_s"] > 0:
            self.powers_uw.setdefault(caches, []).append(energy["energy_uj"] / energy["duration_s"])

    def power_uw(self, caches: str) -> float:
        """Its median; NaN where nobody measured it."""
        return median(self.powers_uw[caches]) if self.powers_uw.get(caches) else math.nan

    def relative_uncertainty(self, caches: str) -> float:
        """Of the power, from trial to trial."""
        powers = self.powers_uw.get(caches, [])
        return _MAD_TO_SIGMA * mad(powers) / median(powers) if powers else math.nan


@dataclass
class Energies:
    """Windows of one op, or of one step, over all its trials."""

    records: list[dict[str, Any]] = field(default_factory=list)

    def add(self, trial: dict[str, Any]) -> None:
        """Keep the energy of a trial, where it has one that holds."""
        energy = trial.get("energy") or {}
        if energy.get("status") == "ok":
            self.records.append(energy)

    def columns(self, harness: HarnessPower, caches: str, overhead_s: float) -> dict[str, Any]:
        """``energy_uj`` and :data:`ENERGY_COLUMNS` of one execution; nothing where there is no window.

        The harness takes what remains of an execution's time beside the op's own, at the power of the empty op's
        windows. The standard uncertainty is the larger of the windows' own and of their scatter, with the harness's.

        Args:
            harness: Power between executions.
            caches: With what in the caches these windows were.
            overhead_s: Of timing one execution, which its time holds too.
        """
        if not self.records:
            return {}
        harness_uw = harness.power_uw(caches)
        relative = harness.relative_uncertainty(caches)
        if math.isnan(harness_uw):
            # Without the empty op: as if it took the op's own power.
            harness_uw = median([r["energy_uj"] / r["duration_s"] for r in self.records])
            relative = 1.0
        gross, net, errors = [], [], []
        for record in self.records:
            op_s = max(record["op_duration_s"] - overhead_s, 0.0)
            between_uj = harness_uw * max(record["device_duration_s"] - op_s, 0.0)
            gross.append(record["energy_uj"] - between_uj)
            errors.append(math.hypot(record["energy_uncertainty_uj"], relative * between_uj))
            if record["baseline_power_uw"] is not None:
                baseline_error_uj = record["baseline_uncertainty_uw"] * op_s
                net.append((gross[-1] - record["baseline_power_uw"] * op_s, math.hypot(errors[-1], baseline_error_uj)))
        known = [r["baseline_power_uw"] for r in self.records if r["baseline_power_uw"] is not None]
        return {
            "energy_uj": median(gross),
            "energy_uncertainty_uj": _combined(gross, errors),
            "net_energy_uj": median([value for value, _ in net]) if net else np.nan,
            "net_energy_uncertainty_uj": _combined([v for v, _ in net], [e for _, e in net]) if net else np.nan,
            "baseline_power_uw": median(known) if known else np.nan,
            "energy_windows": len(self.records),
            "energy_source": self.records[0]["source"],
        }


def energy_columns(trial: dict[str, Any], harness: HarnessPower, caches: str, overhead_s: float) -> dict[str, Any]:
    """:meth:`Energies.columns` of one trial."""
    energies = Energies()
    energies.add(trial)
    return energies.columns(harness, caches, overhead_s)


def _combined(values: list[float], errors: list[float]) -> float:
    """Standard uncertainty of the median of values with errors of their own: by those or by the scatter, if larger."""
    own = math.hypot(*errors) / len(errors)
    return max(own, _MAD_TO_SIGMA * mad(values) / math.sqrt(len(values)))
