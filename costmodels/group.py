"""What a cost model has learned about the ops of one kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from costmodels.control_terms import CONTROL_TERMS, control_terms
from costmodels.estimators import ChosenRegressor, LentOps
from costmodels.features import (
    GEOMETRY_FEATURES,
    GEOMETRY_TERMS,
    PLAIN_TERMS,
    REMAINDER_FEATURES,
    WorkFunction,
    geometry_features,
    geometry_key,
    geometry_terms,
    kernel_work,
    loops_key,
    plain_terms,
    remainder_features,
    work_terms,
)
from costmodels.host_terms import HOST_TERMS, happens_on_hosts, host_terms
from costmodels.loops import Blocking, found_blocking, has_loops, loop_names, loop_nests, loop_terms
from costmodels.uncounted import UNCOUNTED_TERMS, uncounted_terms
from profiler.errors import UserError
from profiler.ops import Op, Pass

#: Relative standard error of a cost that counts half as much as an exact one. Smaller values take long ops from models
#: of busy hosts, which are seldom undisturbed: 0.03 made them worse there.
HALF_AS_MUCH = 0.2
#: Noise below this share of it changes no weight that matters.
NEGLIGIBLE = 0.1
#: Geometry features of what an update never touches.
OF_MAPS = ("log_out_positions", "log_in_positions", "log_stride")


class OpRegressor(RegressorMixin, BaseEstimator):
    """Cost of the ops of one group: kind, pass, dtype and whatever else names their kernel.

    Parameters
    ----------
    work : callable or None, default=kernel_work
        Op to the work counts of its kernel. None: the kernels are unknown, and terms and features come from the
        geometry alone (:data:`~costmodels.loops.LOOP_TERMS` of the blocking that fits best or, of other kinds and
        passes, :data:`~costmodels.features.GEOMETRY_TERMS`; remainders modulo 2, 4, 8 and 16).
    method : str, default="auto"
        One of :data:`~costmodels.estimators.METHODS`, or the best.
    prior : array-like of shape (n_terms,) or None, default=None
        What units of work cost where these ops do not tell; it may end before the terms of hosts, which then have
        none.
    host : bool, default=False
        Whether known kernels ran on a host: :data:`~costmodels.host_terms.HOST_TERMS` are among the terms then.
    random_state : int, default=0

    Attributes
    ----------
    terms_ : tuple of str
        Names of the work terms, in order.
    blocking_ : Blocking or None
        How unknown kernels seem to be blocked; None where they are known or are no such loops.
    regressor_ : ChosenRegressor
        On the columns of :meth:`inputs`.
    probe_ : tuple
        One of the fitted ops, and its work counts.

    Examples
    --------
    >>> from profiler.ops import Linear, Op, Pass
    >>> ops = [Op(Linear(n, 2 * n), Pass.FORWARD) for n in range(1, 30)]
    >>> fitted = OpRegressor(work=lambda op: {"calls": 1, "macs": op.macs}).fit(ops, [5 + op.macs for op in ops])
    >>> fitted.predict([Op(Linear(100, 7), Pass.FORWARD)]).round()
    array([705.])
    """

    def __init__(
        self,
        *,
        work: WorkFunction | None = kernel_work,
        method: str = "auto",
        prior=None,
        host: bool = False,
        random_state: int = 0,
    ) -> None:
        self.work = work
        self.method = method
        self.prior = prior
        self.host = host
        self.random_state = random_state

    def fit(self, ops: Sequence[Op], measured, noise=None, lent: LentOps | None = None) -> OpRegressor:
        """Learn from ops of one group, what each of them cost, positive, and its relative standard error (None: 0).

        ``lent`` are ops of groups with the same terms, see :func:`lent_ops`.
        """
        geometries = np.array([geometry_key(op) for op in ops])
        self.blocking_: Blocking | None = None
        if self.work is None and all(map(has_loops, ops)):
            cost = np.asarray(measured, dtype=np.float64)
            self.blocking_ = found_blocking(loop_nests(ops), cost, geometries, random_state=self.random_state)
        self.terms_, T = self._terms_to_fit(ops)
        X = self.inputs(ops, T)
        prior = self.prior
        if prior is not None and len(prior) < len(self.terms_):
            prior = np.concatenate([prior, np.zeros(len(self.terms_) - len(prior))])
        self.regressor_ = ChosenRegressor(
            n_work=len(self.terms_),
            n_plain=len(PLAIN_TERMS),
            n_rough=len(REMAINDER_FEATURES) if self.work is None else 0,
            method=self.method,
            prior=prior,
            random_state=self.random_state,
        ).fit(X, measured, geometries, _weights(noise), lent)
        self.probe_ = (ops[0], tuple(self._counted(ops[0], T[0]).astype(int).tolist()))
        return self

    def predict(self, ops: Sequence[Op], return_std: bool = False):
        """Costs of shape (n_ops,); with ``return_std`` also one standard deviation of each, in the same unit."""
        mean, std, _ = self.judged(ops)
        return (mean, std) if return_std else mean

    def judged(self, ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Costs, their standard deviations, and whether they rest on more than the fitted ops tell."""
        check_is_fitted(self, "regressor_")
        X = self.inputs(ops, self.terms_of(ops)[1], self.regressor_.columns)
        mean, std = self.regressor_.predict(X, return_std=True)
        return mean, std, self.regressor_.extrapolates(X, std / np.maximum(mean, np.finfo(float).tiny))

    def outside(self, op: Op) -> str:
        """What of an op lies furthest outside the range of those fitted, in words; empty where nothing does.

        Its geometry where that does, unless this cost has nothing to do with it; else what the kernel counts.
        """
        X = self.inputs([op], self.terms_of([op])[1])
        names = [name.replace("_", " ") for name in (*self.terms_, *PLAIN_TERMS)]
        start = len(names)
        names += [what.partition(",")[0] for name, what in GEOMETRY_FEATURES.items() if name.startswith("log_")]
        value, low, high = (
            np.concatenate([row[:start], np.expm1(row[start : len(names)])])
            for row in (X[0], self.regressor_.low_, self.regressor_.high_)
        )
        outside = self.regressor_.outside(X)[0][: len(names)]
        if op.pass_ == Pass.UPDATE:
            outside[[start + list(GEOMETRY_FEATURES).index(name) for name in OF_MAPS]] = False
        columns = np.flatnonzero(outside)
        columns = columns[columns >= start] if (columns >= start).any() else columns
        if not len(columns):
            return ""
        factors = np.maximum((value + 1) / (high + 1), (low + 1) / (value + 1))
        i = columns[np.argmax(factors[columns])]
        limit = f"at most {high[i]:,.0f}" if value[i] > high[i] else f"at least {low[i]:,.0f}"
        return f"{names[i]} {value[i]:,.0f}, measured {limit}"

    def _terms_to_fit(self, ops: Sequence[Op]) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the terms that are to be fitted and their counts."""
        if self.work is None:
            if self.blocking_ is not None:
                return loop_names(self.blocking_), loop_terms(loop_nests(ops), self.blocking_)
            return tuple(GEOMETRY_TERMS), geometry_terms(ops)
        return known_terms(ops, self.work, host=self.host)

    def _counted(self, op: Op, terms: np.ndarray) -> np.ndarray:
        """The terms of an op, the kernel's own counts as it states them."""
        own = np.zeros(0) if self.work is None else work_terms([op], self.work)[1][0]
        return np.concatenate([own, terms[len(own) :]])

    def terms_of(self, ops: Sequence[Op]) -> tuple[tuple[str, ...], np.ndarray]:
        """Names of the fitted terms and their counts, of shape (n_ops, n_terms)."""
        check_is_fitted(self, "terms_")
        if self.work is None:
            return self._terms_to_fit(ops)
        fitted = self.terms_
        names, T = known_terms(ops, self.work, host=not HOST_TERMS.keys().isdisjoint(fitted))
        if fitted == names:
            return names, T
        if unknown := set(fitted) - set(names):
            raise UserError(
                f"the cost model has terms that this version does not know ({', '.join(sorted(unknown))})",
                hint="fit the model again with this version",
            )
        return fitted, T[:, [names.index(name) for name in fitted]]  # a model of an earlier version may lack some

    def inputs(self, ops: Sequence[Op], T: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
        """Work terms, plain terms and features side by side, of shape (n_ops, n_columns).

        Where ``columns`` names those that are looked at, a block of others is not worked out and stands as zeros.
        """
        blocks = [(plain_terms, len(PLAIN_TERMS)), (geometry_features, len(GEOMETRY_FEATURES))]
        if self.work is None:
            blocks.append((remainder_features, len(REMAINDER_FEATURES)))
        parts, start = [T], T.shape[1]
        for block, width in blocks:
            wanted = columns is None or ((columns >= start) & (columns < start + width)).any()
            parts.append(block(ops) if wanted else np.zeros((len(ops), width)))
            start += width
        return np.hstack(parts)

    def check(self, key: str) -> None:
        """Raise UserError unless the kernels still count as they did when the group was measured."""
        if self.work is None:
            return
        op, counts = self.probe_
        then = [(name, count) for name, count in zip(self.terms_, counts, strict=True) if name not in _BESIDE_COUNTS]
        now = list(self.work(op).items())
        if now == then:
            return
        changed = sorted({*now} ^ {*then})
        raise UserError(
            f"the cost model was fitted to kernels that do other work for {key} than these "
            f"({', '.join(dict.fromkeys(name for name, _ in changed))})",
            hint="measure and fit again with this firmware",
        )


#: Terms that kernels do not count themselves.
_BESIDE_COUNTS = UNCOUNTED_TERMS.keys() | CONTROL_TERMS.keys() | HOST_TERMS.keys()


def known_terms(ops: Sequence[Op], work: WorkFunction, *, host: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the terms of one group's ops, and float64 counts of shape (n_ops, n_terms).

    Those of the firmware's kernels are what they count themselves, and what stands beside that; last, what hosts do
    beside that. What hosts do otherwise than it is counted is 0 there.
    """
    names, T = work_terms(ops, work)
    if work is not kernel_work:
        return names, T
    parts = [(names, T), uncounted_terms(ops), control_terms(ops)]
    if host:
        parts = [(of, counts * happens_on_hosts(ops[0], of)) for of, counts in parts] + [host_terms(ops, names, T)]
    return tuple(name for part, _ in parts for name in part), np.hstack([counts for _, counts in parts])


def same_loops(op: Op, other: Op, work: WorkFunction) -> bool:
    """Whether the kernels of two ops run loops whose terms go by the same names."""
    return loops_key(op) == loops_key(other) and known_terms([op], work)[0] == known_terms([other], work)[0]


def lent_ops(
    ops: Sequence[Op], measured: np.ndarray, noise: np.ndarray, work: WorkFunction, *, host: bool = False
) -> LentOps:
    """Ops of one group, as :meth:`OpRegressor.fit` of another takes them."""
    weight = _weights(noise)
    return LentOps(
        X=known_terms(ops, work, host=host)[1],
        y=measured,
        groups=np.array([geometry_key(op) for op in ops]),
        weight=np.ones(len(ops)) if weight is None else weight,
    )


def _weights(noise) -> np.ndarray | None:
    """How much ops count whose costs are known so well; None where each is known as well as a model can do."""
    noise = np.zeros(1) if noise is None else np.asarray(noise, dtype=np.float64)
    return None if (noise < NEGLIGIBLE * HALF_AS_MUCH).all() else 1 / (1 + (noise / HALF_AS_MUCH) ** 2)


def typical_error_percent(groups: Iterable[OpRegressor]) -> float:
    """Median of the groups' cross-validated errors; 0 where no group has one."""
    errors = [group.regressor_.cv_error_percent_ for group in groups]
    known = [error for error in errors if not np.isnan(error)]
    return float(np.median(known)) if known else 0.0
