"""Energy of ops and steps from a run's trials: what lies between executions taken out, rounds put together.

:data:`ENERGY_COLUMNS` is the one list of the columns, of :func:`profiler.store.load` and of exports alike; in tables of
steps they are in mJ (``energy_mj``, ``energy_uncertainty_mj``, …). What measured stands in ``energy_source``:

- ``joulescope-js110``, ``joulescope-js220``, ``joulescope-js320``: measured, live or from the instrument's recording,
- ``simulated``: made up by the emulated instrument, live or from its recording; measured nowhere,
- ``imported``: from somebody else's table, whatever measured there.

Energies of different sources are never put together: an op whose trials have several has none, and its
``energy_source`` names them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profiler.measure.statistics import mad, median

#: Columns that stand beside ``energy_uj``, the energy of one execution in microjoules without the harness's share,
#: everything that flowed included (gross); NaN, and no source, where it was not measured.
ENERGY_COLUMNS: dict[str, str] = {
    "energy_uncertainty_uj": "its standard uncertainty: scatter, edges, harness; not the instrument's own gain",
    "net_energy_uj": "above the idle power: energy_uj less baseline_power_uw times the op's time",
    "net_energy_uncertainty_uj": "standard uncertainty of that, the baseline's included",
    "baseline_power_uw": "mean power beside the windows, the device idle",
    "energy_windows": "how many trials' energies are behind it",
    "energy_source": "what measured",
}
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
        """``energy_uj`` and :data:`ENERGY_COLUMNS` of one execution; nothing where there is no window, and of several
        sources only their names.

        The harness takes what remains of an execution's time beside the op's own, at the power of the empty op's
        windows. The standard uncertainty is the larger of the windows' own and of their scatter, with the harness's.

        Args:
            harness: Power between executions.
            caches: With what in the caches these windows were.
            overhead_s: Of timing one execution, which its time holds too.
        """
        if not self.records:
            return {}
        sources = sorted({record["source"] for record in self.records})
        if len(sources) > 1:
            return {"energy_source": " and ".join(sources)}
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
            "energy_source": sources[0],
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
