"""A Gaussian process on logarithmic residuals."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, check_X_y

from costmodels.estimators.inputs import matrix

#: Bounds of amplitude and noise variances (of residuals with variance 1) and of length scales (of features with
#: standard deviation 1).
_AMPLITUDES, _NOISES, _LENGTHS = (1e-4, 1e2), (1e-6, 2.0), (0.2, 1e3)


class ResidualProcess(RegressorMixin, BaseEstimator):
    """A Gaussian process with mean 0 and a Matérn-5/2 kernel on standardised features (Rasmussen & Williams, 4.17).

    Features that do not vary are dropped; each other one has its own length scale (automatic relevance determination).
    Amplitude, length scales and noise maximise the marginal likelihood (5.8) times a log-normal prior of the length
    scales, whose median grows with the root of the number of features (Hvarfner et al., arXiv 2402.02229): without it
    a few dozen ops would let one of twenty features explain anything.

    Parameters
    ----------
    max_hyper_ops : int, default=300
        Hyperparameters are learned on at most this many ops; the process itself holds all.
    length_spread : float, default=1.0
        Standard deviation of the prior of the logarithm of a length scale.
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

    def __init__(self, *, max_hyper_ops: int = 300, length_spread: float = 1.0, random_state: int = 0) -> None:
        self.max_hyper_ops = max_hyper_ops
        self.length_spread = length_spread
        self.random_state = random_state

    def fit(self, X, y, like: ResidualProcess | None = None, sample_weight=None) -> ResidualProcess:
        """Learn from features of shape (n_ops, n_features) and log residuals of shape (n_ops,).

        With ``like``, a process on the same features, the search begins at its hyperparameters. An op of weight w has
        the noise variance over w.
        """
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        self.center_ = X.mean(axis=0)
        spread = X.std(axis=0)
        self.spread_ = np.where(spread > 1e-9, spread, 0.0)
        variance, self.length_scale_, noise = self._hyperparameters(X, y, like, sample_weight)
        return self._condition(X, y, variance, noise, sample_weight)

    def conditioned(self, X, y, sample_weight=None) -> ResidualProcess:
        """A process with these hyperparameters and other data: what cross-validation does fold by fold."""
        other = ResidualProcess(**self.get_params())
        other.center_, other.spread_, other.length_scale_ = self.center_, self.spread_, self.length_scale_
        return other._condition(np.asarray(X, dtype=np.float64), y, self.amplitude_, self.noise_, sample_weight)

    def _condition(self, X: np.ndarray, y, amplitude: float, noise: float, weight) -> ResidualProcess:
        self.amplitude_, self.noise_ = float(amplitude), float(noise)
        self.X_train_ = self._scaled(X)
        covariance = self._kernel(self.X_train_, self.X_train_)
        covariance[np.diag_indices_from(covariance)] += self.noise_ / (1.0 if weight is None else weight)
        self.factor_ = np.linalg.cholesky(covariance)
        self.alpha_ = cho_solve((self.factor_, True), np.asarray(y, dtype=np.float64))
        self.n_features_in_ = len(self.center_)
        return self

    def predict(self, X, return_std: bool = False):
        """Log residuals of shape (n_ops,); the standard deviation includes the noise."""
        check_is_fitted(self, "alpha_")
        cross = self._kernel(self._scaled(matrix(X)), self.X_train_)
        mean = cross @ self.alpha_
        if not return_std:
            return mean
        explained = np.sum(solve_triangular(self.factor_, cross.T, lower=True) ** 2, axis=0)
        return mean, np.sqrt(np.maximum(self.amplitude_ - explained, 0.0) + self.noise_)

    def _hyperparameters(
        self, X: np.ndarray, y: np.ndarray, like: ResidualProcess | None, weight: np.ndarray | None
    ) -> tuple[float, np.ndarray, float]:
        used = self.spread_ > 0
        length = np.ones(X.shape[1])
        variance = max(float(np.mean(y**2)), 1e-12)
        if not used.any() or variance <= 1e-11:
            return 1e-12, length, variance
        rows = np.arange(len(y))
        if len(rows) > self.max_hyper_ops:
            rows = np.sort(np.random.default_rng(self.random_state).choice(rows, self.max_hyper_ops, replace=False))
        weight = None if weight is None else weight[rows]
        Z = ((X - self.center_) / np.where(used, self.spread_, 1.0))[np.ix_(rows, used)]
        typical_length = np.log(3.0) + 0.5 * np.log(used.sum())
        if like is None:
            start = np.concatenate([np.log([0.5, 0.1]), np.full(int(used.sum()), typical_length)])
        else:
            of_length = np.log(like.length_scale_[used])
            start = np.concatenate([np.log(np.array([like.amplitude_, like.noise_]) / variance), of_length])
        bounds = np.log([_AMPLITUDES, _NOISES, *[_LENGTHS] * int(used.sum())])
        found = minimize(
            _negative_log_posterior,
            np.clip(start, bounds[:, 0], bounds[:, 1]),
            args=((Z, y[rows] / np.sqrt(variance), weight), (typical_length, self.length_spread)),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 60 if like is None else 15},
        )
        amplitude, noise = np.exp(found.x[:2]) * variance
        length[used] = np.exp(found.x[2:])
        return float(amplitude), length, float(noise)

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        used = self.spread_ > 0
        return ((X - self.center_) / np.where(used, self.spread_, 1.0) / self.length_scale_) * used

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        r = np.sqrt(5.0 * _squared_distances(a, b))
        return self.amplitude_ * (1 + r + r**2 / 3) * np.exp(-r)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T, 0.0)


def log_marginal_likelihood(
    theta: np.ndarray, Z: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> tuple[float, np.ndarray]:
    """Log marginal likelihood of data under a Matérn-5/2 process with noise, and its gradient (5.8 and 5.9).

    Args:
        theta: Logarithms of the amplitude's and the noise's variance and of the length scales, of shape
            (2 + n_features,).
        Z: Of shape (n, n_features).
        y: Of shape (n,).
        weight: Of shape (n,), positive: what each noise variance is divided by; None: 1.

    Returns:
        The value, -inf where the covariance is singular, and its derivatives by ``theta``.
    """
    amplitude, noise = np.exp(theta[:2])
    scaled = Z / np.exp(theta[2:])
    r = np.sqrt(5.0 * _squared_distances(scaled, scaled))
    decay = amplitude * np.exp(-r)
    signal = decay * (1 + r + r**2 / 3)
    try:
        each = np.full(len(y), noise) if weight is None else noise / weight
        factor = np.linalg.cholesky(signal + np.diag(each))
    except np.linalg.LinAlgError:
        return -np.inf, np.zeros_like(theta)
    alpha = cho_solve((factor, True), y)
    value = -0.5 * y @ alpha - np.log(np.diag(factor)).sum() - 0.5 * len(y) * np.log(2 * np.pi)
    half = 0.5 * (np.outer(alpha, alpha) - cho_solve((factor, True), np.eye(len(y))))
    # d k / d log(length) = 5/3 (1 + r) e^-r times the squared scaled distance along that feature; the sum over pairs of
    # W (a - b)^2 is 2 (Σ row sums a^2 - a W a), which needs no array of pairs and features.
    W = half * decay * (1 + r) * (5 / 3)
    by_length = 2 * (W.sum(axis=1) @ scaled**2 - np.sum(scaled * (W @ scaled), axis=0))
    return float(value), np.concatenate([[np.sum(half * signal), np.diag(half) @ each], by_length])


def _negative_log_posterior(theta, data: tuple, lengths: tuple[float, float]) -> tuple[float, np.ndarray]:
    """Of what :func:`log_marginal_likelihood` takes as ``data``; ``lengths`` are the prior's median and spread."""
    typical_length, length_spread = lengths
    value, gradient = log_marginal_likelihood(theta, *data)
    if not np.isfinite(value):
        return 1e25, np.zeros_like(theta)
    away = (theta[2:] - typical_length) / length_spread
    return -value + 0.5 * float(away @ away), -gradient + np.concatenate([[0.0, 0.0], away / length_spread])
