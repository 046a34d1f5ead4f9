"""What ops cost inside a training step, beside what they cost measured alone.

Alone an op is repeated: it finds code, weights and inputs where it left them, or, with emptied caches, nothing at all.
In a step it finds what the ops before it left, which lies between the two. Fitted to measured steps:

    latency of an op in a step = factor(kind, pass, dtype) · warm + share · (cold - warm) + overhead

with one ``share`` and one ``overhead`` a device, and factors that are 1 unless the steps say otherwise. ``cold`` takes
part where the model knows it; then, before any step is measured, ops count as cold.

The sums of all ops of a kind and pass deviate from what was foreseen for two reasons: what a step makes of such ops,
which other networks share, and the errors of the model about this network's own ops, which they do not. Steps of one
network tell the two apart only by size: a deviation counts as the context's as far as it is larger than the stated
errors of ops (an empirical Bayes estimate of how far factors lie from the common one). Steps of several networks tell
more: what their deviations have in common is the context's. That is for devices whose time counts instructions, where
an op takes as many in a step as alone but for a few. On one with a clock of its own steps are expected to deviate: what
an op finds in caches and predictors is another thing there, and factors are believed to lie as far off as stated below.

An interval is for a step of a network *that was not measured in a step*. Its width has two sources, and the larger
counts: how far off steps were that were left out of the fit one by one, and how far off the kinds and passes of whole
networks were, whose errors another network repeats in size. In sign it may or may not: of the same kernels some are
always foretold too long, others too short, which cancels, and others now this way and now that. So the variance of its
step is the mean of two estimates: the sum of the squares of their errors, and the square of their sum. With steps of
several networks those are the errors of fits without the network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import lsq_linear
from scipy.special import stdtrit

from costmodels.calibration import Calibration, mape_percent
from costmodels.sources import NORMAL_90
from profiler.ops import Op

#: With so few steps, or fewer, ops cost in a step what they cost alone.
LEAST_STEPS = 4
#: How far factors are believed to lie from 1, from one another, and ``share`` from the middle, before any step is seen;
#: ``overhead`` is a share of the ops' mean latency.
_PRIOR_COMMON, _PRIOR_FACTOR, _PRIOR_SHARE, _PRIOR_OVERHEAD = 0.3, 0.05, 0.3, 0.02
#: Scatter of one kind's sum in one step, as a share of the step, against which those beliefs are weighed.
_SCATTER = 2e-3
#: Kinds and passes below this share of a step hardly matter to its error.
_SMALL_SHARE = 0.01
#: Ops whose stated error is this much of their cost, as of kernels that were not fitted, tell nothing of the context.
_UNKNOWN = 1.0
#: Factors are never tied closer than this.
_LEAST = 1e-4


@dataclass(frozen=True)
class StepObservation:
    """Ops of one measured step, with what the model says of each alone.

    Attributes:
        keys: :func:`context_key` of each op.
        counts: How often each runs in the step.
        warm_us: Predicted latency of one run of each, as the model was fitted (with cold caches, if only those were).
        cold_us: With emptied caches; None where the model does not know.
        measured_us: Measured in the step, all runs of each together.
        std_us: Standard deviation of the predicted sum, propagated from the ops'.
        key_std_us: The same of the ops of each key.
        network: Which network's step it is, by any name.
    """

    keys: tuple[str, ...]
    counts: np.ndarray
    warm_us: np.ndarray
    cold_us: np.ndarray | None
    measured_us: np.ndarray
    std_us: float
    key_std_us: Mapping[str, float] = field(default_factory=dict)
    network: str = ""

    @property
    def total_us(self) -> float:
        return float(self.measured_us.sum())

    def by_key(self, values: np.ndarray) -> dict[str, float]:
        """Sums of values of shape (n_ops,) over the ops of each key."""
        sums = dict.fromkeys(self.keys, 0.0)
        for key, value in zip(self.keys, values.tolist(), strict=True):
            sums[key] += value
        return sums


@dataclass(frozen=True)
class StepContext:
    """What makes an op cost otherwise in a step.

    Attributes:
        factors: By :func:`context_key`.
        common_factor: Of keys that no measured step had.
        cold_share: What part of ``cold - warm`` an op pays.
        overhead_us: What every run of an op pays.
        calibration: Of the step's latency.
        n_steps: How many measured steps it was fitted to; 0: to none.
        figures: Accuracy on steps left out in turn, for people.
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    common_factor: float = 1.0
    cold_share: float = 1.0
    overhead_us: float = 0.0
    calibration: Calibration = field(default_factory=Calibration)
    n_steps: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)

    def latency_us(self, keys: Sequence[str], warm_us: np.ndarray, cold_us: np.ndarray | None) -> np.ndarray:
        """Latency in a step of one run of each op."""
        result = self.factors_of(keys) * warm_us + self.overhead_us
        return result if cold_us is None else result + self.cold_share * (cold_us - warm_us)

    def factors_of(self, keys: Sequence[str]) -> np.ndarray:
        return np.array([self.factors.get(key, self.common_factor) for key in keys])

    def step_us(self, step: StepObservation) -> float:
        return float(step.counts @ self.latency_us(step.keys, step.warm_us, step.cold_us))

    @classmethod
    def fit(
        cls, steps: Sequence[StepObservation], floor: float = 0.0, *, counts_instructions: bool = True
    ) -> StepContext:
        """Learn from measured steps.

        Args:
            steps: More than :data:`LEAST_STEPS`; fewer of them only judge.
            floor: Smallest relative standard deviation of a step: the device's noise floor.
            counts_instructions: Whether the device's time does.
        """
        solve = _solve if counts_instructions else _believe
        fit = solve if len(steps) > LEAST_STEPS else lambda steps: cls()
        context = fit(steps)
        measured = np.array([step.total_us for step in steps])
        left_out = np.array([fit([s for s in steps if s is not step]).step_us(step) for step in steps])
        propagated = np.array([step.std_us for step in steps])
        calibration = Calibration.of(left_out, measured, propagated, floor, context.errors_elsewhere(steps, solve))
        alone = np.array([cls().step_us(step) for step in steps])
        figures = {
            "mape_percent": mape_percent(left_out, measured),
            "bias_percent": float(100 * np.mean(left_out / measured - 1)),
            "mape_without_context_percent": mape_percent(alone, measured),
        }
        return dataclasses.replace(context, calibration=calibration, n_steps=len(steps), figures=figures)

    def errors_elsewhere(
        self, steps: Sequence[StepObservation], solve: Callable[[Sequence[StepObservation]], StepContext]
    ) -> np.ndarray:
        """Sizes of errors, in us, that steps like these have of a network that was not measured, shape (n_steps,).

        With steps of several networks each is foretold by a fit to the others. With steps of one, its kinds and passes
        are foretold with the common factor: what they deviate from that, up to what the errors of ops explain, a factor
        of their own may only have learned of this network. Those few draws know the size of another's no better than
        Student's t with as many degrees of freedom says. How errors combine, see above.
        """
        common = dataclasses.replace(self, factors={})
        without = {}
        for network in {step.network for step in steps}:
            others = [step for step in steps if step.network != network]
            without[network] = solve(others) if len(others) > LEAST_STEPS else StepContext() if others else common
        sizes = []
        for step in steps:
            context, several = without[step.network], len(without) > 1
            predicted = step.counts * context.latency_us(step.keys, step.warm_us, step.cold_us)
            errors = step.by_key(step.measured_us - predicted)
            if several:
                sizes.append(max(_combined(list(errors.values())), abs(sum(errors.values()))))
            else:
                explained = [
                    math.copysign(min(abs(e), step.key_std_us.get(key, abs(e))), e) for key, e in errors.items()
                ]
                foreseen = step.by_key(predicted).values()
                independent = sum(us > _SMALL_SHARE * predicted.sum() for us in foreseen)
                sizes.append(_combined(explained) * float(stdtrit(max(independent, 1), 0.95)) / NORMAL_90)
        return np.array(sizes)

    def to_record(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_record(cls, record: dict) -> StepContext:
        return cls(**record | {"calibration": Calibration(**record["calibration"])})


def context_key(op: Op) -> str:
    """Ops that share a factor."""
    return f"{op.kind}/{op.pass_}/{op.dtype}"


def _combined(errors: Sequence[float]) -> float:
    """Size of the error of a sum, from its parts': half of the variance as if these were independent, half as seen."""
    return math.sqrt((sum(e * e for e in errors) + sum(errors) ** 2) / 2)


def _solve(steps: Sequence[StepObservation]) -> StepContext:
    """The context, by how far the common factor turns out to lie from 1, and the others from that one."""
    alone = _ridge(steps, _LEAST, _LEAST)
    of_common = _width(alone, steps, lambda key: "", _PRIOR_COMMON)
    common = _ridge(steps, of_common, _LEAST)
    return _ridge(steps, of_common, _width(common, steps, lambda key: key, _PRIOR_FACTOR))


def _believe(steps: Sequence[StepObservation]) -> StepContext:
    """The context, by how far factors are believed to lie from one another and from 1."""
    return _ridge(steps, _PRIOR_COMMON, _PRIOR_FACTOR)


def _width(context: StepContext, steps: Sequence[StepObservation], part: Callable[[str], str], most: float) -> float:
    """Standard deviation of what multiplies the parts of a step beside ``context``, by how they deviate from it.

    Deviations of one network hold the errors of its own ops, whose size is stated; products of those of two networks
    do not.

    Args:
        context: What is foreseen.
        steps: What was measured.
        part: Of a step, by the ops' key.
        most: The width is at most this.
    """
    sums: dict[str, dict[str, np.ndarray]] = {}
    for step in steps:
        predicted = step.by_key(step.counts * context.latency_us(step.keys, step.warm_us, step.cold_us))
        of_part: dict[str, np.ndarray] = {}
        for key, measured in step.by_key(step.measured_us).items():
            if step.key_std_us.get(key, 0.0) > _UNKNOWN * predicted[key]:
                continue
            row = np.array([measured - predicted[key], predicted[key], step.key_std_us.get(key, 0.0) ** 2])
            of_part[part(key)] = of_part.get(part(key), 0.0) + row
        for name, row in of_part.items():
            row[2] = math.sqrt(row[2])  # from step to step the errors of the same ops are the same
            of_network = sums.setdefault(name, {})
            of_network[step.network] = of_network.get(step.network, 0.0) + row
    several = len({step.network for step in steps}) > 1
    total = weights = 0.0
    for of_network in sums.values():
        error, predicted, std = np.array(list(of_network.values())).T
        d, n = error / predicted, len(error)
        if several and n == 1:
            continue
        square = (d.sum() ** 2 - d @ d) / (n * (n - 1)) if several else d[0] ** 2 - (std[0] / predicted[0]) ** 2
        total += float(predicted.sum() * square)
        weights += float(predicted.sum())
    return float(np.clip(math.sqrt(max(total / weights, 0.0)), _LEAST, most)) if weights else most


def _ridge(steps: Sequence[StepObservation], of_common: float, of_factors: float) -> StepContext:
    """Ridge towards "as alone", on the sums of each key in each step as shares of the step; the common factor lies
    ``of_common`` from 1, the others ``of_factors`` from that one."""
    keys = sorted({key for step in steps for key in step.keys})
    column = {key: i for i, key in enumerate(keys)}
    cold = all(step.cold_us is not None for step in steps)
    rows, targets = [], []
    for step in steps:
        index = np.array([column[key] for key in step.keys])
        warm, measured, runs, more = (
            np.bincount(index, weights, len(keys)) / step.total_us
            for weights in (
                step.counts * step.warm_us,
                step.measured_us,
                step.counts,
                step.counts * (step.cold_us - step.warm_us) if cold else 0 * step.counts,
            )
        )
        for i in np.unique(index):
            row = np.zeros(len(keys) + 3)
            row[[i, -3, -2, -1]] = warm[i], warm[i], more[i], runs[i]
            rows.append(row / _SCATTER)
            targets.append(measured[i] / _SCATTER)
    # Unknowns: how far each factor lies from the common one, that one, the share of cold, the overhead.
    mean_us = float(np.mean(np.concatenate([step.warm_us for step in steps])))
    # Where ops cost in steps what they cost alone, up to their own errors, an overhead would only learn those.
    overhead = (_PRIOR_OVERHEAD if of_common > _LEAST else _LEAST) * mean_us
    widths = np.array([of_factors] * len(keys) + [of_common, _PRIOR_SHARE, overhead])
    expected = np.array([0.0] * len(keys) + [1.0, 0.5, 0.0])
    matrix = np.vstack([*rows, np.diag(1 / widths)])
    target = np.concatenate([targets, expected / widths])
    lower = np.array([-1.0] * len(keys) + [0.0, 0.0, 0.0])
    upper = np.array([1.0] * len(keys) + [3.0, 1.5, np.inf])
    x = lsq_linear(matrix, target, (lower, upper)).x
    common = float(x[-3])
    factors = {key: common + float(x[i]) for key, i in column.items()}
    return StepContext(factors, common, float(x[-2]) if cold else 1.0, float(x[-1]))
