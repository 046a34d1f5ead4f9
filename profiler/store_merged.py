"""The trials of one op put together, as a row of :mod:`profiler.store_tables`."""

from __future__ import annotations

from array import array
from typing import Any, TypedDict

import msgspec
import numpy as np

from profiler.measure.observed import trial_disturbances
from profiler.measure.statistics import QUIET_SHARE, median
from profiler.measure.trials import accepted, accepted_ticks, caches_of
from profiler.store_energy import Energies, HarnessPower


class _Speed(TypedDict, total=False):
    frequency_khz: Any
    temperature_c: Any
    throttled: Any


class _States(TypedDict, total=False):
    before: _Speed
    after: _Speed


class Fields(TypedDict, total=False):
    """What of a trial a table of ops shows. The op is the same in all its trials: only the first one's is parsed."""

    schema: Any
    trial: Any
    type: Any
    op_key: Any
    op: msgspec.Raw
    macs: Any
    build_hash: Any
    caches: Any
    status: Any
    reason: Any
    ticks: Any
    warm_ups: Any
    rejected: Any
    relative_error: Any
    arena_peak_bytes: Any
    scratch_peak_bytes: Any
    stack_peak_bytes: Any
    memory_peak_bytes: Any
    state: _States
    energy: Any
    energy_uj: Any
    extra: Any
    held_out: Any


class Overhead:
    """The harness's own cost of timing one op: what a run's trials of the empty op took, and its power."""

    def __init__(self) -> None:
        self._ticks: dict[str, array[float]] = {}
        self._medians: dict[str, float] = {}
        self.harness = HarnessPower()

    def add(self, trial: dict[str, Any]) -> None:
        """Learn from a trial, if it is one of the empty op."""
        if trial["type"] == "empty" and trial["status"] == "ok":
            caches = caches_of(trial)
            self.harness.add(trial, caches)
            self._ticks.setdefault(caches, array("d")).extend(accepted_ticks(trial))
            self._medians.pop(caches, None)

    def ticks(self, caches: str) -> float:
        """Their median; 0 where there was none with such caches."""
        found = self._medians.get(caches)
        if found is None:
            found = self._medians[caches] = median(self._ticks[caches]) if self._ticks.get(caches) else 0.0
        return found


PEAKS = ("arena_peak_bytes", "scratch_peak_bytes", "stack_peak_bytes", "memory_peak_bytes")
#: A peak that nobody measured, as only imported trials have it: less than any.
UNKNOWN = -1


class Merged:
    """All trials of one op; of each only what the table shows is kept, and eight bytes a counted repetition."""

    __slots__ = (
        "_status", "_stopped", "columns", "disturbed", "energies", "energies_uj", "extra", "peaks", "reason",
        "relative_error", "rounds", "ticks", "warm_ups",
    )  # fmt: skip

    def __init__(self, columns: dict[str, Any]) -> None:
        """Of no trial yet; ``columns`` are those of the op."""
        self.columns = columns
        self._status = "ok"
        self._stopped = False
        self.reason = ""
        self.ticks: array[float] = array("d")
        self.rounds = self.warm_ups = self.disturbed = 0
        self.relative_error = np.nan
        self.peaks = (UNKNOWN,) * len(PEAKS)
        self.energies_uj: array[float] = array("d")
        self.energies: Energies | None = None
        self.extra: dict[str, list[Any]] = {}

    def add(self, trial: dict[str, Any]) -> None:
        """One trial more."""
        error = trial.get("relative_error")
        if error is not None and not error <= self.relative_error:
            self.relative_error = error
        ticks = accepted(trial, trial["ticks"])
        if trial["status"] != "ok" and not self._counts(trial, ticks):
            return
        self.ticks.fromlist(ticks)
        self.rounds += 1
        self.warm_ups += trial["warm_ups"]
        if "state" in trial:
            self.disturbed += bool(trial_disturbances(trial))
        if "energy" in trial:
            self.energies = self.energies or Energies()
            self.energies.add(trial)
        if "energy_uj" in trial:
            self.energies_uj.extend(e for e in accepted(trial, trial["energy_uj"]) if e is not None)
        if "extra" in trial:
            for name, values in trial["extra"].items():
                self.extra.setdefault(name, []).extend(v for v in accepted(trial, values) if v is not None)
        found = peaks_of(trial)
        if found != self.peaks:
            self.peaks = tuple(map(max, found, self.peaks))

    def _counts(self, trial: dict[str, Any], ticks: list[int]) -> bool:
        """Whether a trial that did not end well counts nevertheless, by its whole repetitions."""
        if trial["status"] != "stopped":
            self._status, self.reason = trial["status"], trial.get("reason", "")
            return False
        self._stopped = True
        self.reason = self.reason or trial.get("reason", "")
        return bool(ticks)

    @property
    def status(self) -> str:
        """A trial that was stopped counts with its whole repetitions; ``stopped`` is an op without any."""
        return "stopped" if self._status == "ok" and self._stopped and not self.ticks else self._status

    def row(self, overhead: Overhead, timer_hz: int) -> dict[str, Any]:
        caches = self.columns["caches"]
        overhead_ticks = overhead.ticks(caches)
        row = dict(self.columns)
        row |= {"status": self.status, "reason": self.reason, "rounds": self.rounds, "warm_ups": self.warm_ups}
        row |= {"repetitions": len(self.ticks), "relative_error": self.relative_error}
        row["energy_uj"] = median(self.energies_uj) if self.energies_uj else np.nan
        if self.energies is not None:
            row |= self.energies.columns(overhead.harness, caches, overhead_ticks / timer_hz)
        row |= {name: _agreed(values) for name, values in self.extra.items() if values}
        row["disturbed_trials"] = self.disturbed
        row["overhead_ticks"] = overhead_ticks
        if self.ticks:
            row |= {name: peak for name, peak in zip(PEAKS, self.peaks, strict=True) if peak != UNKNOWN}
            us_per_tick = 1e6 / timer_hz
            row["ticks"], row["ticks_mad"], quiet, apart = _figures(self.ticks)
            row["latency_us"] = max(row["ticks"] - overhead_ticks, 0.0) * us_per_tick
            row["latency_mad_us"] = row["ticks_mad"] * us_per_tick
            row["latency_quiet_us"] = max(quiet - overhead_ticks, 0.0) * us_per_tick
            row["latency_quiet_spread_us"] = apart * us_per_tick
        return row


def _figures(ticks: array[float]) -> tuple[float, float, float, float]:
    """Median, MAD and quiet reading and its spread as :mod:`profiler.measure.statistics` has them; of hundreds of
    values several times as fast."""
    ordered = np.sort(np.frombuffer(ticks))
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    middle = (ordered[low] + ordered[high]) / 2
    deviations = np.sort(np.abs(ordered - middle))
    last = len(ordered) - 1
    quiet, apart = ordered[int(QUIET_SHARE * last)], ordered[int(3 * QUIET_SHARE * last)] - ordered[0]
    return float(middle), float(deviations[low] + deviations[high]) / 2, float(quiet), float(apart)


def peaks_of(trial: dict[str, Any]) -> tuple[int, int, int, int]:
    """Arena, scratch, stack and memory (arena and stack, or what an imported trial states), in bytes, or UNKNOWN."""
    arena, scratch, stack = trial["arena_peak_bytes"], trial["scratch_peak_bytes"], trial["stack_peak_bytes"]
    if "memory_peak_bytes" not in trial:
        return arena, scratch, stack, arena + stack
    known = (arena, scratch, stack, trial["memory_peak_bytes"])
    return tuple(UNKNOWN if peak is None else peak for peak in known)  # type: ignore[return-value]


def _agreed(values: list[Any]) -> Any:
    """The median of numbers; of anything else what all values are, or nothing where they differ."""
    if not any(isinstance(v, str) for v in values):
        return median(values)
    return values[0] if all(v == values[0] for v in values) else None
