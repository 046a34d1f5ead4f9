"""What a work term costs where a group's own ops do not tell: what its namesakes cost in the other groups.

Kernels name their terms by what a loop does, so that ``single_taps`` is much the same instructions in ``depthwise``
forward as in its ``grad_input``. Nine layers of a network cannot tell fifteen terms apart; together with other kernels
they can.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from costmodels.estimators import NonNegativeTerms

#: Terms that get no prior: traffic shows in few devices, and what it costs there depends on the loop around it.
NO_PRIOR = frozenset({"bytes_read", "bytes_written"})

#: Names, work counts of shape (n_ops, n_terms), and a fit of them without priors.
GroupFit = tuple[tuple[str, ...], np.ndarray, NonNegativeTerms]


def prior_costs(groups: Mapping[str, GroupFit]) -> dict[str, np.ndarray]:
    """Prior unit costs of every group's terms.

    A term's prior is the median of what terms of its name cost in the *other* groups whose ops have it; failing that,
    of terms with the same last word (``pair_taps``, ``single_taps``); failing that, 0.

    Args:
        groups: By group key.

    Returns:
        Group key to an array of shape (n_terms,), in the unit of the fits' costs.
    """
    known: dict[str, list[tuple[str, float]]] = {}
    for key, (names, counts, fit) in groups.items():
        for name, column, cost in zip(names, counts.T, fit.coef_, strict=True):
            if column.any() and cost > 0:
                for label in (name, _last_word(name)):
                    known.setdefault(label, []).append((key, float(cost)))
    return {key: np.array([_prior(name, key, known) for name in names]) for key, (names, _, _) in groups.items()}


def _prior(name: str, group: str, known: Mapping[str, list[tuple[str, float]]]) -> float:
    if name in NO_PRIOR:
        return 0.0
    for label in (name, _last_word(name)):
        costs = [cost for other, cost in known.get(label, ()) if other != group]
        if costs:
            return float(np.median(costs))
    return 0.0


def _last_word(name: str) -> str:
    """As a label that no whole term is called."""
    return "_" + name.rpartition("_")[2]
