"""How well a model predicts ops and whole steps that it never saw, beside the baselines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from costmodels.accuracy import LinearBaseline, ScalarBaseline, accuracy
from costmodels.measured import Measured
from costmodels.model import CostModel
from profiler.errors import UserError

#: Columns of :attr:`Evaluation.by_op` and of the overall rows that people see.
FIGURES = ("n", "mape_percent", "within_5_percent", "within_10_percent", "p95_percent", "bias_percent")


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a model on one run.

    Attributes:
        device, timer: Of run and model.
        judged_on: ``held-out ops``, or ``all ops`` where the run marks none as held out.
        overall: Figures by predictor (``fitted``, ``c × MACs``, ``linear in MACs``) over all judged ops, and over
            those with MACs.
        by_op: Records with ``kind, pass``, the fitted model's figures and coverage, and each baseline's MAPE.
        memory: Figures of predicted against measured arena and stack.
        points: A row an op: ``op_key, kind, pass, macs, measured_us``, and a column of predictions a predictor.
    """

    device: str
    timer: str
    judged_on: str
    overall: dict[str, dict[str, dict[str, float]]]
    by_op: list[dict[str, object]]
    memory: dict[str, float]
    points: pd.DataFrame

    def to_dict(self) -> dict:
        """JSON-ready: everything but the points."""
        return {
            "device": self.device,
            "timer": self.timer,
            "judged_on": self.judged_on,
            "overall": {"latency": self.overall["all ops"]["fitted"], "energy": None, "memory": self.memory},
            "overall_ops_with_macs": {"latency": self.overall["ops with MACs"]["fitted"]},
            "by_op": [
                {"kind": row["kind"], "pass": row["pass"], "latency": {name: row[name] for name in _LATENCY_FIGURES}}
                for row in self.by_op
            ],
            "baselines": {
                name: {"latency": figures, "latency_ops_with_macs": self.overall["ops with MACs"][name]}
                for name, figures in self.overall["all ops"].items()
                if name != "fitted"
            },
        }


_LATENCY_FIGURES = (*FIGURES, "coverage_90_percent")


def evaluate(model: CostModel, measured: Measured) -> Evaluation:
    """Judge ``model`` on ``measured``.

    Held-out ops are judged and the baselines learn from the others. A run without held-out ops is judged whole: it
    must then not be one that the model was fitted on, and the baselines learn from the run itself, which favours them.

    Raises:
        UserError: the run is of another device, timer or firmware build than the model.
    """
    check_same_device(model, measured)
    held_out = measured.frame["held_out"].to_numpy()
    judged = measured.subset(held_out) if held_out.any() else measured
    training = measured.subset(~held_out) if held_out.any() and not held_out.all() else measured
    truth = judged.latency_us
    predicted = model.predict(judged.ops)
    columns = {"fitted": predicted["latency_us"].to_numpy()}
    for baseline in (ScalarBaseline(), LinearBaseline()):
        columns[baseline.name] = baseline.fit(training.ops, training.latency_us).predict(judged.ops)
    points = pd.DataFrame(
        {
            "op_key": [op.key for op in judged.ops],
            "kind": [op.kind for op in judged.ops],
            "pass": [str(op.pass_) for op in judged.ops],
            "macs": [op.macs for op in judged.ops],
            "measured_us": truth,
            "std_us": predicted["latency_std_us"],
            "extrapolates": predicted["extrapolates"],
            **columns,
        }
    )
    with_macs = points[points["macs"] > 0]
    overall = {
        name: {c: accuracy(rows["measured_us"].to_numpy(), rows[c].to_numpy()) for c in columns}
        for name, rows in (("all ops", points), ("ops with MACs", with_macs))
    }
    overall["all ops"]["fitted"]["coverage_90_percent"] = _coverage(points)
    by_op = []
    for (kind, pass_), rows in points.groupby(["kind", "pass"], sort=True):
        measured_us = rows["measured_us"].to_numpy()
        record = {"kind": kind, "pass": pass_, **accuracy(measured_us, rows["fitted"].to_numpy())}
        record["coverage_90_percent"] = _coverage(rows)
        for name in columns:
            if name != "fitted":
                record[f"{name} mape_percent"] = accuracy(measured_us, rows[name].to_numpy())["mape_percent"]
        by_op.append(record)
    memory = accuracy(*_memory(judged, predicted))
    judged_on = "held-out ops" if held_out.any() else "all ops"
    return Evaluation(measured.device, measured.timer, judged_on, overall, by_op, memory, points)


def check_same_device(model: CostModel, measured: Measured) -> None:
    """Raise UserError unless the run is of the model's device, timer and firmware build."""
    identity = measured.identity
    for name, ours, theirs in (
        ("device", model.card_["device"], measured.device),
        ("timer", model.card_["timer"], measured.timer),
        ("firmware build", model.card_["build_hash"], identity.get("build_hash", model.card_["build_hash"])),
    ):
        if ours != theirs:
            raise UserError(
                f"the model was fitted to {name} {ours!r}, the run was measured with {theirs!r}",
                hint="fit a model to this run with `costmodels fit RUN --out MODEL`",
            )


def _coverage(rows: pd.DataFrame) -> float:
    """Share of ops, in percent, inside ± 1.645 predicted standard deviations; a reading's last digit is forgiven."""
    slack = 1e-6 * rows["measured_us"]
    return float(100 * np.mean(np.abs(rows["fitted"] - rows["measured_us"]) <= 1.645 * rows["std_us"] + slack))


def _memory(judged: Measured, predicted: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    if "memory_peak_bytes" not in judged.frame:
        return np.empty(0), np.empty(0)
    truth = judged.frame["memory_peak_bytes"].to_numpy(dtype=float)
    known = truth > 0
    return truth[known], predicted["memory_bytes"].to_numpy(dtype=float)[known]
