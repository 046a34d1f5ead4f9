"""A model of one device as the beginning of another's: the same work, at other prices.

Kernels that are compiled from the same source do the same work on every device, so that what differs between two
devices is, to first order, a factor: of everything, and, less so, of each pass and dtype and of each kernel. A dozen
ops tell it. Each level's factor is drawn towards that of the level above it by as much as :data:`PULL` ops.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from costmodels.estimators import ResidualProcess
from costmodels.features import group_key
from costmodels.group import OpRegressor
from costmodels.intervals import Intervals
from costmodels.pooled import PooledTerms, pass_and_dtype, rows_by
from costmodels.sources import NORMAL_90
from costmodels.target import TargetModel
from profiler.ops import Op

#: How many ops a factor of the level above counts as much as.
PULL = 2.0
#: Ratios further from the median than this many standard deviations count as that far.
_ODD = 3.0
#: From this many measured geometries on a group is fitted by itself, the other device's unit costs being its prior.
OWN_FROM = 16


class Factors:
    """Logarithms of what the new device's costs are over the other's.

    Args:
        ops: Measured on the new device.
        log_ratios: Measured over foreseen by the other device's model, in logarithms, of shape (n_ops,).

    Attributes:
        everywhere: Of all ops: the median.
        scatter: Standard deviation of what the factors leave, by a robust measure.
    """

    def __init__(self, ops: Sequence[Op], log_ratios: np.ndarray) -> None:
        self.everywhere = float(np.median(log_ratios))
        # An op that the other model foretells badly says little about the devices.
        away = log_ratios - self.everywhere
        reach = _ODD * 1.4826 * float(np.median(np.abs(away)))
        log_ratios = self.everywhere + np.clip(away, -reach, reach)
        self._of_pass = {
            key: self._drawn(log_ratios[rows], self.everywhere)
            for key, rows in rows_by(map(pass_and_dtype, ops)).items()
        }
        self._of_group = {
            key: self._drawn(log_ratios[rows], self._of_pass[pass_and_dtype(ops[rows[0]])])
            for key, rows in rows_by(map(group_key, ops)).items()
        }
        left = log_ratios - np.array([self.of(op) for op in ops])
        # Of few ops the factors explain too much: as much freedom is taken off as there are levels.
        freedom = np.sqrt(len(ops) / max(len(ops) - len(self._of_pass), 1))
        self.scatter = float(1.4826 * np.median(np.abs(left)) * freedom)

    def of(self, op: Op) -> float:
        """For an op, its group's, its pass's, or everything's, whatever was measured."""
        return self._of_group.get(group_key(op), self._of_pass.get(pass_and_dtype(op), self.everywhere))

    @staticmethod
    def _drawn(ratios: np.ndarray, above: float) -> float:
        return float((ratios.sum() + PULL * above) / (len(ratios) + PULL))


def transferred(
    model: TargetModel, other: TargetModel, ops: Sequence[Op], y: np.ndarray, noise: np.ndarray | None = None
) -> TargetModel:
    """Fit ``model`` to few ops of a new device, beginning at the model of another.

    Args:
        model: Not fitted yet.
        other: Of the other device; not changed.
        ops: Measured on the new one.
        y: Their costs, positive, of shape (n_ops,).
        noise: Relative standard errors of ``y``; None: 0.

    Returns:
        ``model``
    """
    foreseen = other.predict(ops)
    known = ~foreseen.extrapolates if not foreseen.extrapolates.all() else np.ones(len(ops), dtype=bool)
    factors = Factors([ops[i] for i in np.flatnonzero(known)], np.log(y / foreseen.mean)[known])
    model.fit(ops, y, noise)
    own = model.groups
    model.groups = {}
    if model.recovery is not None:
        y = model.recovery.lowered(ops, y)
    for key, group in other.groups.items():
        factor = factors.of(group.probe_[0])
        scaled = _scaled(group, factor, factors.scatter)
        fitted = own.get(key)
        if fitted is not None and fitted.regressor_.n_ops_ >= OWN_FROM:
            rows = [i for i, op in enumerate(ops) if group_key(op) == key]
            prior = scaled.regressor_.parts_[next(iter(scaled.regressor_.parts_))].terms_.coef_
            same = (scaled.terms_, scaled.blocking_) == (fitted.terms_, fitted.blocking_)
            prior = prior if same and len(prior) == len(fitted.terms_) else None
            fitted = OpRegressor(work=model.work, method=model.method, prior=prior, host=model.host)
            model.groups[key] = fitted.fit([ops[i] for i in rows], y[rows], None if noise is None else noise[rows])
        else:
            model.groups[key] = scaled
    model.groups |= {key: group for key, group in own.items() if key not in model.groups}
    pooled = {k: _scaled_terms(terms, factors.everywhere, factors.scatter) for k, terms in other.pooled.terms.items()}
    widths = {k: float(np.hypot(width, NORMAL_90 * factors.scatter)) for k, width in other.pooled.widths.items()}
    model.pooled = model.pooled.completed(PooledTerms(pooled, widths))
    model.intervals = Intervals(other.intervals.widths, other.intervals.n, "another device")
    return model


def _scaled(group: OpRegressor, log_factor: float, scatter: float) -> OpRegressor:
    """A group's estimator with all costs times a factor that is known up to ``scatter``."""
    group = copy.deepcopy(group)
    regressor = group.regressor_
    for part in regressor.parts_.values():
        part.terms_ = _scaled_terms(part.terms_, log_factor, scatter / regressor.std_scale_)
        if isinstance(part.residual_, ResidualProcess):
            # The process's own weights are learned already: its noise only says how far off it may be.
            part.residual_.noise_ += (scatter / regressor.std_scale_) ** 2
    regressor.cv_error_percent_ = float(np.hypot(regressor.cv_error_percent_, 100 * scatter))
    return group


def _scaled_terms(terms, log_factor: float, scatter: float):
    terms = copy.deepcopy(terms)
    factor = float(np.exp(log_factor))
    terms.coef_ = terms.coef_ * factor
    terms.covariance_ = terms.covariance_ * factor**2
    terms.relative_std_ = float(np.hypot(terms.relative_std_, scatter))
    return terms
