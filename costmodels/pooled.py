"""What ops cost whose kernel was never fitted: terms pooled over the kernels that were, and how far off those are.

Kernels differ from one another by much more than the ops of one do from its fit, so the residuals of the pooled terms
say little about a kernel that is missing. What does is how far off they are of kernels that were measured, each left
out of the fit. A kernel gets the terms of its pass in its dtype, failing that of its pass, failing that of all passes;
each of these levels is judged by leaving out what is missing where it is used: a kernel, a dtype of a pass, a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from costmodels import saved
from costmodels.estimators import NonNegativeTerms
from costmodels.features import plain_terms
from costmodels.intervals import COVERAGE, WIDEST
from costmodels.sources import NORMAL_90
from profiler.ops import Op

#: Key of the terms of all passes, and name of that level.
ANY_PASS = "any"
#: Levels of terms, the nearest first.
LEVELS = ("pass/dtype", "pass", ANY_PASS)
#: Weight of the unit costs of all passes beside the ops of one.
PULL = 0.1
#: Half-width where fewer kernels were left out than tell a 90 % quantile: a factor of ten, which holds 90 % of the
#: stored runs' on the emulated boards at the farthest level.
UNTOLD = math.log(10.0)


@dataclass(frozen=True)
class PooledTerms:
    """Costs of ops of kernels that were never fitted.

    Attributes:
        terms: Pass, ``PASS/DTYPE`` or ``any`` to terms over :data:`~costmodels.features.PLAIN_TERMS`.
        widths: By level (:data:`LEVELS`) the half-width of 90 % intervals, in logarithms.
    """

    terms: Mapping[str, NonNegativeTerms]
    widths: Mapping[str, float]

    @classmethod
    def fit(cls, ops: Sequence[Op], y: np.ndarray) -> PooledTerms:
        """Learn from ops and what they cost, positive, of shape (n_ops,)."""
        X = plain_terms(ops)
        kernels = [f"{op.kind}/{pass_and_dtype(op)}" for op in ops]
        labels = [kernels, *([_key(level, op) for op in ops] for level in LEVELS)]
        terms = {ANY_PASS: NonNegativeTerms().fit(X, y)}
        widths, least = {}, 0.0
        for level, (missing, pooled) in zip(LEVELS, pairwise(labels), strict=True):
            if level != ANY_PASS:
                terms |= {key: _drawn(terms[ANY_PASS], X[rows], y[rows]) for key, rows in rows_by(pooled).items()}
            # What is further off is known no better.
            widths[level] = least = max(least, _width(kernels, _left_out(X, y, missing, pooled)))
        return cls(terms, widths)

    def predict(self, ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
        """Costs of ops of one kernel, and standard deviations as :func:`interval` takes them, of shape (n_ops,)."""
        level = next(level for level in LEVELS if _key(level, ops[0]) in self.terms)
        mean, std = self.terms[_key(level, ops[0])].predict(plain_terms(ops), return_std=True)
        stated = NORMAL_90 * std / np.maximum(mean, np.finfo(float).tiny)
        width = np.clip(stated, self.widths[level], max(WIDEST, self.widths[level]))
        return mean, mean * np.expm1(width) / NORMAL_90

    def completed(self, other: PooledTerms) -> PooledTerms:
        """With another's terms where there are none; as uncertain as the more uncertain of the two."""
        widths = {level: max(self.widths[level], other.widths[level]) for level in LEVELS}
        return PooledTerms({**other.terms, **self.terms}, widths)

    # ------------------------------------------------------------------------------------------------- saving

    def to_record(self, prefix: str, arrays: saved.Arrays) -> dict:
        """The terms' JSON parts by their keys; arrays go into ``arrays`` under ``prefix``."""
        record = {}
        for key, terms in sorted(self.terms.items()):
            where = f"{prefix}pooled-{key}/"
            record[key] = {"arrays": where, **saved.terms_to_record(terms, where, arrays)}
        return record

    @classmethod
    def from_record(cls, record: dict, widths: Mapping[str, float], arrays: saved.Arrays) -> PooledTerms:
        """What :meth:`to_record` wrote, and the widths, which models of earlier versions lack.

        Raises:
            KeyError, TypeError, ValueError: the record is damaged.
        """
        terms = {key: saved.terms_from_record(part, part["arrays"], arrays) for key, part in record.items()}
        if ANY_PASS not in terms:
            raise ValueError(f"no pooled terms {ANY_PASS}")
        return cls(terms, {level: float(widths.get(level, UNTOLD)) for level in LEVELS})


def interval(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of 90 % intervals that reach as far down as up in logarithms; up it is as far as a step's that adds up such
    standard deviations."""
    high = mean + NORMAL_90 * std
    return mean * (mean / np.maximum(high, np.finfo(float).tiny)), high


def rows_by(keys: Iterable[str]) -> dict[str, list[int]]:
    """Row numbers by key, keys in the order in which they first appear."""
    rows: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return rows


def pass_and_dtype(op: Op) -> str:
    """Key of the pooled terms between a group's and those of its pass."""
    return f"{op.pass_}/{op.dtype}"


def _key(level: str, op: Op) -> str:
    return {"pass/dtype": pass_and_dtype(op), "pass": str(op.pass_), ANY_PASS: ANY_PASS}[level]


def _drawn(towards: NonNegativeTerms, X: np.ndarray, y: np.ndarray) -> NonNegativeTerms:
    return NonNegativeTerms(ridge=PULL, prior=towards.coef_).fit(X, y)


def _left_out(X: np.ndarray, y: np.ndarray, missing: Sequence[str], pooled: Sequence[str]) -> np.ndarray:
    """Logarithms of measured over foreseen, each op by terms of its pool without all that go by the same ``missing``;
    NaN where nothing else is in the pool."""
    of_pool = np.array(pooled)
    errors = np.full(len(y), np.nan)
    for own in rows_by(missing).values():
        others = np.ones(len(y), dtype=bool)
        others[own] = False
        pool = others & (of_pool == of_pool[own[0]])
        if not pool.any():
            continue
        terms = NonNegativeTerms().fit(X[others], y[others])
        if not pool[others].all():
            terms = _drawn(terms, X[pool], y[pool])
        foreseen = np.maximum(terms.predict(X[own]), np.finfo(float).tiny)
        errors[own] = np.log(y[own] / foreseen)
    return errors


def _width(kernels: Sequence[str], errors: np.ndarray) -> float:
    """The size of error below which lie 90 % of the ops of a kernel to come.

    Every kernel counts the same, whatever the number of its ops, and the one to come as one that lies above all: split
    conformal prediction of two layers, by pooled distributions (Dunn, Wasserman and Ramdas, arXiv 1809.07441). Fewer
    than nine do not tell the quantile.
    """
    known = np.flatnonzero(~np.isnan(errors))
    sizes, weights = np.abs(errors[known]), np.zeros(len(known))
    groups = rows_by([kernels[i] for i in known])
    for rows in groups.values():
        weights[rows] = 1 / len(rows)
    order = np.argsort(sizes)
    share = np.cumsum(weights[order]) / (len(groups) + 1)
    at = int(np.searchsorted(share, COVERAGE - 1e-9))
    if at < len(order):
        return min(float(sizes[order][at]), WIDEST)
    return min(max([UNTOLD, *sizes.tolist()]), WIDEST)
