"""What a work term costs where a group's own ops do not tell: what its namesakes cost in the other groups.

Kernels name their terms by what a loop does, so that ``single_taps`` is much the same instructions in ``depthwise``
forward as in its ``grad_input``. Nine layers of a network cannot tell fifteen terms apart; together with other kernels
they can.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from costmodels.estimators import NonNegativeTerms

#: Terms that get no prior: traffic shows in few devices, and what it costs there depends on the loop around it.
NO_PRIOR = frozenset({"bytes_read", "bytes_written"})

#: Names, work counts of shape (n_ops, n_terms), and a fit of them without priors.
GroupFit = tuple[tuple[str, ...], np.ndarray, NonNegativeTerms]


class SharedGroup(NamedTuple):
    """Ops of one group: names of its terms, their counts of shape (n_ops, n_terms), costs of shape (n_ops,), dtype."""

    names: tuple[str, ...]
    counts: np.ndarray
    costs: np.ndarray
    dtype: str


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


def shared_costs(groups: Mapping[str, SharedGroup], few: Collection[str]) -> dict[str, np.ndarray]:
    """Prior unit costs of the terms of groups of so few ops that each alone tells its terms hardly apart.

    Terms of one name and data type are taken to cost the same everywhere and are fitted together, to the ops of all
    groups. Where no other group has a term, the median of what terms of its name in another data type, or failing that
    with the same last word, cost by that fit; failing that, 0.

    Args:
        groups: By group key.
        few: Keys of those groups.

    Returns:
        Of each of ``few`` an array of shape (n_terms,), in the unit of the costs.
    """
    columns: dict[tuple[str, str], int] = {}
    having: dict[tuple[str, str], set[str]] = {}
    for key, group in groups.items():
        for name, met in zip(group.names, group.counts.any(axis=0), strict=True):
            if name not in NO_PRIOR and met:
                columns.setdefault((name, group.dtype), len(columns))
                having.setdefault((name, group.dtype), set()).add(key)
    rows = []
    for group in groups.values():
        block = np.zeros((len(group.costs), len(columns)))
        for name, column in zip(group.names, group.counts.T, strict=True):
            if (name, group.dtype) in columns:
                block[:, columns[name, group.dtype]] += column
        rows.append(block)
    fit = NonNegativeTerms().fit(np.vstack(rows), np.concatenate([group.costs for group in groups.values()]))
    known: dict[str, list[tuple[str, float]]] = {}
    for term, column in columns.items():
        for label in (term[0], _last_word(term[0])):
            if fit.coef_[column] > 0:
                known.setdefault(label, []).extend((key, float(fit.coef_[column])) for key in having[term])

    def cost(name: str, key: str) -> float:
        term = (name, groups[key].dtype)
        shared = having.get(term, set()) - {key}
        return float(fit.coef_[columns[term]]) if shared else _prior(name, key, known)

    return {key: np.array([cost(name, key) for name in groups[key].names]) for key in few}


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
