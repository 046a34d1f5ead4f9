"""One model judged on ops: what was measured, what it and every baseline foresaw, and the figures over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd

from costmodels.accuracy import accuracy
from costmodels.baselines import Baseline, baselines_of
from costmodels.measured import Measured
from costmodels.model import CostModel
from costmodels.training_ops import TrainingOps
from costmodels.unseen_bounds import unseen_bounds
from profiler.ops import Pass

#: What is predicted, and the unit in which the model's table has it.
TARGETS: dict[str, str] = {"latency": "us", "energy": "uj", "memory": "bytes"}
#: The fitted model's column beside the baselines'.
FITTED = "fitted"
#: Columns of points before those of the baselines.
POINT_COLUMNS = (
    *("op", "op_key", "geometry", "kind", "pass", "dtype", "macs", "extrapolates"),
    *("measured", FITTED, "low", "high"),
)

#: By target: a row an op with :data:`POINT_COLUMNS` and a column a baseline, all in the target's unit. ``low`` and
#: ``high`` are NaN where the model claims no bounds.
Points: TypeAlias = dict[str, pd.DataFrame]


def judge(model: CostModel, training: TrainingOps, judged: Measured) -> Points:
    """What a model and the baselines foresee of ops that they never saw.

    Args:
        model: Fitted to ``training``.
        training: What the baselines learn from.
        judged: Measured ops.
    """
    predicted = model.predict(judged.ops)
    common = pd.DataFrame(
        {
            "op": judged.ops,
            "op_key": [op.key for op in judged.ops],
            "geometry": judged.geometries,
            "kind": [op.kind for op in judged.ops],
            "pass": [str(op.pass_) for op in judged.ops],
            "dtype": [op.dtype for op in judged.ops],
            "macs": [op.macs for op in judged.ops],
            "extrapolates": predicted["extrapolates"].to_numpy(dtype=bool),
        }
    )
    points = {}
    for target, unit in TARGETS.items():
        measured, foreseen = _measured(judged, target), predicted[f"{target}_{unit}"].to_numpy(dtype=np.float64)
        known = (measured > 0) & np.isfinite(foreseen)
        table = common[known].reset_index(drop=True)
        table["measured"], table[FITTED] = measured[known], foreseen[known]
        names = [f"{target}_{bound}_{unit}" for bound in ("low", "high")]
        table["low"], table["high"] = np.nan, np.nan
        if target in model.targets:
            bounds = predicted[names].to_numpy(dtype=np.float64)
            calibrated = model.card_.get("calibrated_geometries", ())
            table[["low", "high"]] = unseen_bounds(model.targets[target], calibrated, judged, measured, bounds)[known]
        judged_ops = [op for op, keep in zip(judged.ops, known, strict=True) if keep]
        for name, baseline in fitted_baselines(model, training, target).items():
            table[name] = baseline.predict(judged_ops) if baseline and judged_ops else np.nan
        points[target] = table
    return points


#: Fitted baselines by what they learned from and of which target: ops and whole steps are judged beside the same ones.
_baselines: WeakKeyDictionary[TrainingOps, dict[str, dict[str, Baseline | None]]] = WeakKeyDictionary()


def fitted_baselines(model: CostModel, training: TrainingOps, target: str) -> dict[str, Baseline | None]:
    """A target's baselines by name, fitted to the ops that the model was fitted to; None where it was not measured."""
    known = _baselines.setdefault(training, {})
    if target not in known:
        ops, costs = training.costs(target)
        found = baselines_of(target, model.latencies_us)
        known[target] = {b.name: b.fit(ops, costs) if len(ops) else None for b in found}
    return known[target]


def _measured(judged: Measured, target: str) -> np.ndarray:
    return {"latency": judged.latency_us, "energy": judged.energy_uj, "memory": judged.memory_bytes}[target]


def joined(parts: Sequence[Points]) -> Points:
    """The points of several judgements as those of one."""
    return {target: pd.concat([part[target] for part in parts], ignore_index=True) for target in TARGETS}


def only(points: Points, keys: Iterable[str]) -> Points:
    """The points of the ops with these keys."""
    wanted = set(keys)
    return {target: table[table["op_key"].isin(wanted)] for target, table in points.items()}


def baseline_names(points: Points) -> tuple[str, ...]:
    """The baselines of all targets, in order."""
    columns = (name for table in points.values() for name in table.columns if name not in POINT_COLUMNS)
    return tuple(dict.fromkeys(columns))


def figures(table: pd.DataFrame, target: str, predictor: str = FITTED) -> dict[str, float]:
    """:func:`~costmodels.accuracy.accuracy` of one predictor; n is 0 where it does not predict this target.

    Of memory also ``under_predicted_percent``, the share of ops that take more than was foreseen, and ``max_percent``,
    the largest relative error.
    """
    rows = table[table[predictor].notna()] if predictor in table else table.iloc[:0]
    measured, predicted = rows["measured"].to_numpy(), rows[predictor].to_numpy() if len(rows) else np.empty(0)
    bounds = ()
    if predictor == FITTED and len(rows) and rows["low"].notna().all():
        bounds = (rows["low"].to_numpy(), rows["high"].to_numpy())
    found = accuracy(measured, predicted, *bounds)
    if target == "memory":
        known = len(rows) > 0
        found["under_predicted_percent"] = float(100 * np.mean(predicted < measured)) if known else float("nan")
        found["max_percent"] = float(100 * np.abs(predicted / measured - 1).max()) if known else float("nan")
    return found


def by_target(points: Points, predictor: str = FITTED) -> dict[str, dict[str, float]]:
    """:func:`figures` of every target."""
    return {target: figures(table, target, predictor) for target, table in points.items()}


def groups(points: Points) -> Iterator[tuple[dict[str, str], Points]]:
    """The points of each kind, pass and dtype: what they are, and they."""
    names = ["kind", "pass", "dtype"]
    order = [str(p) for p in Pass]
    parts = {target: dict(list(table.groupby(names))) for target, table in points.items()}
    found = {key for part in parts.values() for key in part}
    for key in sorted(found, key=lambda key: (key[0], order.index(key[1]), key[2])):
        rows = {target: parts[target].get(key, table.iloc[:0]) for target, table in points.items()}
        yield dict(zip(names, key, strict=True)), rows


def summary(points: Points) -> dict:
    """JSON-ready: ``overall``, ``by_op``, ``extrapolated`` (those ops alone that the model says it extrapolates to) and
    ``baselines``, which have ``overall`` and ``by_op`` each, and the targets of ``overall`` beside them.
    """
    grouped = list(groups(points))
    extrapolated = {target: table[table["extrapolates"]] for target, table in points.items()}

    def both(predictor: str) -> dict:
        return {
            "overall": by_target(points, predictor),
            "by_op": [what | by_target(rows, predictor) for what, rows in grouped],
        }

    return {
        **both(FITTED),
        "extrapolated": by_target(extrapolated),
        "baselines": {name: by_target(points, name) | both(name) for name in baseline_names(points)},
    }
