"""The trials of one op put together, as a row of :mod:`profiler.store_tables`."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypedDict

import msgspec
import numpy as np

from profiler.measure.clock import ROUNDING_TICKS, Clock
from profiler.measure.observed import trial_disturbances
from profiler.measure.statistics import median, quiet_ranks
from profiler.measure.trials import accepted, accepted_ticks, caches_of
from profiler.store_energy import Energies, HarnessPower
from profiler.store_lines import parse


class Fields(TypedDict, total=False):
    """What of a trial a table of ops shows.

    The op is the same in all its trials: only the first one's is parsed. States of the machine repeat, too
    (:func:`_disturbed`).
    """

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
    state: msgspec.Raw
    energy: Any
    energy_uj: Any
    extra: Any
    held_out: Any


class Overhead:
    """The harness's own cost of timing one op: what a run's trials of the empty op took, and its power.

    Attributes:
        clock: What the trials' readings tell of the timer.
        harness: The harness's power.
    """

    def __init__(self) -> None:
        self._ticks: dict[str, array[float]] = {}
        self._figures: dict[str, Figures] = {}
        self.clock = Clock()
        self.harness = HarnessPower()

    def add(self, trial: dict[str, Any]) -> None:
        """Learn from a trial: of the timer from any of one op, of the rest from those of the empty op."""
        if trial["type"] != "step":
            self.clock.add(trial["ticks"])
        if trial["type"] == "empty" and trial["status"] == "ok":
            caches = caches_of(trial)
            self.harness.add(trial, caches)
            self._ticks.setdefault(caches, array("d")).extend(accepted_ticks(trial))
        self._figures.clear()

    def ticks(self, caches: str) -> float:
        """Their median; 0 where there was none with such caches."""
        return self._known(caches)[0]

    def quiet_ticks(self, caches: str) -> tuple[float, float]:
        """Their least disturbed reading, which is in that of an op, and by how much it may be off."""
        return self._known(caches)[2:]

    def _known(self, caches: str) -> Figures:
        found = self._figures.get(caches)
        if found is None:
            readings = [self._ticks.get(caches, array("d"))]
            found = self._figures[caches] = figures(readings, self.clock.step_ticks)[0] or (0.0, 0.0, 0.0, 0.0)
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
            self.disturbed += _disturbed(trial["state"])
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

    def row(self, overhead: Overhead, timer_hz: int, figures: Figures | None) -> dict[str, Any]:
        """What the table shows; ``figures`` are those of :attr:`ticks`, None where there are none."""
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
        if figures is not None:
            row |= {name: peak for name, peak in zip(PEAKS, self.peaks, strict=True) if peak != UNKNOWN}
            us_per_tick = 1e6 / timer_hz
            row["ticks"], row["ticks_mad"], quiet, apart = figures
            row["latency_us"] = max(row["ticks"] - overhead_ticks, 0.0) * us_per_tick
            row["latency_mad_us"] = row["ticks_mad"] * us_per_tick
            quiet_overhead, overhead_apart = overhead.quiet_ticks(caches)
            if overhead.clock.step_ticks > 1:
                apart = float(np.hypot(apart, overhead_apart))
            row["latency_quiet_us"] = max(quiet - quiet_overhead, 0.0) * us_per_tick
            row["latency_quiet_spread_us"] = apart * us_per_tick
        return row


def rows(merged: Iterable[Merged], overhead: Overhead, timer_hz: int) -> Iterator[dict[str, Any]]:
    """:meth:`Merged.row` of each, in order."""
    merged = list(merged)
    found = figures([one.ticks for one in merged], overhead.clock.step_ticks)
    return (one.row(overhead, timer_hz, its) for one, its in zip(merged, found, strict=True))


#: Median, median absolute deviation, quiet reading and by how much that may be off.
Figures = tuple[float, float, float, float]
#: Ops whose readings are sorted at once: memory for copies of their readings, not for all of the run's.
_BATCH_OPS = 512


def figures(readings: Sequence[array[float]], step: float = 1.0) -> list[Figures | None]:
    """``median``, ``mad`` and ``quiet`` of :mod:`profiler.measure.statistics` of each op's readings, all at once, by a
    timer that goes in steps of ``step`` ticks.

    Thousands of ops have equally many readings each: a sort for all of these takes a tenth of the time.
    """
    found: list[Figures | None] = [None] * len(readings)
    by_count: dict[int, list[int]] = {}
    for index, values in enumerate(readings):
        by_count.setdefault(len(values), []).append(index)
    by_count.pop(0, None)
    for count, indices in by_count.items():
        for start in range(0, len(indices), _BATCH_OPS):
            batch = indices[start : start + _BATCH_OPS]
            table = np.frombuffer(b"".join(readings[index] for index in batch)).reshape(-1, count)
            for index, its in zip(batch, _figures(table, step), strict=True):
                found[index] = its
    return found


def _figures(table: np.ndarray, step: float) -> list[Figures]:
    """:func:`figures` of the rows of a table of float64, one row an op."""
    count = table.shape[1]
    low, high = (count - 1) // 2, count // 2
    ordered = np.sort(table, axis=1)
    middle = (ordered[:, low] + ordered[:, high]) / 2
    deviations = np.sort(np.abs(ordered - middle[:, None]), axis=1)
    mad = (deviations[:, low] + deviations[:, high]) / 2
    quiet_rank, fairly_quiet = quiet_ranks(count)
    lowest, apart = ordered[:, quiet_rank], ordered[:, fairly_quiet] - ordered[:, 0]
    if step > 1:
        reach = step + ROUNDING_TICKS
        near = (ordered >= lowest[:, None] - reach) & (ordered <= lowest[:, None] + reach)
        counts = near.sum(axis=1)
        quiet = (ordered * near).sum(axis=1) / counts
        apart = np.maximum(apart - reach, step / 2 / counts**0.5)
    else:
        below, equal = (ordered < lowest[:, None]).sum(axis=1), (ordered == lowest[:, None]).sum(axis=1)
        quiet = lowest + np.where(equal < count, (quiet_rank - below - (equal - 1) / 2) / equal, 0.0)
    return list(zip(*(column.tolist() for column in (middle, mad, quiet, apart)), strict=True))


def _disturbed(state: Any) -> bool:
    """Whether the machine told of anything that disturbed a trial, from its ``state``, parsed or not."""
    if isinstance(state, msgspec.Raw):
        return _disturbed_by_text(bytes(state))
    return bool(trial_disturbances({"state": state}))


@lru_cache(maxsize=4096)
def _disturbed_by_text(state: bytes) -> bool:
    """A machine is in few states, a trial in 40 or so: most are known."""
    return _disturbed(parse(msgspec.Raw(state)))


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
