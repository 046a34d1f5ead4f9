"""Accuracy figures of predictions."""

from __future__ import annotations

import numpy as np

#: What :func:`accuracy` gives, in order.
FIGURES = (
    *("n", "mape_percent", "within_5_percent", "within_10_percent", "p95_percent", "bias_percent"),
    "coverage_90_percent",
)
#: Relative width by which a measured figure may lie outside an interval: its last digit.
LAST_DIGIT = 1e-6


def accuracy(
    measured: np.ndarray, predicted: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None
) -> dict[str, float]:
    """Figures over ops or steps, all of relative error ``predicted / measured - 1``.

    Args:
        measured: What was measured, positive, of shape (n,).
        predicted: What was foreseen.
        low, high: Bounds that are claimed to hold 90 % of what is measured; None where none are claimed.

    Returns:
        :data:`FIGURES`: ``n``, ``mape_percent`` (mean absolute), ``within_5_percent`` and ``within_10_percent`` (share
        of ops, in percent), ``p95_percent`` (95th percentile of the absolute error), ``bias_percent`` (mean),
        ``coverage_90_percent`` (share of ops whose measured cost lies within the bounds). NaN where there is nothing to
        tell: without ops, or of the coverage without bounds.
    """
    if len(measured) == 0:
        return {"n": 0} | dict.fromkeys(FIGURES[1:], float("nan"))
    measured, predicted = np.asarray(measured, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    error = 100 * (predicted / measured - 1)
    size = np.abs(error)
    covered = float("nan")
    if low is not None and high is not None:
        slack = LAST_DIGIT * measured
        covered = float(100 * np.mean((measured >= low - slack) & (measured <= high + slack)))
    return {
        "n": len(error),
        "mape_percent": float(size.mean()),
        "within_5_percent": float(100 * np.mean(size <= 5)),
        "within_10_percent": float(100 * np.mean(size <= 10)),
        "p95_percent": float(np.quantile(size, 0.95)),
        "bias_percent": float(error.mean()),
        "coverage_90_percent": covered,
    }


def best_scalar(amount: np.ndarray, cost: np.ndarray) -> float:
    """The ``c`` with the least mean of ``|c · amount / cost - 1|``: a weighted median of ``cost / amount``.

    No other scalar does better by the figure that the baseline is judged by.
    """
    ratio = cost / amount
    order = np.argsort(ratio)
    weight = np.cumsum((1 / ratio)[order])
    return float(ratio[order][np.searchsorted(weight, weight[-1] / 2)])
