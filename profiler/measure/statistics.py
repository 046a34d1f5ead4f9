"""When a median is known well enough."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import comb

from profiler.measure.clock import ROUNDING_TICKS, Clock

CONFIDENCE = 0.95
#: Share of readings below that of a quiet device.
QUIET_SHARE = 0.05


@lru_cache(maxsize=4096)
def _rank(n: int) -> int | None:
    """Largest r so that the r-th smallest and r-th largest of ``n`` values enclose the median with CONFIDENCE.

    The number of values below the median is binomial(n, 1/2), whatever the distribution; r is its (1 - CONFIDENCE) / 2
    quantile (W. J. Conover, Practical Nonparametric Statistics, section 3.2). None where even the extremes do not.
    """
    below, r = 1, 0  # below: 2^n P(X <= r)
    while below / 2**n <= (1 - CONFIDENCE) / 2:  # whole numbers: 2**n has no float from 1024 on
        r += 1
        below += comb(n, r)
    return r or None


def median(values: Sequence[float]) -> float:
    """Median; for the short lists of a trial much faster than numpy's."""
    ordered = sorted(values)
    half, odd = divmod(len(ordered), 2)
    return float(ordered[half]) if odd else (ordered[half - 1] + ordered[half]) / 2


def mad(values: Sequence[float]) -> float:
    """Median absolute deviation from the median, unscaled."""
    middle = median(values)
    return median([abs(v - middle) for v in values])


def quiet(values: Sequence[float], step: float = 1.0) -> tuple[float, float]:
    """What readings are where nothing else held the device up, and how well that is known.

    What disturbs a shared host only ever adds time, to many readings in a row and to more than half of them at times,
    so that their median is as much the neighbours' as the op's (Chen and Revels, arXiv 1608.04295). The lowest single
    reading would be a matter of how many there are: hence the 5th percentile (of fewer than 21 the lowest).

    A timer tells whole ticks, of which the shortest ops take few. Where readings are equal the percentile is that of
    grouped data: as far from what they read, half a tick at most, as its rank is from the middle of theirs. That all
    are equal says nothing of that kind: an exact timer's are.

    One that goes in steps of many ticks reads a time between two of them as either, the nearer one as much more often
    that the mean is right. There it is the mean of what was read no further than a step from the percentile.

    Args:
        values: Readings, in ticks.
        step: In which the timer goes, in ticks (:attr:`profiler.measure.clock.Clock.step_ticks`).

    Returns:
        What they are, and by how much that may be off: as far as the 15th percentile lies above the lowest, which is
        little only where readings of two rounds or more of ten or more agree. Of a timer in steps one of these does
        not count, but how well so many readings of whole steps tell a mean.
    """
    ordered = sorted(values)
    low, high = quiet_ranks(len(ordered))
    lowest, apart = ordered[low], ordered[high] - ordered[0]
    if step > 1:
        reach = step + ROUNDING_TICKS
        near = ordered[bisect_left(ordered, lowest - reach) : bisect_right(ordered, lowest + reach)]
        return sum(near) / len(near), max(apart - reach, step / 2 / len(near) ** 0.5)
    below = bisect_left(ordered, lowest)
    equal = bisect_right(ordered, lowest) - below
    within_tick = (low - below - (equal - 1) / 2) / equal if equal < len(ordered) else 0.0
    return float(lowest + within_tick), float(apart)


def lowest_agree(values: Sequence[float], target: float, clock: Clock | None = None) -> bool:
    """Whether the lowest readings are a quiet host's: within ``target`` of each other, relative, or two steps of the
    timer, of which ``clock`` knows where they are not whole ticks."""
    ordered = sorted(values)
    low, high = quiet_ranks(len(ordered))
    return ordered[high] - ordered[0] <= max(target * ordered[low], (clock or Clock()).jitter_ticks)


def quiet_ranks(n: int) -> tuple[int, int]:
    """Which of ``n`` sorted readings, from 0, are the 5th and the 15th percentile of :func:`quiet`."""
    return int(QUIET_SHARE * (n - 1)), int(3 * QUIET_SHARE * (n - 1))


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the median by order statistics, or None for fewer than 6 values."""
    n = len(values)
    rank = _rank(n) if n else None
    if rank is None:
        return None
    ordered = sorted(values)
    return ordered[rank - 1], ordered[n - rank]


def identical(values: Sequence[float], tolerance: float = 0) -> bool:
    """Whether there are at least two values and none differs by more than ``tolerance`` from another."""
    return len(values) > 1 and max(values) - min(values) <= tolerance


def relative_interval(values: Sequence[float]) -> float:
    """Half the width of the median's 95 % interval over the median; infinite while there is no interval."""
    interval = median_interval(values)
    middle = median(values) if values else 0.0
    if interval is None or middle <= 0:
        return 0.0 if identical(values) else float("inf")
    return (interval[1] - interval[0]) / 2 / middle


def steady(values: Sequence[float], target: float) -> bool:
    """Whether the median is known to ``target`` (half its 95 % interval over it), or the values are equal.

    A timer that is coarser than an instruction may read one tick more or less; that is no unsteadiness.
    """
    return identical(values, tolerance=1) or relative_interval(values) <= target
