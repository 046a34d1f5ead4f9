"""Training steps that were measured: what a step's context is fitted to, and judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiler import store
from profiler.devices.identity import is_linux_board
from profiler.errors import UserError
from profiler.measure.trials import step_ticks
from profiler.ops import Op
from profiler.store_steps import load_step_ops, load_steps
from profiler.store_tables import ops_of
from profiler.workloads.plan import StepPlan


@dataclass(frozen=True)
class MeasuredStep:
    """One training step that a device ran.

    Attributes:
        name: The plan's name in its run.
        plan: What it trained.
        ops: Its ops, in order.
        counts: How often each ran, shape (n_ops,).
        latency_us: Of each op, all its runs together, the harness's own cost subtracted; medians, or on a Linux host
            those of a quiet one; shape (n_ops,).
        energy_uj: Of the step; NaN where it was not measured.
        energy_source: Who measured that; empty where nobody did.
        memory_peak_bytes: Of arena and stack.
        region: Where the arena lay.
    """

    name: str
    plan: StepPlan
    ops: tuple[Op, ...]
    counts: np.ndarray
    latency_us: np.ndarray
    energy_uj: float
    energy_source: str
    memory_peak_bytes: int
    region: str

    @property
    def key(self) -> str:
        """Hash of what was run, for telling whether a model was fitted to it."""
        trained = sorted((name, p.axis, p.channels, p.bias) for name, p in self.plan.layers.items())
        plan = self.plan
        parts = (plan.fingerprint, plan.images, plan.optimizer, plan.dtype, sorted(plan.savings), plan.head, trained)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def is_step_run(run: Path | str) -> bool:
    """Whether a run on disk holds training steps rather than single ops."""
    plan = store.read_manifest(Path(run)).get("plan")
    return isinstance(plan, dict) and plan.get("kind") == "steps"


def read_steps(runs: Sequence[Path | str]) -> tuple[MeasuredStep, ...]:
    """The steps of these runs that were timed to their end, undisturbed."""
    found = []
    for run in map(Path, runs):
        table = load_steps(run).set_index("plan")
        parts = dict(tuple(load_step_ops(run).groupby("plan", sort=False)))
        for trial in store.iterate(run):
            if trial["type"] != "step" or not step_ticks(trial):
                continue
            row = table.loc[trial["plan"]]
            if row["status"] != "ok" or row["disturbed_by"]:
                continue
            ops = parts[trial["plan"]]
            latency = "latency_quiet_us" if is_linux_board(row["board"]) else "latency_us"
            found.append(
                MeasuredStep(
                    name=trial["plan"],
                    plan=StepPlan.from_json(trial["step_plan"]),
                    ops=tuple(ops_of(ops)),
                    counts=ops["count"].to_numpy(dtype=np.float64),
                    latency_us=ops[latency].to_numpy(dtype=np.float64),
                    energy_uj=1e3 * float(row["energy_mj"]),
                    energy_source=row["energy_source"] if isinstance(row["energy_source"], str) else "",
                    memory_peak_bytes=int(row["memory_peak_bytes"]),
                    region=trial["region"],
                )
            )
    return tuple(found)


def check_same_device(runs: Sequence[Path | str], identity: dict) -> None:
    """Raise UserError unless the runs are of the device, timer and firmware build of ``identity``."""
    for run in runs:
        theirs = store.read_manifest(Path(run))["identity"]
        for name, what in (("board", "board"), ("timer", "timer"), ("build_hash", "firmware build")):
            if theirs.get(name) != identity.get(name):
                raise UserError(
                    f"the steps of {run} were measured with {what} {theirs.get(name)!r}, the ops with "
                    f"{identity.get(name)!r}",
                    hint="measure both with one device and build",
                )
