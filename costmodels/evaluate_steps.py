"""Whole training steps: what the device took beside what was foreseen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from costmodels.analytical import AnalyticalCosts
from costmodels.baselines import Baseline
from costmodels.evaluate_points import FITTED, by_target, fitted_baselines
from costmodels.measured_steps import MeasuredStep, check_same_device, read_steps
from costmodels.model import CostModel
from profiler.errors import UserError
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network

#: What of a step is judged, and the unit.
STEP_TARGETS: dict[str, str] = {"latency": "ms", "energy": "mj", "memory": "bytes"}
#: The sum over the step's ops as the model foresees each alone: what the context of a step adds is missing.
SUM_OF_OPS = "sum of its ops"
#: TinyTrain's memory, or MCUNetV3's of int8 steps (:mod:`costmodels.analytical`).
FORMULA = "published formula"


def judge_steps(model: CostModel, runs: Sequence[Path]) -> pd.DataFrame:
    """A row a measured step: ``run, plan, network, images``, and of each target ``TARGET_measured``, ``TARGET_fitted``,
    ``TARGET_low``, ``TARGET_high`` and a column ``TARGET_NAME`` a baseline, in milliseconds, millijoules and bytes.

    Steps that the model was fitted to are left out, and so, with a warning, is one whose network cannot be made here.

    Raises:
        UserError: a run holds no step, or is of another device, timer or firmware build than the model.
    """
    check_same_device(runs, model.card_["identity"])
    baselines = {
        target: [b for b in fitted_baselines(model, model.training, target).values() if b is not None]
        for target in ("latency", "energy")
    }
    fitted = set(model.card_.get("fitted_steps", ()))
    rows = []
    seen = 0
    for run in runs:
        for step in read_steps([run]):
            if step.key in fitted:
                seen += 1
            elif (row := _row(model, run, step)) is not None:
                rows.append(row | _sums(model, baselines, step))
    if seen:
        warnings.warn(
            f"{seen} of the measured steps are left out: the model was fitted to them (`costmodels fit` said how well "
            "each was foretold by a fit to the others)",
            stacklevel=2,
        )
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


def _row(model: CostModel, run: Path, step: MeasuredStep) -> dict | None:
    plan = step.plan
    try:
        network = _network(plan.network, plan.input_shape, plan.edits)
        cost = model.step(network, plan)
    except UserError as error:
        warnings.warn(f"the step {step.name} of {run} is left out: {error.args[0]}", stacklevel=3)
        return None
    nothing = (np.nan, np.nan)
    figures = {
        "latency": (step.latency_us.sum() / 1e3, cost.latency_ms, cost.latency_interval_ms),
        "energy": (step.energy_uj / 1e3, cost.energy_mj, cost.energy_interval_mj or nothing),
        "memory": (step.memory_peak_bytes, cost.memory_bytes, nothing),
    }
    row = {"run": str(run), "plan": step.name, "network": plan.network, "images": plan.images}
    for target, (measured, foreseen, (low, high)) in figures.items():
        row[f"{target}_measured"] = float(measured)
        row[f"{target}_{FITTED}"] = np.nan if foreseen is None else float(foreseen)
        row |= {f"{target}_low": low, f"{target}_high": high}
    row[f"memory_{FORMULA}"] = float(AnalyticalCosts().step(network, plan).memory_bytes)
    return row


def _sums(model: CostModel, baselines: dict[str, list[Baseline]], step: MeasuredStep) -> dict[str, float]:
    """What the baselines foresee of a step: sums over its ops, in milliseconds and millijoules."""
    sums = {f"latency_{SUM_OF_OPS}": float(model.latencies_us(step.ops) @ step.counts) / 1e3}
    for target, fitted in baselines.items():
        sums |= {f"{target}_{b.name}": float(b.predict(step.ops) @ step.counts) / 1e3 for b in fitted}
    return sums


@cache
def _network(spec: str, input_shape: tuple[int, int, int], edits: tuple[str, ...]) -> Network:
    return load_network(spec, input_shape, edits)[1]
