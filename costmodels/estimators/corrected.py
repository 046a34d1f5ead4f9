"""Non-negative terms times the exponential of what is left."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted, check_X_y

from costmodels.estimators.inputs import matrix
from costmodels.estimators.process import ResidualProcess
from costmodels.estimators.terms import EXACT, LentOps, NonNegativeTerms
from costmodels.estimators.trees import BoostedTrees


class CorrectedTerms(RegressorMixin, BaseEstimator):
    """``cost = terms(x) · exp(residual(z))``, x and z being columns of X.

    Far from its training data a residual process returns to 0 and trees stay bounded, so that this extrapolates as the
    terms do.

    Parameters
    ----------
    terms : tuple of two ints
        First column of the work counts and the one after their last.
    features : tuple of two ints, default=(0, 0)
        The same of the features that the residual looks at.
    residual : ResidualProcess, BoostedTrees or None, default=None
        What corrects the terms.
    prior : array-like of shape (n_terms,) or None, default=None
        Of :class:`NonNegativeTerms`.

    Attributes
    ----------
    terms_ : NonNegativeTerms
    residual_ : ResidualProcess, BoostedTrees or None
    scatter_ : float
        Standard deviation of log errors of the trees, which state none of their own; set by who cross-validates.
    """

    def __init__(self, *, terms, features=(0, 0), residual=None, prior=None) -> None:
        self.terms = terms
        self.features = features
        self.residual = residual
        self.prior = prior

    def fit(
        self, X, y, like: CorrectedTerms | None = None, terms: NonNegativeTerms | None = None, sample_weight=None
    ) -> CorrectedTerms:
        """Learn from X of shape (n_ops, n_columns) and costs y of shape (n_ops,).

        With ``like``, fitted to ops of the same kernel, a residual process begins its search where that one ended.
        ``terms`` are those of :meth:`fitted_terms`, where they are known.
        """
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        left = self._with_terms(X, y, terms, sample_weight)
        if isinstance(self.residual, ResidualProcess):
            near = None if like is None else like.residual_
            self.residual_ = clone(self.residual).fit(self._looks_at(X), left, near, sample_weight)
        elif isinstance(self.residual, BoostedTrees):
            self.residual_ = clone(self.residual).fit(self._looks_at(X), left, sample_weight)
        return self

    def refitted(self, X, y, terms: NonNegativeTerms | None = None, sample_weight=None) -> CorrectedTerms:
        """One of the same hyperparameters, learned from other ops: what cross-validation does fold by fold."""
        other = clone(self)
        if not isinstance(self.residual_, ResidualProcess):
            return other.fit(X, y, terms=terms, sample_weight=sample_weight)
        left = other._with_terms(X, y, terms, sample_weight)
        other.residual_ = self.residual_.conditioned(self._looks_at(X), left, sample_weight)
        return other

    def fitted_terms(self, X, y, sample_weight=None, lent: LentOps | None = None) -> NonNegativeTerms:
        """The terms alone, learned from these ops, and from what other kernels lend."""
        return NonNegativeTerms(prior=self.prior).fit(self._counts(X), y, sample_weight, lent)

    def _with_terms(self, X: np.ndarray, y: np.ndarray, terms: NonNegativeTerms | None, weight) -> np.ndarray:
        """Take or fit the terms; the log residuals that they leave."""
        self.terms_ = self.fitted_terms(X, y, weight) if terms is None else terms
        self.residual_ = None
        self.n_features_in_ = X.shape[1]
        left = self._log_residual(X, y)
        self.scatter_ = float(np.sqrt(np.average(left**2, weights=weight)))
        return left

    def predict(self, X, return_std: bool = False):
        """Costs of shape (n_ops,); with ``return_std`` also one standard deviation of each, in the same unit."""
        check_is_fitted(self, "terms_")
        X = matrix(X)
        counts = self._counts(X)
        y = self.terms_.predict(counts)
        if not return_std:
            return y if self.residual_ is None else y * np.exp(self.residual_.predict(self._looks_at(X)))
        if self.residual_ is None:
            return self.terms_.predict(counts, return_std=True)
        # What the unit costs leave open stays open where the correction's own data do not reach.
        unknown = self.terms_.coefficient_std(counts) / np.maximum(y, EXACT)
        if isinstance(self.residual_, ResidualProcess):
            mean, log_std = self.residual_.predict(self._looks_at(X), return_std=True)
        else:
            mean, log_std = self.residual_.predict(self._looks_at(X)), self.scatter_
        y = y * np.exp(mean)
        return y, y * np.hypot(log_std, unknown)

    @property
    def columns(self) -> np.ndarray:
        """Numbers of the columns that prediction uses."""
        used = list(range(*self.terms))
        return np.array(used + (list(range(*self.features)) if self.residual_ is not None else []))

    def _counts(self, X) -> np.ndarray:
        return np.asarray(X, dtype=np.float64)[:, slice(*self.terms)]

    def _looks_at(self, X) -> np.ndarray:
        return np.asarray(X, dtype=np.float64)[:, slice(*self.features)]

    def _log_residual(self, X, y) -> np.ndarray:
        # A term that only held-out ops have can leave nothing predicted at all: then the error is huge, not infinite.
        return np.log(y / np.maximum(self.terms_.predict(self._counts(X)), 1e-6 * y))
