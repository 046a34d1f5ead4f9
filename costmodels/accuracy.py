"""Accuracy figures, and the baselines that a fitted model stands beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from costmodels.estimators import NonNegativeTerms
from costmodels.features import PLAIN_TERMS, plain_terms
from profiler.ops import Op


def accuracy(measured: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Figures over ops, all of relative error ``predicted / measured - 1``.

    Returns:
        ``n``, ``mape_percent`` (mean absolute), ``within_5_percent`` and ``within_10_percent`` (share of ops, in
        percent), ``p95_percent`` (95th percentile of the absolute error), ``bias_percent`` (mean).
    """
    if len(measured) == 0:
        nan = float("nan")
        return {"n": 0} | dict.fromkeys(
            ("mape_percent", "within_5_percent", "within_10_percent", "p95_percent", "bias_percent"), nan
        )
    error = 100 * (np.asarray(predicted) / np.asarray(measured) - 1)
    size = np.abs(error)
    return {
        "n": len(error),
        "mape_percent": float(size.mean()),
        "within_5_percent": float(100 * np.mean(size <= 5)),
        "within_10_percent": float(100 * np.mean(size <= 10)),
        "p95_percent": float(np.quantile(size, 0.95)),
        "bias_percent": float(error.mean()),
    }


def best_scalar(amount: np.ndarray, cost: np.ndarray) -> float:
    """The ``c`` with the least mean of ``|c · amount / cost - 1|``: a weighted median of ``cost / amount``.

    No other scalar does better by the figure that the baseline is judged by.
    """
    ratio = cost / amount
    order = np.argsort(ratio)
    weight = np.cumsum((1 / ratio)[order])
    return float(ratio[order][np.searchsorted(weight, weight[-1] / 2)])


class ScalarBaseline:
    """``c × MACs``: one scalar a device over all ops with MACs.

    Ops without MACs (elementwise kinds, pooling, updates, bias-only gradients) would cost nothing by it, an error of
    100 %; they are charged a second scalar times the words they read and write instead, which favours the baseline.
    """

    name = "c × MACs"

    def fit(self, ops: Sequence[Op], latency_us: np.ndarray) -> ScalarBaseline:
        macs, words = _amounts(ops)
        has = macs > 0
        self.us_per_mac_ = best_scalar(macs[has], latency_us[has]) if has.any() else float("nan")
        self.us_per_word_ = best_scalar(words[~has], latency_us[~has]) if (~has).any() else float("nan")
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        macs, words = _amounts(ops)
        return np.where(macs > 0, self.us_per_mac_ * macs, self.us_per_word_ * words)


class LinearBaseline:
    """``a + b × MACs`` with a and b of each kind, pass and dtype, not negative, of least relative error.

    Words moved stand in for MACs where there are none; a kind and pass that was never measured takes the line of its
    pass and dtype.
    """

    name = "linear in MACs"

    def fit(self, ops: Sequence[Op], latency_us: np.ndarray) -> LinearBaseline:
        self.lines_: dict[tuple[str, ...], NonNegativeTerms] = {}
        X = self._terms(ops)
        for keys in ([self._key(op) for op in ops], [self._key(op)[1:] for op in ops], [() for _ in ops]):
            for key in set(keys):
                rows = [i for i, k in enumerate(keys) if k == key]
                self.lines_[key] = NonNegativeTerms().fit(X[rows], latency_us[rows])
        return self

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        X = self._terms(ops)
        lines = [self.lines_.get(self._key(op)) or self.lines_.get(self._key(op)[1:]) or self.lines_[()] for op in ops]
        return np.array([float(line.predict(row[None])[0]) for line, row in zip(lines, X, strict=True)])

    @staticmethod
    def _key(op: Op) -> tuple[str, str, str]:
        return op.kind, str(op.pass_), op.dtype

    @staticmethod
    def _terms(ops: Sequence[Op]) -> np.ndarray:
        macs, words = _amounts(ops)
        return np.column_stack([np.ones(len(ops)), np.where(macs > 0, macs, words)])


def _amounts(ops: Sequence[Op]) -> tuple[np.ndarray, np.ndarray]:
    plain = plain_terms(ops)
    names = list(PLAIN_TERMS)
    return plain[:, names.index("macs")], plain[:, names.index("words_read")] + plain[:, names.index("words_written")]
