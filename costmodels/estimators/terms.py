"""Cost as a non-negative combination of work counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, check_X_y

from costmodels.estimators.inputs import matrix

#: Residuals beyond this many robust standard deviations count linearly, not squared (Huber's constant).
HUBER = 1.345
#: Relative errors below this are rounding: they are never the reason to weigh one op less than another.
EXACT = 1e-6
#: Shares of a cost below this are not told apart from nothing.
SMALL_SHARE = 1e-3
#: Unit costs that leave a mean relative error below this are as good as the same in two kernels.
SAME_COSTS = 5e-4
#: With so many ops of its own for each term a kernel tells its loops apart itself, and nothing is lent to it.
ENOUGH_A_TERM = 2
#: The least that an op of another kernel counts: it still decides where nothing else does.
LEAST_LENT = 1e-6


@dataclass(frozen=True)
class LentOps:
    """Ops of other kernels whose loops go by the same names, as those for the other axis that trains do.

    What a unit of work costs there is nearly, not quite, what it costs here: such ops tell apart what a kernel's own
    few do not. They count as much as those as far as the same unit costs do for both.

    Attributes:
        X: Their work counts, of shape (n_ops, n_terms).
        y: Their costs.
        groups: Geometry of each; those of ops that judge are left out (:meth:`without`).
        weight: How much each counts among them.
    """

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    weight: np.ndarray

    def without(self, groups: np.ndarray) -> LentOps:
        """Those of other geometries."""
        kept = ~np.isin(self.groups, groups)
        return LentOps(self.X[kept], self.y[kept], self.groups[kept], self.weight[kept])


class NonNegativeTerms(RegressorMixin, BaseEstimator):
    """``cost = Σ counts · unit costs``, unit costs not negative, fitted to least relative error.

    Minimises ``Σ w · ((X c − y) / y)² + ridge · Σ ((c − prior) / spread)²`` over ``c ≥ 0``, with Huber weights ``w``
    found by reweighting. A term's spread is its prior cost, or, without one, what would make it the whole cost. The
    ridge is tiny: it decides only between unit costs that the data cannot tell apart, and what a term costs that the
    data do not have. Ops that other kernels lend (:class:`LentOps`) decide that before it does.

    Parameters
    ----------
    ridge : float, default=1e-5
        Weight of the prior.
    prior : array-like of shape (n_terms,) or None, default=None
        Unit costs to fall back on, not negative; None means 0.
    doubt : float, default=0.5
        Relative standard deviation of the prior where predictions state their own.
    reweightings : int, default=10
        At most this many rounds of robust reweighting.

    Attributes
    ----------
    coef_ : ndarray of shape (n_terms,)
        Cost of one unit of each term, in the unit of ``y``.
    covariance_ : ndarray of shape (n_terms, n_terms)
        Of ``coef_``: the posterior of a linear model, the bounds at 0 left out.
    relative_std_ : float
        Standard deviation of relative residuals, corrected for the terms in use.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 10], [1, 20], [1, 50]])
    >>> NonNegativeTerms().fit(X, 5 + 2 * X[:, 1]).coef_.round(2)
    array([5., 2.])
    """

    def __init__(self, *, ridge: float = 1e-5, prior=None, doubt: float = 0.5, reweightings: int = 10) -> None:
        self.ridge = ridge
        self.prior = prior
        self.doubt = doubt
        self.reweightings = reweightings

    def fit(self, X, y, sample_weight=None, lent: LentOps | None = None) -> NonNegativeTerms:
        """Learn the unit costs.

        Parameters
        ----------
        X : array-like of shape (n_ops, n_terms)
            Work counts, not negative.
        y : array-like of shape (n_ops,)
            Costs, positive.
        sample_weight : array-like of shape (n_ops,) or None, default=None
            How much each op counts, at most 1.
        lent : LentOps or None, default=None
            Ops of other kernels.

        Returns
        -------
        self
        """
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        if (y <= 0).any():
            raise ValueError(f"costs must be positive, got {y.min()}")
        n_terms = X.shape[1]
        prior = np.zeros(n_terms) if self.prior is None else np.asarray(self.prior, dtype=np.float64)
        if prior.shape != (n_terms,) or (prior < 0).any():
            raise ValueError(f"prior must be {n_terms} costs of at least 0, got {self.prior!r}")
        relative = X / y[:, None]
        scale = np.sqrt(np.mean(relative**2, axis=0))
        borrows = lent is not None and len(lent.y) > 0 and len(y) < ENOUGH_A_TERM * n_terms
        B, lent_known = (lent.X / lent.y[:, None], lent.weight) if borrows else (relative[:0], np.empty(0))
        if borrows:
            scale = np.where(scale > 0, scale, np.sqrt(np.mean(B**2, axis=0)))
        scale[scale == 0] = 1.0  # a term that never occurs: only the prior says what it costs
        # From here on unit costs are shares of the cost: v = c · scale.
        A, B, share = relative / scale, B / scale, prior * scale
        stiffness = np.where(share > 0, 1 / np.maximum(share, SMALL_SHARE), 1.0)
        penalty = np.sqrt(self.ridge) * np.diag(stiffness)
        known = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)

        def solved(w: np.ndarray, lent_w: np.ndarray) -> np.ndarray:
            root = np.sqrt(np.concatenate([w, lent_w]))
            rows = np.vstack([A, B]) * root[:, None]
            return nnls(np.vstack([rows, penalty]), np.concatenate([root, penalty @ share]))[0]

        if borrows:
            alone, together = solved(known, LEAST_LENT * lent_known), solved(known, lent_known)
            error = _mean_size(A @ alone - 1, known)
            shared = max(_mean_size(A @ together - 1, known), _mean_size(B @ together - 1, lent_known))
            lent_known = lent_known * np.clip((error / shared) ** 2, LEAST_LENT, 1.0)
        w, lent_w = known, lent_known
        v = np.zeros(n_terms)
        for _ in range(self.reweightings):
            previous = v
            v = solved(w, lent_w)
            w, lent_w = known * _huber(A @ v - 1), lent_known * _huber(B @ v - 1)
            if (np.abs(v - previous) <= 1e-12 + 1e-6 * previous).all():
                break
        freedom = max(1, len(y) - int((v > 0).sum()))
        self.relative_std_ = float(np.sqrt(np.sum(w * (A @ v - 1) ** 2) / freedom))
        self.coef_ = v / scale
        noise = max(self.relative_std_, SMALL_SHARE)
        doubt = self.doubt * np.maximum(np.maximum(share, v), SMALL_SHARE)
        never = ~(X.any(axis=0) | B.any(axis=0))
        if never.any():
            # Nothing was seen of these: as likely twice the prior as nothing, or, without one, what others cost.
            others = v[~never & (v > 0)] / scale[~never & (v > 0)]
            doubt[never] = np.where(share[never] > 0, share[never], np.median(others) if len(others) else 0.0)
            doubt[never] = np.maximum(doubt[never], SMALL_SHARE)
        seen = A.T @ (A * w[:, None]) + B.T @ (B * lent_w[:, None])
        precision = seen / noise**2 + np.diag(1 / doubt**2)
        self.covariance_ = np.linalg.inv(precision) / np.outer(scale, scale)
        self.n_features_in_ = n_terms
        return self

    def predict(self, X, return_std: bool = False):
        """Costs of shape (n_ops,); with ``return_std`` also their standard deviation, fit and scatter together."""
        check_is_fitted(self, "coef_")
        X = matrix(X)
        y = X @ self.coef_
        if not return_std:
            return y
        return y, np.hypot(self.relative_std_ * y, self.coefficient_std(X))

    def coefficient_std(self, X: np.ndarray) -> np.ndarray:
        """Standard deviation of costs of shape (n_ops,) from what the unit costs leave open."""
        return np.sqrt(np.maximum(np.sum((X @ self.covariance_) * X, axis=1), 0.0))


def _mean_size(residual: np.ndarray, weight: np.ndarray) -> float:
    """Of relative residuals; what is as good as nothing counts as :data:`SAME_COSTS`."""
    return max(float(np.average(np.abs(residual), weights=weight)), SAME_COSTS)


def _huber(residual: np.ndarray) -> np.ndarray:
    """Weights of relative residuals, against those that lie far out."""
    if not len(residual):
        return np.ones(0)
    size = np.abs(residual)
    spread = max(1.4826 * float(np.median(size)), EXACT)
    return np.minimum(1.0, HUBER * spread / np.maximum(size, EXACT))
