"""How well a model predicts ops and whole steps that it never saw, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from costmodels.accuracy import LinearBaseline, ScalarBaseline, accuracy
from costmodels.measured import Measured
from costmodels.model import CostModel
from profiler.errors import UserError

#: Columns of :attr:`Evaluation.by_op` and of the overall rows that people see.
FIGURES = ("n", "mape_percent", "within_5_percent", "within_10_percent", "p95_percent", "bias_percent")


#: Names of what predicts, as columns of :attr:`Evaluation.points`.
PREDICTORS = ("fitted", ScalarBaseline.name, LinearBaseline.name)
#: What was judged where the fit saw every op.
LEFT_OUT = "ops left out in turn"
#: Into how many parts the geometries are split where none was held out.
FOLDS = 5


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a model on one run.

    Attributes:
        device, timer: Of run and model.
        judged_on: Which ops were judged: ``held-out ops``, ``unseen ops`` or ``ops left out in turn``.
        overall: Figures by predictor (``fitted``, ``c × MACs``, ``linear in MACs``) over all judged ops, and over
            those with MACs.
        by_op: Records with ``kind, pass, dtype``, the fitted model's figures and coverage, and each baseline's MAPE.
        memory: Figures of predicted against measured arena and stack.
        points: A row an op: ``op_key, kind, pass, dtype, macs, measured_us``, and a column of predictions a predictor.
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
                {name: row[name] for name in ("kind", "pass", "dtype")}
                | {"latency": {name: row[name] for name in _LATENCY_FIGURES}}
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
    """Judge ``model`` on ops of ``measured`` whose geometry the fit never saw.

    Where the fit saw every one, the figures are those of models fitted like this one with a fifth of the geometries
    left out at a time: nothing else would be honest. The baselines learn from the same ops as what they stand beside,
    or, on another run than the model's, from that run itself, which favours them.

    Raises:
        UserError: the run is of another device, timer or firmware build than the model.
    """
    check_same_device(model, measured)
    judged_on, splits = _splits(model, measured)
    parts = [_judge(*split) for split in splits]
    points = pd.concat([part[0] for part in parts], ignore_index=True)
    truth_bytes, predicted_bytes = (np.concatenate(arrays) for arrays in zip(*(part[1] for part in parts), strict=True))
    columns = [name for name in points if name in PREDICTORS]
    with_macs = points[points["macs"] > 0]
    overall = {
        name: {c: accuracy(rows["measured_us"].to_numpy(), rows[c].to_numpy()) for c in columns}
        for name, rows in (("all ops", points), ("ops with MACs", with_macs))
    }
    overall["all ops"]["fitted"]["coverage_90_percent"] = _coverage(points)
    by_op = []
    for (kind, pass_, dtype), rows in points.groupby(["kind", "pass", "dtype"], sort=True):
        measured_us = rows["measured_us"].to_numpy()
        record = {"kind": kind, "pass": pass_, "dtype": dtype, **accuracy(measured_us, rows["fitted"].to_numpy())}
        record["coverage_90_percent"] = _coverage(rows)
        for name in columns:
            if name != "fitted":
                record[f"{name} mape_percent"] = accuracy(measured_us, rows[name].to_numpy())["mape_percent"]
        by_op.append(record)
    memory = accuracy(truth_bytes, predicted_bytes)
    return Evaluation(measured.device, measured.timer, judged_on, overall, by_op, memory, points)


def _splits(model: CostModel, measured: Measured) -> tuple[str, Iterator[tuple[CostModel, Measured, Measured]]]:
    """What to judge: its name, and (model, ops for the baselines to learn from, ops to judge) one or several times."""
    fitted = set(model.card_["fitted_geometries"])
    unseen = np.array([geometry not in fitted for geometry in measured.geometries])
    if not unseen.any():
        return LEFT_OUT, _folds(model, measured)
    held_out = bool(measured.frame["held_out"].to_numpy()[unseen].all())
    training = measured.subset(~unseen) if not unseen.all() else measured
    return "held-out ops" if held_out else "unseen ops", iter([(model, training, measured.subset(unseen))])


def _folds(model: CostModel, measured: Measured) -> Iterator[tuple[CostModel, Measured, Measured]]:
    """A fifth of the geometries of each kind left out at a time; a kind of one geometry is never left out."""
    fold_of: dict[str, int] = {}
    of_kind: dict[str, list[str]] = {}
    for op, geometry in zip(measured.ops, measured.geometries, strict=True):
        if geometry not in of_kind.setdefault(op.kind, []):
            of_kind[op.kind].append(geometry)
    for geometries in of_kind.values():
        if len(geometries) > 1:
            fold_of |= {geometry: i % FOLDS for i, geometry in enumerate(geometries)}
    folds = np.array([fold_of.get(geometry, -1) for geometry in measured.geometries])
    if (folds < 0).all():
        raise UserError(
            "the fit saw every op of this run, and no kind has a second geometry to leave out",
            hint="profile a network with more layers, or judge the model on another run",
        )
    for fold in np.unique(folds[folds >= 0]):
        training = measured.subset(folds != fold)
        yield (
            CostModel(work=model.work, scratch_bytes=model.scratch_bytes).fit_measured(training),
            training,
            measured.subset(folds == fold),
        )


def _judge(
    model: CostModel, training: Measured, judged: Measured
) -> tuple[pd.DataFrame, tuple[np.ndarray, np.ndarray]]:
    """A row an op with every predictor's answer, and (measured, predicted) bytes of peak memory."""
    predicted = model.predict(judged.ops)
    columns = {"fitted": predicted["latency_us"].to_numpy()}
    for baseline in (ScalarBaseline(), LinearBaseline()):
        columns[baseline.name] = baseline.fit(training.ops, training.latency_us).predict(judged.ops)
    points = pd.DataFrame(
        {
            "op_key": [op.key for op in judged.ops],
            "kind": [op.kind for op in judged.ops],
            "pass": [str(op.pass_) for op in judged.ops],
            "dtype": [op.dtype for op in judged.ops],
            "macs": [op.macs for op in judged.ops],
            "measured_us": judged.latency_us,
            "std_us": predicted["latency_std_us"],
            "extrapolates": predicted["extrapolates"],
            **columns,
        }
    )
    return points, _memory(judged, predicted)


def check_same_device(model: CostModel, measured: Measured) -> None:
    """Raise UserError unless the run is of the model's device, timer and firmware build."""
    identity = measured.identity
    for name, ours, theirs in (
        ("device", model.card_["device"], measured.device),
        ("timer", model.card_["timer"], measured.timer),
        ("caches", model.caches, measured.caches),
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
