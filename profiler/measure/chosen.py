"""What a design knows of the ops that were measured so far: their latencies, and how long measuring them took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from profiler.devices.identity import Identity
from profiler.measure.clock import Clock
from profiler.measure.schedule import is_linux
from profiler.measure.statistics import mad, median, quiet
from profiler.measure.trials import COUNTING, accepted_ticks, caches_of
from profiler.ops import Op


class Known(NamedTuple):
    """Measured ops: arrays in the order of ``ops``.

    Attributes:
        ops: Each once.
        latency_us: Medians, or on a Linux host those of a quiet one, the harness's own cost subtracted; above 0.
        noise: Relative standard errors of those.
    """

    ops: list[Op]
    latency_us: np.ndarray
    noise: np.ndarray


class Results:
    """Collects trials, and says what they come to.

    Args:
        identity: The device's.
        caches: With what in them ops are timed that count here.
    """

    def __init__(self, identity: Identity, caches: str) -> None:
        self._identity = identity
        self._caches = caches
        self._ticks: dict[str, list[int]] = {}
        self._empty: list[int] = []
        self._clock = Clock()
        self._wall_s: dict[str, float] = {}
        self.ops: dict[str, Op] = {}
        self.held_out: set[str] = set()

    def add(self, trial: dict[str, Any], wall_s: float | None = None) -> None:
        """Take in one trial.

        Args:
            trial: As the run has it.
            wall_s: How long it took with everything around it, where somebody looked.
        """
        self._clock.add(trial["ticks"])
        if trial["type"] == "empty" and caches_of(trial) == self._caches:
            self._empty += accepted_ticks(trial)
        if trial["type"] != "op":
            return
        key = trial["op_key"]
        if key not in self.ops:
            self.ops[key] = Op.from_dict(trial["op"])
        if trial.get("held_out"):
            self.held_out.add(key)
        if wall_s is not None:
            self._wall_s[key] = self._wall_s.get(key, 0.0) + wall_s
        if caches_of(trial) == self._caches and trial["status"] in COUNTING:
            self._ticks.setdefault(key, []).extend(accepted_ticks(trial))

    def known(self, keys: Iterable[str]) -> Known:
        """Those of the ops that were timed."""
        step = self._clock.step_ticks
        overhead = overhead_error = 0.0
        if self._empty and is_linux(self._identity):
            overhead, overhead_error = quiet(self._empty, step)
        elif self._empty:
            overhead = median(self._empty)
        ops, latency, noise = [], [], []
        for key in keys:
            ticks = self._ticks.get(key)
            if not ticks:
                continue
            if is_linux(self._identity):
                middle, error = quiet(ticks, step)
                error = math.hypot(error, overhead_error) if step > 1 else error
            else:  # of a median, by its MAD
                middle, error = median(ticks), 1.253 * 1.4826 * mad(ticks) / len(ticks) ** 0.5
            net = middle - overhead
            if net <= 0:
                continue
            ops.append(self.ops[key])
            latency.append(self._identity.ticks_to_us(net))
            noise.append(error / net)
        return Known(ops, np.array(latency), np.array(noise))

    def pace(self) -> Pace:
        """How long measuring takes, by what was seen so far."""
        seen = self.known(self._wall_s)
        wall = np.array([self._wall_s[op.key] for op in seen.ops])
        return Pace.of(seen.latency_us, wall)


class Pace(NamedTuple):
    """Seconds that measuring one op takes: ``each_s + per_us * latency``."""

    each_s: float
    per_us: float

    @classmethod
    def of(cls, latency_us: np.ndarray, wall_s: np.ndarray) -> Pace:
        """Fitted to what was seen, neither part negative; a guess where fewer than 8 ops were."""
        if len(wall_s) < 8:
            return cls(0.1, 1e-5)
        from scipy.optimize import nnls  # noqa: PLC0415

        columns = np.column_stack([np.ones(len(wall_s)), latency_us])
        scale = columns.max(axis=0)
        (each, per), _ = nnls(columns / scale, wall_s)
        return cls(max(each / scale[0], 1e-4), per / scale[1])

    def seconds(self, latency_us: np.ndarray | Sequence[float]) -> np.ndarray:
        return self.each_s + self.per_us * np.asarray(latency_us, dtype=float)
