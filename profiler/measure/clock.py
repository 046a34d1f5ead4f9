"""In which steps a timer goes, which may be coarser than what it counts in.

A Linux machine's clock tells nanoseconds, made from a counter that advances every 10 ns (an x86-64 of AMD's), every
18.5 (54 MHz: Raspberry Pi 4 and 5) or every 52 (19.2 MHz: Raspberry Pi 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

#: Readings longer than this tell little: rounding adds up over their many steps.
_LONGEST_TICKS = 1000
#: Steps of fewer ticks make no difference.
_LEAST_TICKS = 4.0
#: Different readings, those that rounding sets apart taken as one, without which there may be a step or chance.
_LEAST_LEVELS = 3
#: Share of the readings that are whole steps.
_SHARE = 0.98
#: A step that is no whole number of ticks begins and ends between two of them.
ROUNDING_TICKS = 1.0


class Clock:
    """Learns from readings, which may be of anything, in which steps the timer goes."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()
        self._step: float | None = None

    def add(self, ticks: Sequence[float]) -> None:
        """Learn from readings; long ones are passed over."""
        if ticks and min(ticks) <= _LONGEST_TICKS:
            self._counts.update(value for value in ticks if 0 < value <= _LONGEST_TICKS)
            self._step = None

    @property
    def step_ticks(self) -> float:
        """The step; 1 where readings show none that is coarser."""
        if self._step is None:
            self._step = _step(self._counts)
        return self._step

    @property
    def jitter_ticks(self) -> float:
        """How far apart readings of the same may lie for the timer's steps alone: two of these."""
        step = self.step_ticks
        return 2 * step + (ROUNDING_TICKS if step > 1 else 0)


def _step(counts: Counter[float]) -> float:
    if not counts:
        return 1.0
    values = np.array(sorted(counts))
    weights = np.array([counts[value] for value in values], dtype=float)
    level = np.concatenate([[0], np.cumsum(np.diff(values) > ROUNDING_TICKS)])
    if level[-1] + 1 < _LEAST_LEVELS:
        return 1.0
    total = np.bincount(level, weights)
    centres = np.bincount(level, weights * values) / total
    # Between the two neighbours that were read most often nothing is left out.
    most = int(np.argmax(np.minimum(total[1:], total[:-1])))
    step = centres[most + 1] - centres[most]
    if step < _LEAST_TICKS:
        return 1.0
    for _ in range(3):
        steps = np.rint(values / step)
        if not steps.any():
            return 1.0
        step = float((weights * steps * values).sum() / (weights * steps**2).sum())
    whole = np.abs(values - step * np.rint(values / step)) <= ROUNDING_TICKS
    return step if weights[whole].sum() >= _SHARE * weights.sum() else 1.0
