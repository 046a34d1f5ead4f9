"""Whole training steps: what the device took beside what was foreseen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from costmodels.analytical import AnalyticalCosts
from costmodels.baselines import Baseline, baselines_of
from costmodels.evaluate_points import FITTED, by_target
from costmodels.model import CostModel
from costmodels.target import NORMAL_90
from profiler.errors import UserError
from profiler.ops import Op
from profiler.store import load_steps, read_manifest
from profiler.store_tables import own_trials
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import StepPlan

#: What of a step is judged, and the unit.
STEP_TARGETS: dict[str, str] = {"latency": "ms", "energy": "mj", "memory": "bytes"}
#: The sum over the step's ops as the model foresees each alone: what the context of a step adds is missing.
SUM_OF_OPS = "sum of its ops"
#: TinyTrain's memory, or MCUNetV3's of int8 steps (:mod:`costmodels.analytical`).
FORMULA = "published formula"


def judge_steps(model: CostModel, runs: Sequence[Path]) -> pd.DataFrame:
    """A row a measured step: ``run, plan, network, images``, and of each target ``TARGET_measured``, ``TARGET_fitted``,
    ``TARGET_low``, ``TARGET_high`` and a column ``TARGET_NAME`` a baseline, in milliseconds, millijoules and bytes.

    A step whose network cannot be made here is left out with a warning.

    Raises:
        UserError: a run holds no step, or is of another device, timer or firmware build than the model.
    """
    baselines = {
        target: [baseline.fit(ops, costs) for baseline in baselines_of(target, model.latencies_us)]
        for target in ("latency", "energy")
        for ops, costs in [model.training.costs(target)]
        if len(ops)
    }
    rows = []
    for run in runs:
        manifest = read_manifest(run)
        _check(model, run, manifest)
        trials = (trial for trial in own_trials(run, manifest, []) if trial["type"] == "step")
        for measured, trial in zip(load_steps(run).to_dict("records"), trials, strict=True):
            if measured["status"] != "ok":
                continue
            row = _row(model, run, measured, trial)
            if row is not None:
                rows.append(row | _sums(model, baselines, trial))
    return pd.DataFrame.from_records(rows)


def step_summary(table: pd.DataFrame) -> dict | None:
    """JSON-ready figures of :func:`judge_steps`' table: by target, ``by_network`` and ``baselines``; None: no step."""
    if table.empty:
        return None
    names = dict.fromkeys(
        column.removeprefix(f"{target}_")
        for target in STEP_TARGETS
        for column in table
        if column.startswith(f"{target}_")
    )
    baselines = [name for name in names if name not in ("measured", FITTED, "low", "high")]
    return {
        "n": len(table),
        **by_target(step_points(table)),
        "by_network": [
            {"network": network, "n": len(rows), **by_target(step_points(rows))}
            for network, rows in table.groupby("network", sort=False)
        ],
        "baselines": {name: by_target(step_points(table), name) for name in baselines},
    }


def step_points(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By target: the rows where it was measured and foreseen, with columns as points of ops have them."""
    points = {}
    for target in STEP_TARGETS:
        prefix = f"{target}_"
        names = {name: name.removeprefix(prefix) for name in table if name.startswith(prefix)}
        own = table[["run", "plan", "network", "images", *names]].rename(columns=names)
        points[target] = own[(own["measured"] > 0) & own[FITTED].notna()].reset_index(drop=True)
    return points


def _row(model: CostModel, run: Path, measured: dict, trial: dict) -> dict | None:
    plan = StepPlan.from_json(trial["step_plan"], f"the plan {trial['plan']} of {run}")
    try:
        network = _network(plan.network, plan.input_shape)
        cost = model.step(network, plan)
    except UserError as error:
        warnings.warn(f"the step {trial['plan']} of {run} is left out: {error.args[0]}", stacklevel=3)
        return None
    row = {"run": str(run), "plan": trial["plan"], "network": plan.network, "images": plan.images}
    for target, unit in STEP_TARGETS.items():
        value = getattr(cost, f"{target}_{unit}")
        row[f"{target}_measured"] = float(measured[{"memory": "memory_peak_bytes"}.get(target, f"{target}_{unit}")])
        row[f"{target}_{FITTED}"] = np.nan if value is None else float(value)
        row |= {f"{target}_low": np.nan, f"{target}_high": np.nan}
    reach = NORMAL_90 * cost.latency_std_ms
    row |= {"latency_low": cost.latency_ms - reach, "latency_high": cost.latency_ms + reach}
    row[f"memory_{FORMULA}"] = float(AnalyticalCosts().step(network, plan).memory_bytes)
    return row


def _sums(model: CostModel, baselines: dict[str, list[Baseline]], trial: dict) -> dict[str, float]:
    """What the baselines foresee of a step: sums over its ops, in milliseconds and millijoules."""
    ops = [Op.from_dict(entry["op"]) for entry in trial["timed"]]
    counts = np.array([entry["count"] for entry in trial["timed"]], dtype=np.float64)
    sums = {f"latency_{SUM_OF_OPS}": float(model.latencies_us(ops) @ counts) / 1e3}
    for target, fitted in baselines.items():
        sums |= {f"{target}_{b.name}": float(b.predict(ops) @ counts) / 1e3 for b in fitted}
    return sums


@cache
def _network(spec: str, input_shape: tuple[int, int, int]) -> Network:
    return load_network(spec, input_shape)[1]


def _check(model: CostModel, run: Path, manifest: dict) -> None:
    identity = manifest["identity"]
    for name, ours, theirs in (
        ("device", model.card_["device"], manifest["device"]),
        ("timer", model.card_["timer"], manifest["labels"]["timer"]),
        ("firmware build", model.card_["build_hash"], identity.get("build_hash")),
    ):
        if ours != theirs:
            raise UserError(
                f"the model was fitted to {name} {ours!r}, the steps of {run} were measured with {theirs!r}",
                hint="fit a model to runs of that device with `costmodels fit RUN --out MODEL`",
            )
