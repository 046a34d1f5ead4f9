"""Which window of a recording belongs to which trial of a run, where the two were made apart.

Both are sequences in the same order, and either may have what the other lacks: the recording the windows of timing
runs and of attempts that were repeated, the run trials that were measured while nothing was recorded. They are matched
by the windows' durations, as one matches two versions of a text: the longest common subsequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.energy.judge import Expected

#: Relative width of the bins in which the ratio of the two clocks is looked for.
_RATIO_BIN = 1e-5
#: By how much durations of the same window differ once that ratio is known: a crystal's drift.
_TOLERANCE = 3e-5


@dataclass(frozen=True)
class Match:
    """What a trial's windows are in a recording.

    Attributes:
        windows: Indices, one after the other; empty: none, or it is not certain which.
        reason: Why none.
    """

    windows: tuple[int, ...]
    reason: str = ""


def align(durations_s: Sequence[float], expected: Sequence[Expected], *, slack_s: float) -> tuple[list[Match], float]:
    """Match a recording's windows with what a device says that it made.

    Args:
        durations_s: Of all windows of the recording, in order.
        expected: What the device says, a trial each, in order.
        slack_s: By how much either may be off by itself: samples, and a device that is slow to set a pin.

    Returns:
        (a match for each of ``expected``, how much longer the recording's windows are than the device says: the ratio
        of the clocks). A trial that two windows could be is matched with neither.
    """
    found = np.asarray(durations_s, dtype=np.float64)
    ratio = _clock_ratio(found, expected, slack_s)
    fits = np.stack([_fits(found, e, ratio, slack_s) for e in expected], axis=1)  # [windows, expected]
    counts = np.array([e.count for e in expected])
    forward = _best(fits, counts)
    backward = _best(_ends(fits, counts)[::-1, ::-1], counts[::-1])[::-1, ::-1]
    best = int(forward[-1, -1])
    # A window may be a trial's if the best of all matchings goes through the two.
    may_be = []
    for j, e in enumerate(expected):
        begins = np.flatnonzero(fits[:, j])
        may_be.append([int(i) for i in begins if forward[i, j] + 1 + backward[i + e.count, j + 1] == best])
    claims = Counter(i + k for e, begins in zip(expected, may_be, strict=True) for i in begins for k in range(e.count))
    matches = []
    for e, begins in zip(expected, may_be, strict=True):
        mine = tuple(range(begins[0], begins[0] + e.count)) if begins else ()
        if not begins:
            matches.append(Match((), "the recording has no window of its duration in its place"))
        elif len(begins) > 1:
            matches.append(Match((), f"{len(begins)} windows of the recording could be it"))
        elif any(claims[i] > 1 for i in mine):
            matches.append(Match((), "the window that could be it could be another trial's"))
        else:
            matches.append(Match(mine))
    return matches, ratio


def _clock_ratio(found: np.ndarray, expected: Sequence[Expected], slack_s: float) -> float:
    """The ratio that most pairs of nearly equal durations have; 1 where there are none."""
    ratios = []
    for e in expected:
        if e.count == 1 and e.duration_s > 0:
            near = found[np.abs(found - e.duration_s) <= e.clock_tolerance * e.duration_s + slack_s]
            ratios.append(near / e.duration_s)
    every = np.concatenate(ratios) if ratios else np.array([])
    if not len(every):
        return 1.0
    bins = np.rint((every - 1) / _RATIO_BIN).astype(np.int64)
    values, counts = np.unique(bins, return_counts=True)
    # Neighbouring bins count too: the peak may lie on a border.
    weight = [counts[np.abs(values - value) <= 1].sum() for value in values]
    peak = values[int(np.argmax(weight))]
    return float(np.median(every[np.abs(bins - peak) <= 1]))


def _fits(found: np.ndarray, e: Expected, ratio: float, slack_s: float) -> np.ndarray:
    """Whether the ``e.count`` windows from each one on last as long as the device says: bool [windows]."""
    result = np.zeros(len(found), bool)
    if e.count <= len(found):
        sums = np.convolve(found, np.ones(e.count), mode="valid")
        wanted_s = e.duration_s * ratio
        result[: len(sums)] = np.abs(sums - wanted_s) <= _TOLERANCE * wanted_s + e.count * slack_s
    return result


def _ends(fits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The same table by the last of each trial's windows instead of the first."""
    ends = np.zeros_like(fits)
    for j, count in enumerate(counts):
        ends[count - 1 :, j] = fits[: max(0, len(fits) - count + 1), j]
    return ends


def _best(fits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Most matches among the first i windows and the first j trials: int [windows + 1, expected + 1]."""
    windows, trials = fits.shape
    best = np.zeros((windows + 1, trials + 1), np.int64)
    for j in range(trials):
        column = best[:, j].copy()
        begins = np.flatnonzero(fits[:, j])
        np.maximum.at(column, begins + counts[j], best[begins, j] + 1)
        best[:, j + 1] = np.maximum.accumulate(column)
    return best
