"""Intervals that hold 90 % of measurements: conformal prediction with normalised residuals.

The errors of ops that the fit did not see, each over the standard deviation that was stated for it, are the scores
(Lei et al., arXiv 1604.04173, section 5.2); an interval is as many stated standard deviations wide as 90 % of the
scores are small. This needs ops that are exchangeable with those to come: held-out ops, drawn at random, or, where
there are none, the errors of a cross-validation. Ops that a design chose for what they teach are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodels.sources import NORMAL_90

#: Share of measurements that an interval holds.
COVERAGE = 0.9
#: How many scores of its own a group needs to count as much as all groups together.
POOLED_SCORES = 30
#: Stated standard deviations are taken to be at least this, a millionth: what computing in floats leaves.
LEAST_STD = 1e-6
#: No interval reaches further than a factor of about 150: whatever is beyond that is not known at all.
WIDEST = 5.0
#: Key of what groups without scores get.
POOLED = "any"


@dataclass(frozen=True)
class Intervals:
    """Half-widths of intervals in logarithms, as multiples of stated relative standard deviations.

    Attributes:
        widths: Group key to multiple; :data:`POOLED` for groups without scores.
        n: How many scores they come from.
        calibrated_on: ``held-out ops``, ``cross-validation`` or ``nothing``.
    """

    widths: Mapping[str, float]
    n: int
    calibrated_on: str

    @classmethod
    def calibrated(cls, groups: Sequence[str], scores: np.ndarray, calibrated_on: str) -> Intervals:
        """Learn from scores of shape (n,) and the groups of their ops.

        A group's multiple is a quantile of its own scores together with those of all, which weigh as much as
        :data:`POOLED_SCORES` of its own: with few of its own it is that of all, with many its own.
        """
        if not len(scores):
            return cls({POOLED: NORMAL_90}, 0, "nothing")
        labels = np.asarray(groups)
        everywhere = np.full(len(scores), min(POOLED_SCORES, len(scores)) / len(scores))
        widths = {POOLED: _quantile(scores, np.ones(len(scores)))}
        for key in dict.fromkeys(groups):
            widths[key] = _quantile(scores, everywhere + (labels == key))
        return cls(widths, len(scores), calibrated_on)

    def around(self, key: str, mean: np.ndarray, std: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the intervals of ops of one group, never narrower than the noise floor, a relative deviation."""
        multiple = self.widths.get(key, self.widths[POOLED])
        stated = np.maximum(std / np.maximum(mean, np.finfo(float).tiny), LEAST_STD)
        width = np.minimum(np.maximum(multiple * stated, NORMAL_90 * floor), WIDEST)
        return mean * np.exp(-width), mean * np.exp(width)

    def to_record(self) -> dict:
        return {"widths": dict(sorted(self.widths.items())), "n": self.n, "calibrated_on": self.calibrated_on}

    @classmethod
    def from_record(cls, record: dict) -> Intervals:
        widths = {str(key): float(width) for key, width in record["widths"].items()}
        if POOLED not in widths:
            raise ValueError(f"no interval for {POOLED}")
        return cls(widths, int(record["n"]), str(record["calibrated_on"]))


def scores_of(log_errors: np.ndarray, relative_stds: np.ndarray) -> np.ndarray:
    """Sizes of errors over what was stated for them."""
    return np.abs(log_errors) / np.maximum(relative_stds, LEAST_STD)


def _quantile(scores: np.ndarray, weights: np.ndarray) -> float:
    """The score below which lies :data:`COVERAGE` of the weight, the op to come counted as one above all.

    It weighs as much as one of so many equal scores as these are worth (Kish's effective sample size): few scores of a
    group's own that lean on many of others do not widen its intervals as few scores alone would have to.
    """
    order = np.argsort(scores)
    to_come = (weights**2).sum() / weights.sum()
    share = np.cumsum(weights[order]) / (weights.sum() + to_come)
    return float(scores[order][min(np.searchsorted(share, COVERAGE), len(scores) - 1)])
