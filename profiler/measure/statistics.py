"""When a median is known well enough."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from scipy.stats import binom

from profiler.store_tables import mad, median

__all__ = ["identical", "mad", "median", "median_interval", "relative_interval"]

CONFIDENCE = 0.95


@lru_cache(maxsize=4096)
def _rank(n: int) -> int | None:
    """Largest r so that the r-th smallest and r-th largest of ``n`` values enclose the median with CONFIDENCE.

    The number of values below the median is binomial(n, 1/2), whatever the distribution; r is its (1 - CONFIDENCE) / 2
    quantile (W. J. Conover, Practical Nonparametric Statistics, section 3.2). None where even the extremes do not.
    """
    r = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5))
    return r if r >= 1 else None


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
    middle = median(list(values)) if values else 0.0
    if interval is None or middle <= 0:
        return 0.0 if identical(values) else float("inf")
    return (interval[1] - interval[0]) / 2 / middle
