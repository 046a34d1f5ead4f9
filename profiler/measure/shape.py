"""The shape of repeated readings: drift, trend, outliers, two modes. Each by a published statistic, with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.measure.statistics import median

#: Chance at which a change that is none is taken for one.
SIGNIFICANCE = 0.01
#: Points that a slope is estimated from: it takes all their pairs.
_MOST_POINTS = 400
#: Readings below which two modes cannot be told from chance.
MODES_FROM = 30
#: Ashman's D, and share of the smaller mode, from which readings have two modes. In a simulation of 4,000 samples of 30
#: readings each it took no normal one for two, 0.3 % of uniform and 0.4 % of exponential ones; of 60, at most 0.03 %.
MODES_SEPARATION, MODES_SHARE = 6.0, 0.2
_MODES_TRIMMED = 0.05
#: Interquartile ranges beyond the quartiles where a reading is far out.
_FAR_OUT = 3.0


def drift(values: Sequence[float]) -> float:
    """How far the median moved from the first third of the values to the last, relative; 0 for fewer than 3."""
    third = len(values) // 3
    if not third:
        return 0.0
    first, last = median(values[:third]), median(values[-third:])
    return (last - first) / first if first else 0.0


def drift_is_chance(values: Sequence[float]) -> bool:
    """Whether the first third and the last may well be alike (Mann and Whitney's test, Ann. Math. Statist. 18, 1947).

    With fewer than 4 values each no test can tell, and what is seen counts.
    """
    third = len(values) // 3
    if third < 4:
        return False
    from scipy.stats import mannwhitneyu  # noqa: PLC0415 - takes a second

    return bool(mannwhitneyu(values[:third], values[-third:]).pvalue >= SIGNIFICANCE)


def scatter(values: Sequence[float]) -> float:
    """How far apart the quartiles of the values lie, relative to their median; 0 for fewer than 8."""
    if len(values) < 8:
        return 0.0
    low, middle, high = np.quantile(np.asarray(values, dtype=float), (0.25, 0.5, 0.75))
    return float((high - low) / middle) if middle else 0.0


def trend(values: Sequence[float]) -> float:
    """Relative change from the first value to the last where they rise or fall throughout; 0 where that may be chance.

    Whether they do is judged by Kendall's tau of the values against their order (Mann, Econometrica 13, 1945), how far
    by the median slope of all pairs (Theil 1950; Sen, JASA 63, 1968). At least 8 values tell.
    """
    if len(values) < 8:
        return 0.0
    from scipy.stats import kendalltau, theilslopes  # noqa: PLC0415

    y = np.asarray(values, dtype=float)
    if not (y != y[0]).any() or kendalltau(np.arange(len(y)), y).pvalue >= SIGNIFICANCE:
        return 0.0
    at = np.unique(np.linspace(0, len(y) - 1, min(len(y), _MOST_POINTS)).astype(int))
    middle = float(np.median(y))
    return float(theilslopes(y[at], at).slope) * (len(y) - 1) / middle if middle else 0.0


def slope_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the slope of y over x, by Theil and Sen; without bounds where x hardly differs."""
    from scipy.stats import theilslopes  # noqa: PLC0415

    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(a) < 8 or np.ptp(a) < 0.5 * a.max():
        return -math.inf, math.inf
    found = theilslopes(b, a, alpha=0.95)
    return float(found.low_slope), float(found.high_slope)


def far_out(values: Sequence[float], least: float) -> int:
    """How many values lie more than 3 interquartile ranges outside the quartiles (Tukey, Exploratory Data Analysis).

    Args:
        values: Readings; of fewer than 8 none is.
        least: A distance from the quartiles that is none: the timer's own steps, say.
    """
    if len(values) < 8:
        return 0
    y = np.asarray(values, dtype=float)
    low, high = np.quantile(y, (0.25, 0.75))
    reach = max(_FAR_OUT * (high - low), least)
    return int(np.count_nonzero((y < low - reach) | (y > high + reach)))


@dataclass(frozen=True)
class Modes:
    """Two values around which readings gather.

    Attributes:
        low, high: Mean of either group.
        share: Of the readings that belong to the higher one.
    """

    low: float
    high: float
    share: float


def two_modes(values: Sequence[float]) -> Modes | None:
    """The two groups that readings fall into, or None where one is enough.

    The groups are those with the largest variance between them (Otsu, IEEE Trans. SMC 9, 1979), the outermost
    twentieths left out; they are two where their means lie far apart for their widths: Ashman's
    D = √2 |μ₁ - μ₂| / √(σ₁² + σ₂²) (Ashman, Bird and Zepf, Astron. J. 108, 1994) above :data:`MODES_SEPARATION`.
    """
    if len(values) < MODES_FROM:
        return None
    y = np.sort(np.asarray(values, dtype=float))
    trimmed = int(_MODES_TRIMMED * len(y))
    y = y[trimmed : len(y) - trimmed]
    n, sums = len(y), np.cumsum(y)
    sizes = np.arange(1, n)
    between = (sums[:-1] / sizes - (sums[-1] - sums[:-1]) / (n - sizes)) ** 2 * sizes * (n - sizes)
    least = math.ceil(MODES_SHARE * n)
    split = least + int(np.argmax(between[least - 1 : n - least]))
    low, high = y[:split], y[split:]
    apart, width = high.mean() - low.mean(), math.sqrt(low.var() + high.var())
    if math.sqrt(2) * apart <= MODES_SEPARATION * width or apart == 0:
        return None
    return Modes(float(low.mean()), float(high.mean()), len(high) / n)
