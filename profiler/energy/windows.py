"""Windows: stretches of time in which a device ran something known, and the energy that they took."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Whether a window's energy may be used. A refused one is measured again, never guessed."""

    OK = "ok"
    REFUSED = "refused"


@dataclass(frozen=True)
class Span:
    """From ``start_s`` to ``stop_s``, in seconds since the recording's first sample."""

    start_s: float
    stop_s: float

    @property
    def duration_s(self) -> float:
        return self.stop_s - self.start_s


@dataclass(frozen=True)
class EnergyWindow:
    """A window and its energy.

    Attributes:
        span: When it was.
        energy_uj: Gross energy: everything that flowed.
        energy_uncertainty_uj: Standard uncertainty of that.
        baseline_power_uw: Mean power around the window, with the device idle; NaN where nothing is known.
        baseline_uncertainty_uw: Standard uncertainty of that.
        nan_share: Share of samples that the instrument lost.
        jump_share: Energy of those parts of the window whose power is unlike the others', above or below them, over the
            whole: near 0 where the same thing was repeated all through it, unless a reading was wrong.
        status: Whether the energy may be used.
        reason: Why not.
    """

    span: Span
    energy_uj: float
    energy_uncertainty_uj: float
    baseline_power_uw: float = math.nan
    baseline_uncertainty_uw: float = math.nan
    nan_share: float = 0.0
    jump_share: float = 0.0
    status: Status = Status.OK
    reason: str = ""

    @property
    def power_uw(self) -> float:
        """Mean gross power."""
        return self.energy_uj / self.span.duration_s if self.span.duration_s else math.nan

    @property
    def net_energy_uj(self) -> float:
        """Gross energy less what the baseline would have taken meanwhile."""
        return self.energy_uj - self.baseline_power_uw * self.span.duration_s

    @property
    def net_energy_uncertainty_uj(self) -> float:
        return math.hypot(self.energy_uncertainty_uj, self.baseline_uncertainty_uw * self.span.duration_s)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready record; energies of a refused window are left out, so that nobody takes them by mistake."""
        record: dict[str, Any] = {
            "start_s": self.span.start_s,
            "stop_s": self.span.stop_s,
            "duration_s": self.span.duration_s,
            "status": str(self.status),
            "reason": self.reason,
            "nan_share": self.nan_share,
            "jump_share": self.jump_share,
        }
        if self.status is Status.OK:
            record |= {
                "energy_uj": self.energy_uj,
                "energy_uncertainty_uj": self.energy_uncertainty_uj,
                "power_uw": self.power_uw,
                "baseline_power_uw": _known(self.baseline_power_uw),
                "baseline_uncertainty_uw": _known(self.baseline_uncertainty_uw),
                "net_energy_uj": _known(self.net_energy_uj),
                "net_energy_uncertainty_uj": _known(self.net_energy_uncertainty_uj),
            }
        return record


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
