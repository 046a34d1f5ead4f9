"""Estimators of a positive cost, with scikit-learn's interface.

:class:`NonNegativeTerms` is the physical part: cost is a sum of work counts times non-negative unit costs, fitted to
minimise *relative* error. :class:`ResidualProcess` is a Gaussian process on what is left, in logarithms; far from its
training data it returns to 0, so that :class:`WorkRegressor`, the two together, extrapolates as the physical part does.

Prediction uses numpy and learned arrays only: a saved estimator means the same under every version of scikit-learn,
which is asked for nothing but the process's hyperparameters.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y

#: Residuals beyond this many robust standard deviations count linearly, not squared (Huber's constant).
HUBER = 1.345
#: Relative errors below this are rounding: they are never the reason to weigh one op less than another.
EXACT = 1e-6
#: Shares of a cost below this are not told apart from nothing.
SMALL_SHARE = 1e-3


def typical_size(errors: np.ndarray) -> float:
    """Mean size of errors, the largest twentieth left out (at least one of 5 or more).

    The only op with some loop in it is foretold badly by folds that lack it: that says how rare it is, and nothing of
    the estimator.
    """
    size = np.sort(np.abs(errors))
    return float(size[: len(size) - -(-len(size) // 20)].mean()) if len(size) >= 5 else float(size.mean())


class NonNegativeTerms(RegressorMixin, BaseEstimator):
    """``cost = Σ counts · unit costs``, unit costs not negative, fitted to least relative error.

    Minimises ``Σ w · ((X c − y) / y)² + ridge · Σ ((c − prior) / spread)²`` over ``c ≥ 0``, with Huber weights ``w``
    found by reweighting. A term's spread is its prior cost, or, without one, what would make it the whole cost. The
    ridge is tiny: it decides only between unit costs that the data cannot tell apart, and what a term costs that the
    data do not have.

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

    def fit(self, X, y) -> NonNegativeTerms:
        """Learn the unit costs.

        Parameters
        ----------
        X : array-like of shape (n_ops, n_terms)
            Work counts, not negative.
        y : array-like of shape (n_ops,)
            Costs, positive.

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
        scale[scale == 0] = 1.0  # a term that never occurs: only the prior says what it costs
        # From here on unit costs are shares of the cost: v = c · scale.
        A, share = relative / scale, prior * scale
        stiffness = np.where(share > 0, 1 / np.maximum(share, SMALL_SHARE), 1.0)
        penalty = np.sqrt(self.ridge) * np.diag(stiffness)
        w = np.ones(len(y))
        v = np.zeros(n_terms)
        for _ in range(self.reweightings):
            root = np.sqrt(w)
            previous = v
            v, _ = nnls(np.vstack([A * root[:, None], penalty]), np.concatenate([root, penalty @ share]))
            residual = np.abs(A @ v - 1)
            spread = max(1.4826 * float(np.median(residual)), EXACT)
            w = np.minimum(1.0, HUBER * spread / np.maximum(residual, EXACT))
            if np.allclose(v, previous, rtol=1e-6, atol=1e-12):
                break
        freedom = max(1, len(y) - int((v > 0).sum()))
        self.relative_std_ = float(np.sqrt(np.sum(w * (A @ v - 1) ** 2) / freedom))
        self.coef_ = v / scale
        noise = max(self.relative_std_, SMALL_SHARE)
        doubt = self.doubt * np.maximum(np.maximum(share, v), SMALL_SHARE)
        precision = A.T @ (A * w[:, None]) / noise**2 + np.diag(1 / doubt**2)
        self.covariance_ = np.linalg.inv(precision) / np.outer(scale, scale)
        self.n_features_in_ = n_terms
        return self

    def predict(self, X, return_std: bool = False):
        """Costs of shape (n_ops,); with ``return_std`` also their standard deviation, fit and scatter together."""
        check_is_fitted(self, "coef_")
        X = check_array(X, dtype=np.float64)
        y = X @ self.coef_
        if not return_std:
            return y
        return y, np.sqrt((self.relative_std_ * y) ** 2 + np.einsum("ij,jk,ik->i", X, self.covariance_, X))


class ResidualProcess(RegressorMixin, BaseEstimator):
    """A Gaussian process with mean 0 and a Matérn-5/2 kernel on standardised features (Rasmussen & Williams, 4.17).

    Features that do not vary are dropped. One length scale for few ops, one a feature (automatic relevance
    determination) from ``ard_from`` ops on; amplitude, length scales and noise by marginal likelihood (5.8).

    Parameters
    ----------
    ard_from : int, default=60
        Number of ops from which each feature has its own length scale.
    max_hyper_ops : int, default=300
        Hyperparameters are learned on at most this many ops; the process itself holds all.
    random_state : int, default=0
        Chooses those ops.

    Attributes
    ----------
    center_, spread_ : ndarray of shape (n_features,)
        Standardisation; ``spread_`` is 0 for dropped features.
    length_scale_ : ndarray of shape (n_features,)
    amplitude_, noise_ : float
        Variances of the process and of the noise.
    X_train_ : ndarray of shape (n_ops, n_features)
        Standardised and divided by the length scales.
    alpha_ : ndarray of shape (n_ops,)
    factor_ : ndarray of shape (n_ops, n_ops)
        Lower Cholesky factor of the training covariance.
    """

    def __init__(self, *, ard_from: int = 60, max_hyper_ops: int = 300, random_state: int = 0) -> None:
        self.ard_from = ard_from
        self.max_hyper_ops = max_hyper_ops
        self.random_state = random_state

    def fit(self, X, y) -> ResidualProcess:
        """Learn from features of shape (n_ops, n_features) and log residuals of shape (n_ops,)."""
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        self.center_ = X.mean(axis=0)
        spread = X.std(axis=0)
        self.spread_ = np.where(spread > 1e-9, spread, 0.0)
        variance, length, noise = self._hyperparameters(X, y)
        self.length_scale_ = length
        return self.condition(X, y, variance, noise)

    def condition(self, X, y, amplitude: float, noise: float) -> ResidualProcess:
        """Take these ops as data and keep the hyperparameters: what cross-validation does fold by fold."""
        self.amplitude_, self.noise_ = float(amplitude), float(noise)
        self.X_train_ = self._scaled(np.asarray(X, dtype=np.float64))
        covariance = self._kernel(self.X_train_, self.X_train_)
        covariance[np.diag_indices_from(covariance)] += self.noise_
        self.factor_ = np.linalg.cholesky(covariance)
        self.alpha_ = cho_solve((self.factor_, True), np.asarray(y, dtype=np.float64))
        self.n_features_in_ = len(self.center_)
        return self

    def predict(self, X, return_std: bool = False):
        """Log residuals of shape (n_ops,); the standard deviation includes the noise."""
        check_is_fitted(self, "alpha_")
        cross = self._kernel(self._scaled(check_array(X, dtype=np.float64)), self.X_train_)
        mean = cross @ self.alpha_
        if not return_std:
            return mean
        explained = np.sum(solve_triangular(self.factor_, cross.T, lower=True) ** 2, axis=0)
        return mean, np.sqrt(np.maximum(self.amplitude_ - explained, 0.0) + self.noise_)

    def _hyperparameters(self, X: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, float]:
        used = self.spread_ > 0
        length = np.ones(X.shape[1])
        variance = max(float(np.var(y)), 1e-12)
        if not used.any() or variance <= 1e-11:
            return 1e-12, length, variance
        rows = np.arange(len(y))
        if len(rows) > self.max_hyper_ops:
            rows = np.sort(np.random.default_rng(self.random_state).choice(rows, self.max_hyper_ops, replace=False))
        Z = ((X - self.center_) / np.where(used, self.spread_, 1.0))[np.ix_(rows, used)]
        start = np.full(int(used.sum()), 2.0) if len(rows) >= self.ard_from else 2.0
        kernel = ConstantKernel(0.5, (1e-4, 1e2)) * Matern(start, (0.2, 1e3), nu=2.5) + WhiteKernel(0.5, (1e-6, 2.0))
        process = GaussianProcessRegressor(kernel, random_state=self.random_state)
        with warnings.catch_warnings():
            # A length scale at its bound says that the feature does not matter: nothing to tell the user.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(Z, y[rows] / np.sqrt(variance))
        amplitude, white = process.kernel_.k1.k1.constant_value, process.kernel_.k2.noise_level
        length[used] = process.kernel_.k1.k2.length_scale
        return amplitude * variance, length, white * variance

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        used = self.spread_ > 0
        return ((X - self.center_) / np.where(used, self.spread_, 1.0) / self.length_scale_) * used

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T, 0.0)
        r = np.sqrt(5.0 * squared)
        return self.amplitude_ * (1 + r + r**2 / 3) * np.exp(-r)


class WorkRegressor(RegressorMixin, BaseEstimator):
    """Cost of the ops of one group: non-negative work terms, times the exponential of a residual process.

    The process is kept only where cross-validation says that it helps; the same cross-validation gives the standard
    deviation its scale.

    Parameters
    ----------
    n_terms : int
        The first ``n_terms`` columns of X are work counts, the others features for the residual.
    residual : bool, default=True
        Whether a residual process may be used.
    min_residual_ops : int, default=8
        Fewer ops than this have no residual process.
    residual_above : float, default=0.001
        Nor have terms whose mean relative error is already below this.
    ridge : float, default=1e-5
    prior : array-like of shape (n_terms,) or None, default=None
        Of :class:`NonNegativeTerms`.
    n_folds : int, default=5
        Folds of the cross-validation.
    random_state : int, default=0
        Of the folds.

    Attributes
    ----------
    terms_ : NonNegativeTerms
    process_ : ResidualProcess or None
    std_scale_ : float
        What predicted standard deviations are multiplied by.
    cv_error_percent_ : float
        Typical relative error in cross-validation; NaN for fewer than ``n_folds`` ops, whose scatter is unknown.
    low_, high_ : ndarray of shape (n_features,)
        Training range of every column.
    n_ops_ : int
    """

    def __init__(
        self,
        *,
        n_terms: int,
        residual: bool = True,
        min_residual_ops: int = 8,
        residual_above: float = 0.001,
        ridge: float = 1e-5,
        prior=None,
        n_folds: int = 5,
        random_state: int = 0,
    ) -> None:
        self.n_terms = n_terms
        self.residual = residual
        self.min_residual_ops = min_residual_ops
        self.residual_above = residual_above
        self.ridge = ridge
        self.prior = prior
        self.n_folds = n_folds
        self.random_state = random_state

    def fit(self, X, y) -> WorkRegressor:
        """Learn from X of shape (n_ops, n_terms + n_features) and costs y of shape (n_ops,)."""
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        if not 0 < self.n_terms <= X.shape[1]:
            raise ValueError(f"n_terms must be 1 to {X.shape[1]}, got {self.n_terms}")
        T, Z = X[:, : self.n_terms], X[:, self.n_terms :]
        self.terms_ = NonNegativeTerms(ridge=self.ridge, prior=self.prior).fit(T, y)
        self.process_ = None
        self.std_scale_, self.cv_error_percent_ = 1.0, float("nan")
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)
        self.n_ops_, self.n_features_in_ = X.shape
        if len(y) < max(self.n_folds, 2):
            return self
        log_error, std = self._cross_validate(T, Z, y, None)
        worth_it = self.residual and Z.shape[1] and len(y) >= self.min_residual_ops
        if worth_it and typical_size(log_error) > self.residual_above:
            process = ResidualProcess(random_state=self.random_state).fit(Z, self._log_residual(self.terms_, T, y))
            with_process = self._cross_validate(T, Z, y, process)
            if typical_size(with_process[0]) < 0.95 * typical_size(log_error):
                self.process_ = process
                log_error, std = with_process
        self.cv_error_percent_ = 100 * typical_size(np.expm1(log_error))
        # Errors over claimed standard deviations should scatter with 1; a robust spread, as one op must not widen all.
        z = np.abs(log_error) / np.maximum(std, EXACT)
        self.std_scale_ = float(max(np.quantile(z, 0.9) / 1.645, 0.1))
        return self

    def predict(self, X, return_std: bool = False):
        """Costs of shape (n_ops,); with ``return_std`` also one standard deviation of each, in the same unit."""
        check_is_fitted(self, "terms_")
        X = check_array(X, dtype=np.float64)
        T, Z = X[:, : self.n_terms], X[:, self.n_terms :]
        y, std = self.terms_.predict(T, return_std=True)
        if self.process_ is None:
            return (y, std * self.std_scale_) if return_std else y
        mean, log_std = self.process_.predict(Z, return_std=True)
        y = y * np.exp(mean)
        return (y, y * log_std * self.std_scale_) if return_std else y

    def extrapolates(self, X) -> np.ndarray:
        """Whether any column that prediction uses lies outside the training range: bool of shape (n_ops,)."""
        check_is_fitted(self, "terms_")
        X = np.asarray(X, dtype=np.float64)
        columns = self.n_terms if self.process_ is None else X.shape[1]
        slack = 1e-9 * np.maximum(np.abs(self.low_), np.abs(self.high_))
        outside = (self.low_ - slack > X) | (self.high_ + slack < X)
        return outside[:, :columns].any(axis=1)

    def _log_residual(self, terms: NonNegativeTerms, T: np.ndarray, y: np.ndarray) -> np.ndarray:
        # A term that only held-out ops have can leave nothing predicted at all: then the error is huge, not infinite.
        return np.log(y / np.maximum(terms.predict(T), 1e-6 * y))

    def _cross_validate(self, T, Z, y, process: ResidualProcess | None) -> tuple[np.ndarray, np.ndarray]:
        """Log errors and claimed log standard deviations of every op when its fold is left out."""
        log_error, std = np.empty(len(y)), np.empty(len(y))
        folds = KFold(min(self.n_folds, len(y)), shuffle=True, random_state=self.random_state)
        for train, test in folds.split(T):
            terms = NonNegativeTerms(ridge=self.ridge, prior=self.prior).fit(T[train], y[train])
            log_error[test] = self._log_residual(terms, T[test], y[test])
            predicted, spread = terms.predict(T[test], return_std=True)
            std[test] = spread / np.maximum(predicted, 1e-6 * y[test])
            if process is not None:
                fold = ResidualProcess()
                fold.center_, fold.spread_, fold.length_scale_ = process.center_, process.spread_, process.length_scale_
                fold.condition(
                    Z[train], self._log_residual(terms, T[train], y[train]), process.amplitude_, process.noise_
                )
                mean, std[test] = fold.predict(Z[test], return_std=True)
                log_error[test] -= mean
        return log_error, std
