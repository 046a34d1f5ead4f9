"""What the trials of a run say about how well it was measured, in memory that grows with its ops, not its trials."""

from __future__ import annotations

import heapq
import random
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from profiler.measure.clock import Clock
from profiler.measure.observed import trial_disturbances
from profiler.measure.statistics import median
from profiler.measure.trials import COUNTING, accepted_ticks, caches_of, step_ticks

#: Readings of an op that are kept; of more a random sample.
MOST_READINGS = 512
#: Trials of a reference op that are kept; of more every second, fourth, ... one.
MOST_REFERENCES = 2048
#: Trials with a device time from which on its clock is held against the host's, and how many of the longest are kept.
LONG_TRIAL_S, MOST_LONG_TRIALS = 0.1, 200
#: Trials that hang over a wrap of the timer, as a share of its range.
_WRAP_SHARE = 0.9
#: Narrower timers wrap in less than what the link takes: the host's clock does not tell.
_SHORTEST_WRAP_S = 5.0
#: Wider timers do not wrap.
_WIDEST_BITS = 48


class Readings:
    """Readings of one op; of many a uniform sample (Vitter's algorithm R, ACM Trans. Math. Software 11, 1985)."""

    def __init__(self) -> None:
        self.values: array[float] = array("d")
        self.count = 0
        self._random = random.Random(1)

    def add(self, values: Iterable[float]) -> None:
        for value in values:
            self.count += 1
            if len(self.values) < MOST_READINGS:
                self.values.append(value)
            elif (place := self._random.randrange(self.count)) < MOST_READINGS:
                self.values[place] = value


class Series:
    """Values in their order, thinned out evenly where there are many."""

    def __init__(self) -> None:
        self.values: array[float] = array("d")
        self.count = 0
        self._every = 1

    def add(self, value: float) -> None:
        if self.count % self._every == 0:
            self.values.append(value)
            if len(self.values) > MOST_REFERENCES:
                self.values = self.values[::2]
                self._every *= 2
        self.count += 1


@dataclass
class Evidence:
    """What a run's trials say.

    Attributes:
        timer_hz: Ticks a second.
        timer_bits: Width of the timer; None where nobody says.
        emulated: Whether ticks are instructions: the host's clock says nothing about them then.
        trials: How many there are, by type.
        timings: Accepted ticks of each op, or step, and caches.
        statuses: Of each op or step that was not timed: (status, reason).
        references: Medians of the reference op's trials, in order, by op and caches.
        reference_timings: Its accepted ticks, as ``timings`` has the others'.
        clock: What readings of single ops tell of the timer.
        disturbances: What disturbed trials by the device's own account, and how many each did.
        governors: Of the device's frequency, as trials told.
        wrapped: Ops with trials whose ticks hang over a wrap of the timer.
        energies: Of each op or step whose energy was asked for: how its windows ended, and the reason of the last that
            did not end well.
    """

    timer_hz: float
    timer_bits: int | None = None
    emulated: bool = False
    trials: Counter[str] = field(default_factory=Counter)
    timings: dict[tuple[str, str], Readings] = field(default_factory=dict)
    statuses: dict[str, tuple[str, str]] = field(default_factory=dict)
    references: dict[tuple[str, str], Series] = field(default_factory=dict)
    reference_timings: dict[tuple[str, str], Readings] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    disturbances: Counter[str] = field(default_factory=Counter)
    governors: Counter[str] = field(default_factory=Counter)
    wrapped: dict[str, int] = field(default_factory=dict)
    energies: dict[str, dict[str, str]] = field(default_factory=dict)
    _long: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, manifest: dict[str, Any], trials: Iterable[dict[str, Any]]) -> Evidence:
        """Gather what the trials of a run say, each once and in order."""
        identity = manifest["identity"]
        evidence = cls(
            timer_hz=float(identity["timer_hz"]),
            timer_bits=identity.get("timer_bits"),
            emulated=identity.get("ticks_per_instruction", (0, 1))[0] != 0,
        )
        for trial in trials:
            evidence.add(trial)
        return evidence

    def add(self, trial: dict[str, Any]) -> None:
        """Learn from one trial."""
        type_ = trial["type"]
        self.trials[type_] += 1
        name = trial["plan"] if type_ == "step" else trial["op_key"]
        self.disturbances.update(trial_disturbances(trial))
        if state := trial.get("state"):
            self.governors[state["after"].get("governor") or ""] += 1
        if trial["status"] != "ok":
            if type_ in ("op", "step"):
                self.statuses[name] = trial["status"], trial.get("reason", "")
            if trial["status"] not in COUNTING:
                return
        if energy := trial.get("energy"):
            self.energies.setdefault(name, {})[energy["status"]] = energy["reason"]
        ticks = step_ticks(trial) if type_ == "step" else accepted_ticks(trial)
        if type_ != "step":
            self.clock.add(ticks)
        if not ticks:
            return
        if type_ in ("op", "step"):
            self.timings.setdefault((name, caches_of(trial)), Readings()).add(ticks)
        elif type_ == "reference":
            self.references.setdefault((name, caches_of(trial)), Series()).add(median(ticks))
            self.reference_timings.setdefault((name, caches_of(trial)), Readings()).add(ticks)
        self._hold_against_the_host(trial, name)

    def _hold_against_the_host(self, trial: dict[str, Any], name: str) -> None:
        every = trial["ticks"]
        every = [sum(row) for row in every] if trial["type"] == "step" else every
        device_s, host_s = sum(every) / self.timer_hz, trial.get("duration_s")
        if self.timer_bits is not None and self.timer_bits <= _WIDEST_BITS:
            wrap = 2.0**self.timer_bits
            hanging = _WRAP_SHARE <= (max(every) - min(every)) / wrap <= 1
            if not self.emulated and host_s is not None and wrap / self.timer_hz >= _SHORTEST_WRAP_S:
                hanging |= host_s - device_s >= _WRAP_SHARE * wrap / self.timer_hz
            if hanging:
                self.wrapped[name] = self.wrapped.get(name, 0) + 1
        # The rounds of a step stand in one trial, and between them lies whatever the link and the host took.
        rounds = trial["warm_ups"] if trial["type"] == "step" else 1
        if host_s is not None and device_s >= LONG_TRIAL_S * max(rounds, 1) and not self.emulated:
            keep = heapq.heappush if len(self._long) < MOST_LONG_TRIALS else heapq.heappushpop
            keep(self._long, (device_s, host_s))

    @property
    def long_trials_s(self) -> list[tuple[float, float]]:
        """(seconds by the device's clock, by the host's) of the longest trials, where both tell."""
        return sorted(self._long)

    @property
    def trial_count(self) -> int:
        return sum(self.trials.values())
