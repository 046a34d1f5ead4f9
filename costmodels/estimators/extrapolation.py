"""Whether what lies outside the training range matters to a cost.

Of the 19,805 ops of the stored runs (three devices, ten networks) that no fit saw, a quarter lie outside the range
of those that were fitted in something. Larger ones are foretold as well as any other (0.2 % off on average on the
emulated boards, others 0.15, however much larger; on ``native`` 3.5 as others, where they are ten times as large 12):
what a unit of work costs does not change, or hardly; they are said to be extrapolated only where they are many
times as large. Smaller ones are not (1.4 % there, 110 % on ``native``): what
stands around their loops is all that they cost, and larger ones hardly tell it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from costmodels.estimators.corrected import CorrectedTerms

#: Most of a cost that may be of counts beyond the most that an op had: with so much an op is five times as large.
BEYOND_MOST = 0.8
#: Most that counts may lack to the fewest that an op had, as a share of the cost.
BELOW_FEWEST = 0.1
#: Largest relative standard deviation of a cost that lies outside the range: loops that no op ran leave more open.
OPEN = 0.3


def matters(
    parts: Iterable[tuple[float, CorrectedTerms]],
    X: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
    spread: np.ndarray,
) -> np.ndarray:
    """Whether costs of ops, something of which lies outside the range, rest on more than the fitted ops tell.

    Args:
        parts: What predicts, and the weight of each.
        X: Of the ops, shape (n_ops, n_columns).
        limits: Least and largest value of each column, shape (n_columns,).
        spread: Relative standard deviations of the costs, shape (n_ops,).

    Returns:
        bool of shape (n_ops,).
    """
    low, high = limits
    beyond, below = np.zeros(len(X)), np.zeros(len(X))
    for weight, part in parts:
        terms, unit_costs = slice(*part.terms), part.terms_.coef_
        counts, fewest, most = X[:, terms], low[terms], high[terms]
        cost = np.maximum(counts @ unit_costs, np.finfo(float).tiny)
        beyond += weight * (np.maximum(counts - most, 0.0) @ unit_costs) / cost
        below += weight * (np.maximum(fewest - counts, 0.0) @ unit_costs) / cost
    return (beyond > BEYOND_MOST) | (below > BELOW_FEWEST) | (spread > OPEN)
