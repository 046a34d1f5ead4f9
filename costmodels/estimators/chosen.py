"""Which estimator predicts the ops of a kernel best: compared by nested cross-validation over geometries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, check_X_y

from costmodels.estimators.corrected import CorrectedTerms
from costmodels.estimators.extrapolation import matters
from costmodels.estimators.folds import HOPELESS, FoldedOps, folds_by, typical_size
from costmodels.estimators.inputs import matrix
from costmodels.estimators.process import ResidualProcess
from costmodels.estimators.terms import EXACT, LentOps
from costmodels.estimators.trees import BoostedTrees

#: What is compared, the simplest first, and what each is.
METHODS: dict[str, str] = {
    "terms": "non-negative terms over the kernel's work counts",
    "process": "Gaussian process on log features, times four terms that need no kernel (calls, MACs, words moved)",
    "terms_process": "terms times a Gaussian process on the residual",
    "terms_trees": "terms times gradient-boosted trees on the log residual",
    "stack": "geometric mean of the above with non-negative weights",
}
#: A more elaborate method has to be better than a simpler one by this factor.
BETTER = 0.95
#: Weights of a stack below this are dropped.
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class _Choice:
    """Fitted estimators by method, the weights of the chosen in the geometric mean, and scores in cross-validation."""

    fitted: dict[str, CorrectedTerms]
    weights: dict[str, float]
    method: str
    scores: dict[str, float]
    given_up: frozenset[str] = frozenset()

    def promising(self, name: str) -> bool:
        """Whether a method that lost by this much, or was not worth comparing, may win with fewer of the same ops."""
        if name == "terms" or not self.scores:
            return True
        return name not in self.given_up and self.scores.get(name, np.inf) < HOPELESS * min(self.scores.values())

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Costs and relative standard deviations."""
        log_cost, spread = np.zeros(len(X)), np.zeros(len(X))
        for name, weight in self.weights.items():
            cost, std = self.fitted[name].predict(X, return_std=True)
            cost = np.maximum(cost, np.finfo(float).tiny)
            log_cost += weight * np.log(cost)
            spread += weight * std / cost
        return np.exp(log_cost), spread


class ChosenRegressor(RegressorMixin, BaseEstimator):
    """Cost of the ops of one kernel by whichever of :data:`METHODS` predicts unseen geometries best.

    An inner cross-validation chooses, an outer one around it judges the choice, its errors and the standard deviations
    that it states: no op that judges has had a part in choosing. Folds never divide a geometry.

    Parameters
    ----------
    n_work : int
        The first ``n_work`` columns of X are the kernel's work counts,
    n_plain : int
        the next ``n_plain`` terms that need no kernel, and the others features.
    n_rough : int, default=0
        Trees look at all features, processes not at the last ``n_rough``, in which costs are not smooth.
    method : str, default="auto"
        One of :data:`METHODS`, or the best.
    prior : array-like of shape (n_work,) or None, default=None
        Of :class:`NonNegativeTerms`.
    n_folds : int, default=5
        Folds of the inner cross-validation.
    n_outer : int, default=4
        Folds of the outer one.
    compare_above : float, default=0.002
        Nothing is compared where terms alone have a smaller mean relative error.
    process_from, trees_from : int, default=8, 40
        Number of ops from which a process, and trees, may correct the terms. Of ops fewer than the work counts that
        they have neither may: terms meet those exactly, and what they miss of others is no pattern to be learned.
    random_state : int, default=0

    Attributes
    ----------
    weights_ : dict
        Method to its weight in the geometric mean; one entry unless a stack was chosen.
    parts_ : dict
        Method to :class:`CorrectedTerms`.
    method_ : str
        What was chosen.
    scores_percent_ : dict
        Method to its typical relative error in the inner cross-validation, of those that were compared; empty where
        ``method`` names one.
    cv_error_percent_ : float
        Typical relative error of the chosen in the outer one; NaN for fewer than ``n_folds`` geometries, whose scatter
        is unknown.
    errors_, stds_ : ndarray of shape (n_ops,)
        Log errors there, and the relative standard deviations stated; empty where there was none.
    std_scale_ : float
        What stated standard deviations are multiplied by.
    low_, high_ : ndarray of shape (n_columns,)
        Training range of every column.
    n_ops_ : int
    """

    def __init__(
        self,
        *,
        n_work: int,
        n_plain: int = 0,
        n_rough: int = 0,
        method: str = "auto",
        prior=None,
        n_folds: int = 5,
        n_outer: int = 4,
        compare_above: float = 0.002,
        process_from: int = 8,
        trees_from: int = 40,
        random_state: int = 0,
    ) -> None:
        self.n_work = n_work
        self.n_plain = n_plain
        self.n_rough = n_rough
        self.method = method
        self.prior = prior
        self.n_folds = n_folds
        self.n_outer = n_outer
        self.compare_above = compare_above
        self.process_from = process_from
        self.trees_from = trees_from
        self.random_state = random_state

    def fit(self, X, y, groups=None, sample_weight=None, lent: LentOps | None = None) -> ChosenRegressor:
        """Learn from X of shape (n_ops, n_columns), costs y of shape (n_ops,) and the geometry of each op.

        ``sample_weight`` says how much each op counts, in fitting and in comparing; None: all as much. ``lent`` are ops
        of other kernels, which never judge, with the ``n_work`` work counts alone.
        """
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        if not 0 < self.n_work <= X.shape[1] - self.n_plain:
            raise ValueError(f"n_work must be 1 to {X.shape[1] - self.n_plain}, got {self.n_work}")
        if self.method not in ("auto", *METHODS):
            raise ValueError(f"method must be auto or one of {', '.join(METHODS)}, got {self.method!r}")
        groups = np.arange(len(y)) if groups is None else np.asarray(groups)
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)
        self.n_ops_, self.n_features_in_ = X.shape
        choice = self._choose(X, y, groups, None, sample_weight, lent=lent)
        self.weights_, self.method_ = choice.weights, choice.method
        self.parts_ = {name: choice.fitted[name] for name in choice.weights}
        self.scores_percent_ = {name: 100 * error for name, error in choice.scores.items()}
        self.errors_ = self.stds_ = np.empty(0)
        self.std_scale_, self.cv_error_percent_ = 1.0, float("nan")
        if len(np.unique(groups)) >= self.n_folds:
            self.errors_, self.stds_ = self._judge(X, y, groups, choice, sample_weight, lent=lent)
            self.cv_error_percent_ = 100 * typical_size(np.expm1(self.errors_), sample_weight)
            # Errors over stated deviations should scatter with 1; a robust spread, as one op must not widen all.
            z = np.abs(self.errors_) / np.maximum(self.stds_, EXACT)
            self.std_scale_ = float(max(np.quantile(z, 0.9) / 1.645, 0.1))
        return self

    def predict(self, X, return_std: bool = False):
        """Costs of shape (n_ops,); with ``return_std`` also one standard deviation of each, in the same unit."""
        check_is_fitted(self, "parts_")
        X = matrix(X)
        y, spread = _Choice(self.parts_, self.weights_, self.method_, {}).predict(X)
        return (y, y * spread * self.std_scale_) if return_std else y

    def extrapolates(self, X, spread) -> np.ndarray:
        """Whether a cost rests on more than the fitted ops tell: bool of shape (n_ops,).

        A column that prediction uses lies outside the training range, and it matters to the cost
        (:mod:`~costmodels.estimators.extrapolation`); of fewer than ``n_folds`` geometries, whose scatter is unknown,
        every such column does. ``spread`` are the relative standard deviations that :meth:`predict` states.
        """
        check_is_fitted(self, "parts_")
        X = np.asarray(X, dtype=np.float64)
        found = self.outside(X)[:, self.columns].any(axis=1)
        rows = np.flatnonzero(found)
        if len(rows) and not np.isnan(self.cv_error_percent_):
            parts = [(weight, self.parts_[name]) for name, weight in self.weights_.items()]
            found[rows] = matters(parts, X[rows], (self.low_, self.high_), spread[rows])
        return found

    def outside(self, X: np.ndarray) -> np.ndarray:
        """Which columns, used or not, lie outside the training range: bool of shape (n_ops, n_columns)."""
        slack = 1e-9 * np.maximum(np.abs(self.low_), np.abs(self.high_))
        return (self.low_ - slack > X) | (self.high_ + slack < X)

    @property
    def columns(self) -> np.ndarray:
        """Numbers of the columns that prediction looks at, ascending."""
        return np.unique(np.concatenate([part.columns for part in self.parts_.values()]))

    def candidate(self, method: str, n_columns: int) -> CorrectedTerms:
        """What ``method`` is before it is fitted."""
        work, plain = (0, self.n_work), (self.n_work, self.n_work + self.n_plain)
        smooth = (plain[1], n_columns - self.n_rough)
        if method == "process":
            return CorrectedTerms(terms=plain, features=smooth, residual=ResidualProcess())
        if method == "terms_process":
            return CorrectedTerms(terms=work, features=smooth, residual=ResidualProcess(), prior=self.prior)
        if method == "terms_trees":
            features = (plain[1], n_columns)
            return CorrectedTerms(terms=work, features=features, residual=BoostedTrees(), prior=self.prior)
        return CorrectedTerms(terms=work, prior=self.prior)

    def _methods(self, X: np.ndarray) -> list[str]:
        """What may be compared of these ops, the simplest first; the stack is made of them."""
        if self.method not in ("auto", "stack"):
            return [self.method]
        found = ["terms"]
        n_ops, n_columns = X.shape
        least = max(self.process_from, int(X[:, : self.n_work].any(axis=0).sum()))
        if n_columns > self.n_work + self.n_plain and n_ops >= least:
            found += (["process"] if self.n_plain else []) + ["terms_process"]
            found += ["terms_trees"] if n_ops >= self.trees_from else []
        return found

    def _choose(
        self,
        X: np.ndarray,
        y: np.ndarray,
        groups: np.ndarray,
        like: _Choice | None,
        weight: np.ndarray | None,
        *,
        lent: LentOps | None,
    ) -> _Choice:
        """The best method for these ops, fitted to them; ``like`` is the choice for more of the same ops."""
        fitted: dict[str, CorrectedTerms] = {}
        unseen: dict[str, np.ndarray] = {}
        scores: dict[str, float] = {}
        parts = FoldedOps(X, y, weight, folds_by(groups, self.n_folds, self.random_state), groups=groups, lent=lent)
        enough = len(np.unique(groups)) >= max(self.n_folds, 2)
        # One method alone is not compared; trees only learn from it how far they are off.
        compares = enough and self.method in ("auto", "stack", "terms_trees")
        for name in self._methods(X) if enough else ["terms"]:
            if like is not None and not like.promising(name):
                continue
            candidate = self.candidate(name, X.shape[1])
            fitted[name] = candidate.fit(X, y, like and like.fitted[name], parts.terms(candidate), weight)
            if not compares:
                continue
            best = min(unseen, key=scores.__getitem__) if unseen and self.method == "auto" else None
            errors = parts.log_errors(fitted[name], unseen.get(best))
            if len(errors) == len(y):
                unseen[name] = errors
            counts = weight if len(errors) == len(y) else None
            scores[name] = typical_size(np.expm1(errors), counts)
            fitted[name].scatter_ = float(np.sqrt(np.average(errors**2, weights=counts)))
            if self.method == "auto" and name == "terms" and typical_size(errors, weight) <= self.compare_above:
                break
        return self._best(fitted, unseen, scores, weight)

    def _best(
        self,
        fitted: dict[str, CorrectedTerms],
        unseen: dict[str, np.ndarray],
        scores: dict[str, float],
        weight: np.ndarray | None,
    ) -> _Choice:
        """The best of those that were not given up, or the best stack of them."""
        weights = {next(iter(fitted)): 1.0}
        contenders = {name: scores[name] for name in unseen}
        if len(unseen) > 1:
            stack = _stack_weights(unseen, weight)
            contenders["stack"] = scores["stack"] = typical_size(
                np.expm1(sum(w * unseen[name] for name, w in stack.items())), weight
            )
        best = next(iter(fitted))
        for name, score in contenders.items():
            if (self.method == "stack" and name == "stack") or score < BETTER * scores[best]:
                best = name
        if scores:
            weights = stack if best == "stack" else {best: 1.0}
        return _Choice(fitted, weights, best, scores, frozenset(scores) - contenders.keys())

    def _judge(
        self, X, y, groups, choice: _Choice, weight: np.ndarray | None, *, lent: LentOps | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log errors and stated relative deviations of every op when its fold is left out of choosing and fitting."""
        errors, stds = np.empty(len(y)), np.empty(len(y))
        for train, test in folds_by(groups, self.n_outer, self.random_state + 1):
            counts = None if weight is None else weight[train]
            others = lent and lent.without(groups[test])
            chosen = self._choose(X[train], y[train], groups[train], choice, counts, lent=others)
            predicted, stds[test] = chosen.predict(X[test])
            errors[test] = np.log(y[test] / np.maximum(predicted, 1e-6 * y[test]))
        return errors, stds


def _stack_weights(unseen: dict[str, np.ndarray], weight: np.ndarray | None) -> dict[str, float]:
    """Weights, not negative and 1 together, of least squared log error; small ones are dropped."""
    names = list(unseen)
    E = np.column_stack([unseen[name] for name in names])
    if weight is not None:
        E *= np.sqrt(weight)[:, None]
    # min |E w| with sum 1: a heavy row says that the sum is 1.
    heavy = 1e3 * max(float(np.abs(E).max()), EXACT)
    w, _ = nnls(np.vstack([E, np.full(len(names), heavy)]), np.concatenate([np.zeros(len(E)), [heavy]]))
    w[w < _LEAST_WEIGHT] = 0
    return {name: float(weight) for name, weight in zip(names, w / w.sum(), strict=True) if weight > 0}
