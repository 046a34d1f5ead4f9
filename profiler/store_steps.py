"""The training steps of a run as tidy tables: one row a step, one row an op of a step.

Every figure carries its unit in the column's name. The harness's own cost (the run's ``empty`` trials) is subtracted
from latencies and stands beside them as ``overhead_ticks``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiler.errors import UserError
from profiler.measure.observed import trial_disturbances
from profiler.measure.statistics import mad, median, quiet
from profiler.measure.trials import step_repetitions, step_ticks
from profiler.store import read_manifest
from profiler.store_energy import ENERGY_COLUMNS, energy_columns
from profiler.store_merged import Overhead
from profiler.store_tables import OP_COLUMNS, device_columns, op_columns, own_trials

#: What a plan's notes foresee and bound: numbers or null in its trial.
_FORESEEN = (
    *("predicted_latency_ms", "predicted_energy_mj", "predicted_memory_bytes", "predicted_program_bytes"),
    *("budget_latency_ms", "budget_energy_mj", "budget_memory_bytes"),
)
#: Of :func:`load_steps`.
STEP_COLUMNS: tuple[str, ...] = (
    "run",
    "device",
    "board",
    "timer",
    "timer_hz",
    "plan",
    "network",
    "fingerprint",
    "images",
    "optimizer",
    "trained_layers",
    "entries",
    "status",
    "reason",
    "repetitions",
    "ticks",
    "ticks_mad",
    "overhead_ticks",
    "latency_ms",
    "latency_mad_ms",
    "latency_quiet_ms",
    "arena_peak_bytes",
    "scratch_peak_bytes",
    "stack_peak_bytes",
    "memory_peak_bytes",
    "program_bytes",
    "energy_mj",
    *(name.replace("_uj", "_mj") for name in ENERGY_COLUMNS),
    "relative_error",
    "disturbed_by",
    "predicted_by",
    *_FORESEEN,
)
#: Of :func:`load_step_ops`.
STEP_OP_COLUMNS: tuple[str, ...] = (
    *("run", "device", "board", "timer", "timer_hz", "plan", "layer", "count"),
    *OP_COLUMNS,
    *("ticks", "overhead_ticks", "latency_us", "latency_quiet_us"),
)


def load_steps(path: Path | str) -> pd.DataFrame:
    """One row a training step that was run as a program.

    Args:
        path: Folder of a run made by ``profile step``.

    Returns:
        Columns :data:`STEP_COLUMNS`. Figures of a step that was not timed are NaN, and so is what its plan's notes do
        not foresee (``predicted_...``) or bound (``budget_...``). ``memory_peak_bytes`` is what arena and stack were
        seen to take, ``program_bytes`` what the program took beside the arena in the same memory (NaN in runs of
        before it was noted), a budget of bytes is for both together. ``ticks`` is the median over repetitions of the
        sum over all timed ops, images included; ``overhead_ticks`` the harness's share of it. ``latency_quiet_ms`` is
        the sum of each op's least disturbed repetitions (:func:`profiler.measure.statistics.quiet`). ``disturbed_by``
        says in words what the device told of heat, throttling or another frequency.

    Raises:
        UserError: no run there, or one without a step.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    common = device_columns(folder, manifest)
    harness = _harness(folder, manifest)
    overhead = harness.ticks("warm")
    rows = []
    for trial in _steps(folder, manifest):
        row = common | {
            name: trial[name]
            for name in ("plan", "network", "fingerprint", "images", "optimizer", "trained_layers", "status")
        }
        row["reason"] = trial.get("reason", "")
        row["entries"] = len(trial["timed"])
        row["energy_mj"] = np.nan
        row["program_bytes"] = trial.get("program_bytes", np.nan)
        error = trial.get("relative_error")
        row["relative_error"] = np.nan if error is None else error
        for name in _FORESEEN:
            value = trial.get(name)
            row[name] = np.nan if value is None else float(value)
        row["disturbed_by"] = ", ".join(trial_disturbances(trial))
        row["predicted_by"] = trial.get("predicted_by") or ""
        sums = step_ticks(trial)
        if sums and trial["status"] == "stopped":  # its whole repetitions count; the reason stays
            row["status"] = "ok"
        row["repetitions"] = len(sums)
        if sums:
            row["overhead_ticks"] = overhead * sum(entry["count"] for entry in trial["timed"])
            row["ticks"], row["ticks_mad"] = median(sums), mad(sums)
            row["latency_ms"] = max(row["ticks"] - row["overhead_ticks"], 0.0) * 1e3 / row["timer_hz"]
            row["latency_mad_ms"] = row["ticks_mad"] * 1e3 / row["timer_hz"]
            step = harness.clock.step_ticks
            undisturbed = sum(quiet(readings, step)[0] for readings in zip(*step_repetitions(trial), strict=True))
            row["latency_quiet_ms"] = max(undisturbed - row["overhead_ticks"], 0.0) * 1e3 / row["timer_hz"]
            for name in ("arena_peak_bytes", "scratch_peak_bytes", "stack_peak_bytes"):
                row[name] = trial[name]
            row["memory_peak_bytes"] = trial["arena_peak_bytes"] + trial["stack_peak_bytes"]
            overhead_s = row["overhead_ticks"] / row["timer_hz"]
            for name, value in energy_columns(trial, harness.harness, "warm", overhead_s).items():
                in_mj = name.endswith("_uj")
                row[name.replace("_uj", "_mj") if in_mj else name] = value / 1e3 if in_mj else value
        rows.append(row)
    return pd.DataFrame.from_records(rows, columns=list(STEP_COLUMNS))


def _harness(folder: Path, manifest: dict[str, Any]) -> Overhead:
    """What the harness takes to time one op and between two, and the timer's steps, from a first pass over the run."""
    overhead = Overhead()
    for trial in own_trials(folder, manifest, []):
        overhead.add(trial)
    return overhead


def _steps(folder: Path, manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Trials of steps, one at a time."""
    found = False
    for trial in own_trials(folder, manifest):
        if trial["type"] == "step":
            found = True
            yield trial
    if not found:
        raise UserError(f"the run {folder} holds no training step", hint="measure one with `profile step --plan PLAN`")


def load_step_ops(path: Path | str) -> pd.DataFrame:
    """One row a timed op of every step of a run: columns :data:`STEP_OP_COLUMNS`. ``ticks, overhead_ticks, latency_us,
    latency_quiet_us`` are sums over the images of the step (``count`` runs), NaN where the step was not timed.

    Raises:
        UserError: no run there, or one without a step.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    common = device_columns(folder, manifest)
    harness = _harness(folder, manifest)
    overhead = harness.ticks("warm")
    rows: list[dict[str, Any]] = []
    for trial in _steps(folder, manifest):
        repetitions = step_repetitions(trial)
        for index, entry in enumerate(trial["timed"]):
            row = common | {"plan": trial["plan"], "layer": entry["layer"], "count": entry["count"]}
            row |= op_columns(entry)
            if repetitions:
                readings = [r[index] for r in repetitions]
                row["ticks"] = median(readings)
                row["overhead_ticks"] = overhead * entry["count"]
                undisturbed = quiet(readings, harness.clock.step_ticks)[0]
                for name, ticks in (("latency_us", row["ticks"]), ("latency_quiet_us", undisturbed)):
                    row[name] = max(ticks - row["overhead_ticks"], 0.0) * 1e6 / row["timer_hz"]
            rows.append(row)
    return pd.DataFrame.from_records(rows, columns=list(STEP_OP_COLUMNS))
