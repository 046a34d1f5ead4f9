"""Everything that is fitted for one target (latency, energy) of one device."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, cpu_count, delayed, parallel_config
from threadpoolctl import threadpool_limits

from costmodels import saved
from costmodels.estimators import LentOps, NonNegativeTerms
from costmodels.features import WorkFunction, group_key, kernel_work
from costmodels.group import OpRegressor, known_terms, lent_ops, same_loops, typical_error_percent
from costmodels.host_terms import HOST_TERMS, prior_names
from costmodels.intervals import Intervals, scores_of
from costmodels.pooled import PooledTerms, interval, rows_by
from costmodels.priors import SharedGroup, prior_costs, shared_costs
from costmodels.recovery import Recovery
from profiler.ops import Op

#: Fewer held-out ops than this do not calibrate intervals.
MIN_HELD_OUT = 30

#: Told after each group of ops: how many are done, how many there are, and which was the last.
OnGroup = Callable[[int, int, str], None]


#: A process each pays off from so many ops on; starting them takes about as long as fitting some hundred.
PARALLEL_OPS = 800


def _fitted(fits: Sequence[tuple[OpRegressor, list[Op], np.ndarray, np.ndarray]]) -> Iterator[OpRegressor]:
    """The regressors fitted to their ops, costs and noise, in order; on all cores where there is much to fit.

    Work counts of somebody else's may be a function that another process cannot import.
    """
    processes = cpu_count() if all(regressor.work in (None, kernel_work) for regressor, *_ in fits) else 1
    if processes == 1 or sum(len(ops) for _, ops, *_ in fits) < PARALLEL_OPS:
        for regressor, *of_ops in fits:
            yield regressor.fit(*of_ops)
        return
    with parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
        yield from Parallel(return_as="generator")(delayed(regressor.fit)(*of_ops) for regressor, *of_ops in fits)


def silent(done: int, groups: int, key: str) -> None:
    """An :data:`OnGroup` that tells nobody."""


@dataclass(frozen=True)
class Prediction:
    """What ops cost, each an array of shape (n_ops,) in the target's unit.

    Attributes:
        mean: The predicted cost.
        std: One standard deviation of its error.
        low_90, high_90: Between these lie 90 % of measured costs of such ops.
        extrapolates: bool: something of the op lies outside what the fit saw.
    """

    mean: np.ndarray
    std: np.ndarray
    low_90: np.ndarray
    high_90: np.ndarray
    extrapolates: np.ndarray


class TargetModel:
    """Costs of ops for one target: an estimator a group of ops (a kernel), and pooled terms for what has none.

    An op of a group that was never measured gets pooled terms, those of its pass if that was measured, with an interval
    that says how far off kernels are that those were fitted without; ``extrapolates`` says so.

    Args:
        work: The kernels' work counts; the firmware's own by default. None: the kernels are unknown.
        method: One of :data:`~costmodels.estimators.METHODS`, or the best for each group.
        host: Whether the device is a host (:mod:`costmodels.host_terms`) and no microcontroller.
        recovers: Whether costs are times in microseconds on a host that begins ops at a lowered frequency
            (:mod:`costmodels.recovery`).

    Attributes (after :meth:`fit` or :meth:`from_record`):
        groups: Group key to what was learned.
        pooled: What stands in for groups that are not there.
        intervals: How wide those of fitted groups are; of the cross-validation until :meth:`calibrate` has other ops.
        recovery: What long ops gain by the frequency that a core regains; None: nothing of that kind.
        noise_floor: Median relative standard error of the measured costs: no interval is narrower.
        n_ops: How many ops were fitted.
    """

    def __init__(
        self,
        *,
        work: WorkFunction | None = kernel_work,
        method: str = "auto",
        host: bool = False,
        recovers: bool = False,
    ) -> None:
        self.work = work
        self.method = method
        self.host = host
        self.recovers = recovers
        self.recovery: Recovery | None = None
        self._checked: set[str] = set()
        self._training: dict[Op, tuple[float, float]] = {}

    # ------------------------------------------------------------------------------------------------ fitting

    def fit(
        self, ops: Sequence[Op], y: np.ndarray, noise: np.ndarray | None = None, on_group: OnGroup = silent
    ) -> TargetModel:
        """Learn from these ops, all of them.

        Args:
            ops: Each once.
            y: Their costs, positive, of shape (n_ops,).
            noise: Relative standard errors of ``y``; None: 0.
            on_group: Told of progress.

        Returns:
            self
        """
        self._training = {}
        self.groups: dict[str, OpRegressor] = {}
        return self.update(ops, y, noise, on_group)

    def update(
        self, ops: Sequence[Op], y: np.ndarray, noise: np.ndarray | None = None, on_group: OnGroup = silent
    ) -> TargetModel:
        """Learn from these ops besides those of before; an op that was known has its new cost.

        Only the groups that they belong to are fitted again, so that measuring can ask for it again and again.
        """
        noise = np.zeros(len(y)) if noise is None else np.asarray(noise, dtype=np.float64)
        self._training |= {op: (float(v), float(s)) for op, v, s in zip(ops, y, noise, strict=True)}
        stale = dict.fromkeys(map(group_key, ops))
        training = list(self._training)
        cost, spread = np.array(list(self._training.values())).T
        if self.recovers and self.work is not None:
            self.recovery = Recovery.learned(training, cost, rows_by(map(group_key, training)), self.work)
            cost = self.recovery.lowered(training, cost)
        # Matrices are small: more threads only wait for each other.
        with threadpool_limits(1):
            self._fit_groups(training, cost, spread, stale, on_group)
            self.pooled = PooledTerms.fit(training, cost)
        self.noise_floor = float(np.median(spread))
        self.n_ops = len(training)
        self.intervals = self._cross_conformal()
        return self

    def calibrate(self, ops: Sequence[Op], y: np.ndarray) -> TargetModel:
        """Set how wide intervals are by ops that were drawn at random and not fitted, and by what they cost.

        Those of groups that were not fitted do not tell. Fewer than :data:`MIN_HELD_OUT` of the others change nothing.
        """
        fitted = [i for i, op in enumerate(ops) if group_key(op) in self.groups]
        ops, y = [ops[i] for i in fitted], y[fitted]
        if len(ops) >= MIN_HELD_OUT:
            predicted = self.predict(ops)
            scores = scores_of(np.log(y / predicted.mean), predicted.std / predicted.mean)
            self.intervals = Intervals.calibrated([group_key(op) for op in ops], scores, "held-out ops")
        return self

    def uncalibrated(self) -> TargetModel:
        """A copy with the intervals of before :meth:`calibrate`, those of the cross-validation."""
        other = copy.copy(self)
        other.intervals = self._cross_conformal()
        return other

    def _cross_conformal(self) -> Intervals:
        judged = {key: group.regressor_ for key, group in self.groups.items() if len(group.regressor_.errors_)}
        scores = [scores_of(r.errors_, np.maximum(r.stds_ * r.std_scale_, self.noise_floor)) for r in judged.values()]
        keys = [key for key, r in judged.items() for _ in r.errors_]
        return Intervals.calibrated(keys, np.concatenate([*scores, []]), "cross-validation")

    def _fit_groups(
        self, ops: Sequence[Op], y: np.ndarray, noise: np.ndarray, stale: Iterable[str], on_group: OnGroup
    ) -> None:
        rows_of = rows_by(map(group_key, ops))
        chosen = list(stale)
        priors = {} if self.work is None else self._priors(ops, y, rows_of)
        fits = []
        for key in chosen:
            rows = rows_of[key]
            regressor = OpRegressor(work=self.work, method=self.method, prior=priors.get(key), host=self.host)
            lent = self._lent(key, rows_of, ops, y, noise)
            fits.append((regressor, [ops[i] for i in rows], y[rows], noise[rows], lent))
        for done, (key, regressor) in enumerate(zip(chosen, _fitted(fits), strict=True)):
            self.groups[key] = regressor
            on_group(done + 1, len(chosen), key)

    def _lent(
        self, key: str, rows_of: dict[str, list[int]], ops: Sequence[Op], y: np.ndarray, noise: np.ndarray
    ) -> LentOps | None:
        """What the groups with the same loops have measured."""
        if self.work is None:
            return None
        first = ops[rows_of[key][0]]
        others = [
            i
            for other, rows in rows_of.items()
            if other != key and same_loops(ops[rows[0]], first, self.work)
            for i in rows
        ]
        if not others:
            return None
        return lent_ops([ops[i] for i in others], y[others], noise[others], self.work, host=self.host)

    def _priors(self, ops: Sequence[Op], y: np.ndarray, rows_of: dict[str, list[int]]) -> dict[str, np.ndarray]:
        assert self.work is not None
        fits, shared, few = {}, {}, []
        for key, rows in rows_of.items():
            members = [ops[i] for i in rows]
            names, T = known_terms(members, self.work, host=self.host)
            fit = NonNegativeTerms().fit(T, y[rows])
            if self.host:  # what only hosts do has no namesakes that do the same
                counted = sum(name not in HOST_TERMS for name in names)
                names, T, fit.coef_ = prior_names(members, names[:counted]), T[:, :counted], fit.coef_[:counted]
            fits[key] = (names, T, fit)
            shared[key] = SharedGroup(names, T, y[rows], members[0].dtype)
            if len(rows) < T.any(axis=0).sum():
                few.append(key)
        return prior_costs(fits) | (shared_costs(shared, few) if few else {})

    @property
    def typical_error_percent(self) -> float:
        """Median of the groups' cross-validated errors; 0 where no group has one."""
        return typical_error_percent(self.groups.values())

    # --------------------------------------------------------------------------------------------- predicting

    def predict(self, ops: Sequence[Op]) -> Prediction:
        """Costs of ops, in order.

        Raises:
            UserError: the kernels count other work than those that the model was fitted on.
        """
        mean, std = np.empty(len(ops)), np.empty(len(ops))
        low, high = np.empty(len(ops)), np.empty(len(ops))
        outside = np.ones(len(ops), dtype=bool)
        for key, rows in rows_by(map(group_key, ops)).items():
            members = [ops[i] for i in rows]
            group = self.groups.get(key)
            if group is None:
                mean[rows], std[rows] = self.pooled.predict(members)
            else:
                if key not in self._checked:
                    group.check(key)
                    self._checked.add(key)
                mean[rows], std[rows], outside[rows] = group.judged(members)
                if np.isnan(group.regressor_.cv_error_percent_):
                    # Too few ops to see how they scatter: as much as those of the other groups.
                    std[rows] = np.maximum(std[rows], self.typical_error_percent / 100 * mean[rows])
            if self.recovery is not None:
                mean[rows], std[rows] = self.recovery.regained(members, mean[rows], std[rows])
            std[rows] = np.maximum(std[rows], self.noise_floor * mean[rows])
            low[rows], high[rows] = (
                interval(mean[rows], std[rows])
                if group is None
                else self.intervals.around(key, mean[rows], std[rows], self.noise_floor)
            )
        return Prediction(mean, std, low, high, outside)

    # ------------------------------------------------------------------------------------------------- saving

    def to_record(self, prefix: str, arrays: saved.Arrays) -> dict:
        """The JSON part; arrays go into ``arrays`` under ``prefix``."""
        groups = {
            key: saved.group_to_record(group, f"{prefix}group{i}/", arrays)
            for i, (key, group) in enumerate(sorted(self.groups.items()))
        }
        return {
            "n_ops": self.n_ops,
            "noise_floor": self.noise_floor,
            "kernels": "unknown" if self.work is None else "known",
            "recovery": None if self.recovery is None else self.recovery.ratio,
            "intervals": self.intervals.to_record(),
            "groups": groups,
            "pooled": self.pooled.to_record(prefix, arrays),
            "pooled_widths": dict(self.pooled.widths),
        }

    @classmethod
    def from_record(cls, record: dict, arrays: saved.Arrays, *, work: WorkFunction = kernel_work) -> TargetModel:
        """What :meth:`to_record` wrote; the ops that it was fitted to are not in it, so it cannot be updated.

        Raises:
            KeyError, TypeError, ValueError: the record is damaged.
        """
        model = cls(work=None if record["kernels"] == "unknown" else work)
        if (ratio := record.get("recovery")) is not None:  # models of earlier versions know of none
            model.recovery = Recovery(float(ratio))
        model.n_ops, model.noise_floor = int(record["n_ops"]), float(record["noise_floor"])
        model.intervals = Intervals.from_record(record["intervals"])
        model.groups = {
            key: saved.group_from_record(part, arrays, model.work) for key, part in record["groups"].items()
        }
        model.pooled = PooledTerms.from_record(record["pooled"], record.get("pooled_widths", {}), arrays)
        return model
