"""What a fitted model stands beside: predictors that anybody would write down first, or that others published.

Each learns from the very ops that the model learned from (:class:`costmodels.training_ops.TrainingOps`) and answers for
any op. Costs may be microseconds, microjoules or bytes: what goes in comes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from costmodels.accuracy import best_scalar
from costmodels.estimators import NonNegativeTerms
from costmodels.features import PLAIN_TERMS, plain_terms
from profiler.ops import Access, Op, Weighted

#: How the roles of buffers end that hold weights, which lie in flash where an op only reads them.
_IN_FLASH = ("weight", "bias", "requantization")


class Baseline(Protocol):
    """A predictor of one target."""

    name: str

    def fit(self, ops: Sequence[Op], cost: np.ndarray) -> Baseline:
        """Learn from ops and their costs, positive, of shape (n_ops,)."""

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        """Costs of shape (n_ops,)."""


def baselines_of(target: str, latencies_us: Callable[[Sequence[Op]], np.ndarray]) -> list[Baseline]:
    """The baselines that a target has.

    Args:
        target: ``latency``, ``energy`` or ``memory``.
        latencies_us: The fitted model's own latencies of ops, in microseconds.
    """
    if target == "memory":
        return [InputAndOutput(), NnMeterForest()]
    common: list[Baseline] = [ScalarBaseline(), LinearBaseline(), NnMeterForest()]
    return [ConstantPower(latencies_us), *common] if target == "energy" else common


class ScalarBaseline:
    """``c × MACs``: one scalar a device over all ops with MACs.

    Ops without MACs (elementwise kinds, pooling, updates, bias-only gradients) would cost nothing by it, an error of
    100 %; they are charged a second scalar times the words they read and write instead, which favours the baseline.

    Attributes:
        cost_per_mac_, cost_per_word_: NaN where no op had, or none lacked, MACs.
    """

    name = "c × MACs"

    def fit(self, ops: Sequence[Op], cost: np.ndarray) -> ScalarBaseline:
        macs, words = _amounts(ops)
        has = macs > 0
        self.cost_per_mac_ = best_scalar(macs[has], cost[has]) if has.any() else math.nan
        self.cost_per_word_ = best_scalar(words[~has], cost[~has]) if (~has).any() else math.nan
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        macs, words = _amounts(ops)
        return np.where(macs > 0, self.cost_per_mac_ * macs, self.cost_per_word_ * words)


class LinearBaseline:
    """``a + b × MACs`` with a and b of each kind, pass and dtype, not negative, of least relative error.

    Words moved stand in for MACs where there are none; a kind and pass that was never measured takes the line of its
    pass and dtype.
    """

    name = "linear in MACs"

    def fit(self, ops: Sequence[Op], cost: np.ndarray) -> LinearBaseline:
        self.lines_: dict[tuple[str, ...], NonNegativeTerms] = {}
        X = self._terms(ops)
        for level in (_kind_pass_dtype, _pass_dtype, _anything):
            for key, rows in _rows_by([level(op) for op in ops]).items():
                self.lines_[key] = NonNegativeTerms().fit(X[rows], cost[rows])
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        cost = np.empty(len(ops))
        X = self._terms(ops)
        for key, rows in _rows_by([_known(op, self.lines_) for op in ops]).items():
            cost[rows] = self.lines_[key].predict(X[rows])
        return cost

    @staticmethod
    def _terms(ops: Sequence[Op]) -> np.ndarray:
        macs, words = _amounts(ops)
        return np.column_stack([np.ones(len(ops)), np.where(macs > 0, macs, words)])


#: Columns of :func:`nn_meter_features`, with nn-Meter's names. It has one HW, KERNEL_SIZE and STRIDES, all maps and
#: kernels being square there: here each has its height and width.
NN_METER_FEATURES = (
    *("H", "W", "CIN", "COUT", "KERNEL_SIZE_H", "KERNEL_SIZE_W", "STRIDES_H", "STRIDES_W"),
    *("FLOPS", "PARAMS", "trained_channels", "trained_axis_in"),
)
_N_MAP, _N_CHANNELS, _N_WINDOW = 3, 4, 8
#: Of which kinds nn-Meter takes more than the map and its channels: the number of leading columns.
_NN_METER_COLUMNS = {"linear": _N_CHANNELS, "cosine_head": _N_CHANNELS} | dict.fromkeys(
    ("conv2d", "depthwise", "fused_conv2d", "pointwise_depthwise", "avg_pool2d", "max_pool2d"), _N_WINDOW
)
#: Kinds with weights, of which it takes FLOPs and parameters too.
_NN_METER_FLOPS = frozenset({"conv2d", "depthwise", "fused_conv2d", "pointwise_depthwise", "linear", "cosine_head"})


def nn_meter_features(ops: Sequence[Op]) -> np.ndarray:
    """nn-Meter's features of ops (Zhang et al., MobiSys 2021; its published predictors' feature sets).

    - convolution, depthwise convolution: HW, CIN, COUT, KERNEL_SIZE, STRIDES, FLOPs (millions of MACs), parameters
      (millions);
    - pooling: HW, CIN, COUT, KERNEL_SIZE, STRIDES;
    - linear: CIN, COUT, FLOPs, parameters;
    - everything else (sums, activations, normalisations, global pooling): HW, CIN.

    nn-Meter predicts inference only. For the other passes FLOPs are those of the pass, and how many channels of which
    axis train is added, without which it could not tell those ops apart.

    Returns:
        Columns :data:`NN_METER_FEATURES`, float64 of shape (n_ops, 12); 0 in columns that a kind does not have.
    """
    return np.array([_nn_meter_row(op) for op in ops], dtype=np.float64).reshape(len(ops), len(NN_METER_FEATURES))


def _nn_meter_row(op: Op) -> list[float]:
    g = op.geometry
    shape_in, shape_out = g.input_shape, g.output_shape
    height, width = shape_in[:2] if len(shape_in) == 3 else (1, 1)
    row = [height, width, shape_in[-1] if shape_in else 0, shape_out[-1] if shape_out else 0]
    row += [getattr(g, name, 1) for name in ("kernel_h", "kernel_w", "stride_h", "stride_w")]
    columns = _NN_METER_COLUMNS.get(op.kind, _N_MAP)
    row[columns:] = [0] * (_N_WINDOW - columns)
    flops, parameters = (op.macs / 1e6, _parameters(op) / 1e6) if op.kind in _NN_METER_FLOPS else (0, 0)
    return [*row, flops, parameters, op.trained_channels, op.trained_axis == "in"]


def _parameters(op: Op) -> int:
    """Weights and biases of the op's layer, whatever its pass."""
    if isinstance(op.geometry, Weighted):
        return math.prod(op.geometry.weight_shape) + op.geometry.bias_elements
    return sum(
        b.elements
        for b in op.buffers()
        if b.access is Access.READ and b.role.endswith(("prototypes", "weight", "bias"))
    )


class NnMeterForest:
    """nn-Meter's predictor: a random forest on its features, one a kind, pass and dtype.

    Its published forests have 240 to 370 trees of depth 50 or 70 without pruning; so have these, but for the number of
    trees: from 30 on their errors change by less than with another seed, and the time grows. A kind and pass that was
    never measured gets the forest of its pass and dtype.

    Args:
        n_trees: Of each forest.
    """

    name = "random forest, nn-Meter's features"

    def __init__(self, n_trees: int = 30) -> None:
        self.n_trees = n_trees

    def fit(self, ops: Sequence[Op], cost: np.ndarray) -> NnMeterForest:
        self._X, self._cost = nn_meter_features(ops), np.asarray(cost, dtype=np.float64)
        self._rows = {
            key: rows
            for level in (_kind_pass_dtype, _pass_dtype, _anything)
            for key, rows in _rows_by([level(op) for op in ops]).items()
        }
        self._forests: dict[tuple[str, ...], RandomForestRegressor] = {}
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        cost = np.empty(len(ops))
        X = nn_meter_features(ops)
        for key, rows in _rows_by([_known(op, self._rows) for op in ops]).items():
            cost[rows] = self._forest(key).predict(X[rows])
        return cost

    def _forest(self, key: tuple[str, ...]) -> RandomForestRegressor:
        """Grown when first asked for: most pooled forests never are."""
        if key not in self._forests:
            rows = self._rows[key]
            # Not its max_features either (6 of 7 for convolutions): columns are fewer or more here.
            forest = RandomForestRegressor(self.n_trees, max_depth=70, random_state=10)
            self._forests[key] = forest.fit(self._X[rows], self._cost[rows])
        return self._forests[key]


class ConstantPower:
    """``P × time``: one mean power a device, times the fitted model's own latency.

    Args:
        latencies_us: Latencies of ops in microseconds.

    Attributes:
        power_w_: The power of least mean relative error.
    """

    name = "constant power × time"

    def __init__(self, latencies_us: Callable[[Sequence[Op]], np.ndarray]) -> None:
        self.latencies_us = latencies_us

    def fit(self, ops: Sequence[Op], cost: np.ndarray) -> ConstantPower:
        """Learn from energies in microjoules."""
        self.power_w_ = best_scalar(self.latencies_us(ops), cost)
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        return self.power_w_ * self.latencies_us(ops)


class InputAndOutput:
    """Memory as it is often counted: the bytes of what an op reads and writes, weights that lie in flash left out.

    Nothing is fitted; scratch, alignment and stack are what it does not see.
    """

    name = "input + output"

    def fit(self, ops: Sequence[Op], cost: np.ndarray) -> InputAndOutput:
        """Nothing to learn."""
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        return np.array([self._bytes(op) for op in ops], dtype=np.float64)

    @staticmethod
    def _bytes(op: Op) -> int:
        return sum(b.byte_count for b in op.buffers() if b.access is not Access.READ or not b.role.endswith(_IN_FLASH))


def _amounts(ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
    plain = plain_terms(ops)
    names = list(PLAIN_TERMS)
    return plain[:, names.index("macs")], plain[:, names.index("words_read")] + plain[:, names.index("words_written")]


def _kind_pass_dtype(op: Op) -> tuple[str, ...]:
    return op.kind, str(op.pass_), op.dtype


def _pass_dtype(op: Op) -> tuple[str, ...]:
    return str(op.pass_), op.dtype


def _anything(op: Op) -> tuple[str, ...]:
    return ()


def _known(op: Op, learned: dict) -> tuple[str, ...]:
    """The key of what was learned that is nearest to an op."""
    levels = (_kind_pass_dtype(op), _pass_dtype(op), ())
    return next(level for level in levels if level in learned)


def _rows_by(keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], list[int]]:
    rows: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(keys):
        rows.setdefault(key, []).append(i)
    return rows
