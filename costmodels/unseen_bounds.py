"""Intervals that may be judged on the ops that the model's own were calibrated on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from costmodels.measured import Measured
from costmodels.target import TargetModel


def unseen_bounds(
    target: TargetModel, calibrated: Iterable[str], judged: Measured, measured: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """``bounds``, but of ops that the model's intervals were calibrated on those of intervals that were calibrated on
    the other half of them, or on none where that is too few: their own hold 90 % of them by construction.

    Args:
        target: The model of one target.
        calibrated: Geometries of the ops that its intervals were calibrated on.
        judged: Ops that its fit never saw.
        measured: What they cost, of shape (n_ops,); 0 or NaN where that is unknown.
        bounds: Low and high, of shape (n_ops, 2).
    """
    geometries = np.array(judged.geometries)
    names = np.array(sorted(set(calibrated) & set(geometries)))
    halves = np.array_split(np.random.default_rng(0).permutation(names), 2)
    bounds = bounds.copy()
    for own, other in (halves, halves[::-1]):
        rows, others = (np.flatnonzero(np.isin(geometries, half) & (measured > 0)) for half in (own, other))
        if len(rows):
            half_calibrated = target.uncalibrated().calibrate([judged.ops[i] for i in others], measured[others])
            foreseen = half_calibrated.predict([judged.ops[i] for i in rows])
            bounds[rows] = np.column_stack([foreseen.low_90, foreseen.high_90])
    return bounds
