"""Cross-validation over geometries: ops in folds, and how far methods are off on folds that they did not see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from costmodels.estimators.corrected import CorrectedTerms
from costmodels.estimators.terms import LentOps, NonNegativeTerms

#: A method that is worse than the best by this factor, of all ops or of those in the first folds, is given up: it is
#: not fitted again in other folds, nor in the outer cross-validation.
HOPELESS = 1.1
#: Folds after which a method may be given up.
_TRIED_FOLDS = 3


def typical_size(errors: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean size of errors, by their weights, the largest twentieth left out (at least one of 5 or more).

    The only op with some loop in it is foretold badly by folds that lack it: that says how rare it is, and nothing of
    the estimator.
    """
    size = np.abs(errors)
    order = np.argsort(size)
    kept = order[: len(size) - -(-len(size) // 20)] if len(size) >= 5 else order
    return float(np.average(size[kept], weights=None if weight is None else weight[kept]))


def folds_by(groups: np.ndarray, n_folds: int, random_state: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of each fold; rows of one group stand on the same side.

    Args:
        groups: Of shape (n_ops,), any labels.
        n_folds: As many, or as there are groups where those are fewer.
        random_state: Deals the groups out.
    """
    labels, of_row = np.unique(groups, return_inverse=True)
    dealt = np.random.default_rng(random_state).permutation(len(labels)) % n_folds
    for fold in range(min(n_folds, len(labels))):
        test = dealt[of_row] == fold
        yield np.flatnonzero(~test), np.flatnonzero(test)


class FoldedOps:
    """Ops, and all but those of each fold in turn: what methods are compared on.

    Methods that correct the same terms get them fitted once.
    """

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray | None,
        folds: Iterable[tuple[np.ndarray, np.ndarray]],
        *,
        groups: np.ndarray,
        lent: LentOps | None,
    ) -> None:
        self._X, self._y, self._groups, self._weight, self._lent = X, y, groups, weight, lent
        self._folds = list(folds)
        self._terms: dict[tuple[tuple[int, int], int | None], NonNegativeTerms] = {}

    def terms(self, candidate: CorrectedTerms, without: int | None = None) -> NonNegativeTerms:
        """The terms of a candidate, fitted to all ops or to those of all folds but one."""
        key = candidate.terms, without
        if key not in self._terms:
            rows, lent = slice(None), self._lent
            if without is not None:
                rows, test = self._folds[without]
                lent = lent and lent.without(self._groups[test])
            if candidate.terms[0] > 0:
                lent = None  # terms that need no kernel
            self._terms[key] = candidate.fitted_terms(self._X[rows], self._y[rows], self._weights(rows), lent)
        return self._terms[key]

    def _weights(self, rows: slice | np.ndarray) -> np.ndarray | None:
        return None if self._weight is None else self._weight[rows]

    def log_errors(self, fitted: CorrectedTerms, best: np.ndarray | None) -> np.ndarray:
        """Log errors of every op when its fold is left out, with the hyperparameters that were fitted to all.

        Args:
            fitted: To all ops.
            best: The same of the best method so far. One that is hopeless beside it is given up: then the errors are
                those of the first folds alone.
        """
        X, y = self._X, self._y
        errors, judged = np.empty(len(y)), np.zeros(len(y), dtype=bool)
        for fold, (train, test) in enumerate(self._folds):
            terms, weight = self.terms(fitted, fold), self._weights(train)
            predicted = fitted.refitted(X[train], y[train], terms, weight).predict(X[test])
            errors[test] = np.log(y[test] / np.maximum(predicted, 1e-6 * y[test]))
            judged[test] = True
            if best is None or fold + 1 < _TRIED_FOLDS:
                continue
            weight = self._weights(judged)
            score, least = (typical_size(np.expm1(e[judged]), weight) for e in (errors, best))
            if score > HOPELESS * least:
                break
        return errors[judged]
