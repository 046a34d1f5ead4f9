"""Which op to measure next: the one that lowers a cost model's mean error over the space most for its time.

Of each family of ops relative errors are taken to be a Gaussian process: a Bayesian linear model over the kernel's work
counts, each as its share of the op's cost, and a Matérn process over geometry features on top, as large as the family's
errors on held-out ops. Families with the same loops, as those for the other axis that trains, tell of one another. What
measuring an op does to the mean variance over a sample of the space is then known before it is measured (Cohn,
Ghahramani and Jordan, JAIR 4, 1996): the square of its covariance with every other, over its own variance. Chosen is,
one after the other, the op with the largest drop in expected error a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from costmodels.features import WorkFunction, geometry_features, kernel_work
from costmodels.group import known_terms, same_loops
from costmodels.target import TargetModel
from profiler.devices.identity import is_linux_board
from profiler.measure.chosen import Known
from profiler.ops import Op
from profiler.workloads.op_space import Family

#: Standard deviation, before anything is measured, of the share of a cost that one work term makes up.
TERM_SHARE = 0.3
#: Relative deviation of a measured cost from the model's, at least: what work counts leave out from op to op.
LEAST_NOISE = 0.002
#: How much more of a family with the same loops: what a unit of work costs may be a little different there.
LENT_NOISE = 0.01
#: Relative error that a family is taken to have before held-out ops tell, and how many of those that is worth.
UNKNOWN_ERROR, UNKNOWN_WEIGHT = 0.03, 1.0
#: How many held-out ops it is worth what the measured ones say of a family when each is left out.
LEFT_OUT_WEIGHT = 3.0
#: Larger relative errors count as this much: one op is not to draw everything to its family.
LARGEST_ERROR = 0.5
#: Length scale of the Matérn process, in standard deviations of a feature and times the root of their number.
LENGTH_SCALE = 0.7


class ActiveChooser:
    """The chooser of ``profile --design active`` (:class:`profiler.measure.design_terms.Chooser`).

    Args:
        identity: Of the device; whether it is a host, all else that matters is measured.
        work: The kernels' work counts; the firmware's own by default.

    Attributes:
        model: What was learned so far.
    """

    def __init__(self, identity: Any = None, *, work: WorkFunction = kernel_work) -> None:
        self.work = work
        # Asked for again after every batch: comparing estimators would take longer than measuring.
        self.model = TargetModel(work=work, method="terms", host=is_linux_board(getattr(identity, "board", "")))
        self._known: dict[Op, tuple[float, float]] = {}
        self._new: dict[Op, tuple[float, float]] = {}
        self._learned = False
        self._rows: dict[Op, tuple[np.ndarray, np.ndarray]] = {}

    def observe(self, known: Known) -> None:
        """See :class:`profiler.measure.design_terms.Chooser`."""
        values = zip(known.latency_us.tolist(), known.noise.tolist(), strict=True)
        new = {op: value for op, value in zip(known.ops, values, strict=True) if self._known.get(op) != value}
        self._known |= new
        self._new |= new

    def learn(self) -> None:
        """Fit the groups of which there is something new."""
        if not self._new:
            return
        latency, noise = np.array(list(self._new.values())).T
        learn = self.model.update if self._learned else self.model.fit
        learn(list(self._new), latency, noise)
        self._learned, self._new = True, {}

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        """Latencies in microseconds, of shape (n_ops,)."""
        return self.model.predict(ops).mean

    def choose(
        self,
        candidates: Mapping[Family, Sequence[Op]],
        errors: Mapping[Family, Sequence[float]],
        *,
        weights: Mapping[Family, float],
        seconds: Callable[[np.ndarray], np.ndarray],
        budget_s: float,
    ) -> list[Op]:
        """See :class:`profiler.measure.design_terms.Chooser`."""
        expected = expected_errors(candidates, errors)
        known: dict[Family, list[Op]] = {}
        for op in self._known:
            known.setdefault(Family.of(op), []).append(op)
        contenders = []
        for family, ops in candidates.items():
            if not ops:
                continue
            latency = self.predict(ops)
            own, others = known.get(family, []), self._lent(family, ops[0], known)
            measured = [*own, *others]
            observed = np.array([self._known[op] for op in measured]).reshape(-1, 2)
            observed[len(own) :, 1] += LENT_NOISE
            belief = Belief(
                *self._described([*measured, *ops]),
                np.concatenate([observed[:, 0], latency]),
                np.concatenate([observed[:, 1], np.zeros(len(ops))]),
                n_measured=len(measured),
                n_own=len(own),
                scatter=expected[family],
            )
            told = len(errors.get(family, ())) + UNKNOWN_WEIGHT
            belief.error = (told * expected[family] + LEFT_OUT_WEIGHT * belief.left_out_error) / (
                told + LEFT_OUT_WEIGHT
            )
            contenders.append(_Contender(belief, list(ops), seconds(latency), weights[family]))
        return _best_for_their_time(contenders, budget_s)

    def _lent(self, family: Family, op: Op, known: Mapping[Family, list[Op]]) -> list[Op]:
        """Ops of other families that tell what the loops of ``op``, of this one, cost."""
        others = (ops for other, ops in known.items() if other != family and same_loops(ops[0], op, self.work))
        return [op for ops in others for op in ops]

    def _described(self, ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
        """Work counts and geometry features of one family's ops; candidates come again and again, so both are kept."""
        new = [op for op in ops if op not in self._rows]
        if new:
            described = zip(known_terms(new, self.work)[1], geometry_features(new), strict=True)
            self._rows |= zip(new, described, strict=True)
        counts, features = zip(*(self._rows[op] for op in ops), strict=True)
        return np.array(counts), np.array(features)


def expected_errors(families: Mapping[Family, Any], errors: Mapping[Family, Sequence[float]]) -> dict[Family, float]:
    """Mean absolute relative error of each family: its own on held-out ops, drawn towards the median of all."""
    size = {family: np.minimum(np.abs(values), LARGEST_ERROR) for family, values in errors.items() if len(values)}
    typical = float(np.median([values.mean() for values in size.values()])) if size else UNKNOWN_ERROR
    result = {}
    for family in families:
        own = size.get(family, np.empty(0))
        result[family] = float((own.sum() + UNKNOWN_WEIGHT * typical) / (len(own) + UNKNOWN_WEIGHT))
    return result


class Belief:
    """What is not known yet about the relative errors of one family's ops.

    Args:
        counts: Work counts of measured ops first, then of those that stand for the space: (n_ops, n_terms).
        features: Geometry features of the same.
        cost: Of each, measured or predicted.
        noise: Relative standard errors of the measured ones.
        n_measured: How many of them are measured,
        n_own: and how many of these, the first, are the family's; the others lend what they tell of the same loops.
        scatter: Relative deviation of costs from what the work counts tell.

    Attributes:
        left_out_error: Mean absolute relative error of the family's measured ops, each foretold from the others.
        covariance: Of the relative errors of the ops that stand for the space.
        error: Mean relative error expected now; ``scatter``, unless somebody knows better.
    """

    def __init__(
        self,
        counts: np.ndarray,
        features: np.ndarray,
        cost: np.ndarray,
        noise: np.ndarray,
        *,
        n_measured: int,
        n_own: int,
        scatter: float,
    ) -> None:
        shares = counts / np.maximum(cost, 1e-9)[:, None]
        size = np.sqrt(np.mean(shares**2, axis=0))
        shares = TERM_SHARE * shares / np.where(size > 0, size, 1.0)
        prior = shares @ shares.T + scatter**2 * _matern(features)
        self.noise = max(LEAST_NOISE, 0.1 * scatter) ** 2
        seen = slice(0, n_measured)
        rest = slice(n_measured, None)
        self.covariance = prior[rest, rest].copy()
        self.left_out_error = LARGEST_ERROR
        if n_measured:
            factor = cho_factor(prior[seen, seen] + np.diag(self.noise + noise[seen] ** 2))
            cross = prior[seen, rest]
            self.covariance -= cross.T @ cho_solve(factor, cross)
            # Of relative costs, which are all 1 (Rasmussen and Williams, eq. 5.12).
            inverse = cho_solve(factor, np.eye(n_measured))
            left_out = (inverse.sum(axis=1) / np.diag(inverse))[:n_own]
            if n_own:
                self.left_out_error = float(np.minimum(np.abs(left_out), LARGEST_ERROR).mean())
        self.error = scatter

    @property
    def mean_variance(self) -> float:
        return max(float(np.diag(self.covariance).mean()), 1e-18)

    def gains(self) -> np.ndarray:
        """By how much measuring each op lowers the mean relative error."""
        variance = np.maximum(np.diag(self.covariance), 0.0)
        drop = (self.covariance**2).mean(axis=0) / (variance + self.noise)
        left = np.maximum(1 - drop / self.mean_variance, 0.0)
        return self.error * (1 - np.sqrt(left))

    def measure(self, index: int) -> None:
        """Take one of the ops to be measured."""
        before = self.mean_variance
        column = self.covariance[:, index].copy()
        self.covariance -= np.outer(column, column) / (max(column[index], 0.0) + self.noise)
        self.error *= float(np.sqrt(min(1.0, self.mean_variance / before)))


class _Contender:
    """One family's candidates, from which the best is taken again and again.

    Args:
        belief: What is not known of them yet.
        ops: Which.
        seconds: What measuring each takes.
        weight: What the family's errors count.
    """

    def __init__(self, belief: Belief, ops: list[Op], seconds: np.ndarray, weight: float) -> None:
        self.belief, self.ops, self.seconds, self.weight = belief, ops, seconds, weight
        self._free = np.ones(len(ops), dtype=bool)

    def best(self) -> tuple[float, int] | None:
        """What the best candidate gains a second, and which it is; None where all are taken."""
        if not self._free.any():
            return None
        worth = np.where(self._free, self.weight * self.belief.gains() / self.seconds, -1.0)
        index = int(np.argmax(worth))
        return float(worth[index]), index

    def take(self, index: int) -> tuple[Op, float]:
        """Take a candidate to be measured: the op, and how long that takes."""
        self.belief.measure(index)
        self._free[index] = False
        return self.ops[index], float(self.seconds[index])


def _best_for_their_time(contenders: Sequence[_Contender], budget_s: float) -> list[Op]:
    """Greedily the op with the largest gain a second, of all families, until the time is spent."""

    def entry(number: int) -> list[tuple[float, int, int]]:
        best = contenders[number].best()
        return [(-best[0], number, best[1])] if best else []

    heap = [item for number in range(len(contenders)) for item in entry(number)]
    heapq.heapify(heap)
    chosen: list[Op] = []
    while heap and budget_s > 0:
        _, number, index = heapq.heappop(heap)
        op, taken_s = contenders[number].take(index)
        chosen.append(op)
        budget_s -= taken_s
        for item in entry(number):
            heapq.heappush(heap, item)
    return chosen


def _matern(features: np.ndarray) -> np.ndarray:
    """Matérn-5/2 correlations (Rasmussen and Williams, eq. 4.17) of standardised features."""
    deviation = features.std(axis=0)
    varying = deviation > 1e-9
    Z = (features - features.mean(axis=0))[:, varying] / deviation[varying]
    Z = Z / (LENGTH_SCALE * max(1.0, np.sqrt(varying.sum())))
    squared = np.maximum((Z**2).sum(1)[:, None] + (Z**2).sum(1)[None, :] - 2 * Z @ Z.T, 0.0)
    r = np.sqrt(5 * squared)
    return (1 + r + r**2 / 3) * np.exp(-r)
