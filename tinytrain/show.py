"""What a selection looks like: notes in the plan, tables for people, a record for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from costmodels.sources import CostSource
from profiler.workloads.plan import StepPlan
from tinytrain.budget import mean_and_std
from tinytrain.selection import Selection
from tinytrain.selection_task import TaskPart
from tinytrain.tasks import Prepared


def with_notes(
    selection: Selection, source: CostSource, ready: Prepared, *, ratios: Sequence[float], inspected: float
) -> StepPlan:
    """The plan with notes on who chose it, with what and for which task."""
    return dataclasses.replace(
        selection.plan,
        notes={
            "cost_source": source.label,
            "solver": selection.solver,
            "budget": budget(selection),
            "predicted": predicted(selection),
            "data": ready.data,
            "episode": ready.episode.summary,
            "ratios": list(ratios),
            "inspected_share": inspected,
            "gain": selection.gain,
            "fisher_share": selection.fisher_share,
            "scores": {taken.score.layer: taken.score.score for taken in selection.order},
        },
    )


def budget(selection: Selection) -> dict:
    """The limits of one training step, None where there is none, and the confidence."""
    limits = selection.budget
    return {
        "latency_ms": _finite(limits.latency_ms),
        "energy_mj": _finite(limits.energy_mj),
        "memory_bytes": limits.memory_bytes,
        "confidence": limits.confidence,
    }


def predicted(selection: Selection) -> dict:
    """Latency, energy where it is known, and bytes (arena and stack; the program beside them) of one training step,
    with what they stay below."""
    cost, limits = selection.cost, selection.budget
    record = {
        "latency_ms": cost.latency_ms,
        "latency_std_ms": _finite(cost.latency_std_ms),
        "upper_latency_ms": limits.upper_latency_ms(cost),
        "memory_bytes": cost.memory_bytes,
        "program_bytes": cost.program_bytes,
    }
    if cost.energy_mj is not None and math.isfinite(cost.energy_mj):
        std_mj = mean_and_std(cost, "energy_mj")[1]
        record |= {
            "energy_mj": cost.energy_mj,
            "energy_std_mj": std_mj,
            "upper_energy_mj": limits.upper(cost, "energy_mj"),
        }
    return record


def rows(selection: Selection) -> list[dict]:
    """A row an inspected layer, best score first."""
    by_layer: dict[str, float] = {}
    for row in selection.cost.rows:
        if row["pass"] in ("grad_weight", "update"):
            by_layer[str(row["layer"])] = by_layer.get(str(row["layer"]), 0.0) + float(row["latency_ms"])
    return [
        {
            "layer": taken.score.layer,
            "potential": taken.score.potential,
            taken.score.memory_unit: taken.score.memory,
            f"cost_{taken.score.unit}": taken.score.cost,
            "score": taken.score.score,
            "channels": f"{taken.channels}/{taken.all_channels}",
            "gain": taken.fisher,
            "own_ms": by_layer.get(taken.score.layer),
        }
        for taken in selection.order
    ]


def record(
    selection: Selection,
    source: CostSource,
    ready: Prepared,
    *,
    out: Path,
    task: Sequence[TaskPart],
    why: Sequence[dict] | None,
) -> dict:
    """Everything for ``--json``."""
    return {
        "plan": str(out),
        "cost_source": source.label,
        "solver": selection.solver,
        "budget": budget(selection),
        "predicted": predicted(selection),
        "gain": selection.gain,
        "gain_bound": _finite(selection.bound),
        "fisher_share": selection.fisher_share,
        "selection_s": selection.seconds,
        "task": [dataclasses.asdict(part) for part in task],
        "data": ready.data,
        "layers": rows(selection),
        **({"why": list(why)} if why is not None else {}),
    }


def tables(
    selection: Selection, source: CostSource, ready: Prepared, task: Sequence[TaskPart], table: Callable
) -> None:
    """Print the layers, the totals beside the budget, and the whole task."""
    plan = selection.plan
    name = f"{plan.network} at {'x'.join(map(str, plan.input_shape))}"
    table(rows(selection), title=f"{name}: layers in the order of their scores, costs {source.label}")
    cost, limits = selection.cost, selection.budget
    confidence = f"{limits.confidence:.0%}"
    summary = {
        "solver": selection.solver,
        "layers trained": len(plan.layers),
        "frontier": next(iter(plan.layers)),
        "Fisher share": selection.fisher_share,
        "latency_ms": cost.latency_ms,
    }
    if not math.isnan(cost.latency_std_ms):
        summary |= {
            "latency_std_ms": cost.latency_std_ms,
            f"upper_latency_ms ({confidence})": limits.upper_latency_ms(cost),
        }
    if math.isfinite(limits.latency_ms):
        summary["budget_ms"] = limits.latency_ms
    if cost.energy_mj is not None:
        summary |= {"energy_mj": cost.energy_mj, f"upper_energy_mj ({confidence})": limits.upper(cost, "energy_mj")}
    if math.isfinite(limits.energy_mj):
        summary["budget_mj"] = limits.energy_mj
    summary |= {"memory_bytes": cost.memory_bytes, "program_bytes": cost.program_bytes}
    if limits.memory_bytes is not None:
        summary["budget_bytes"] = limits.memory_bytes
    episode = ready.episode
    shots = len(episode.support) // episode.ways
    table(
        [summary],
        title=f"one training step, {plan.dtype}, {plan.images} image{'s' if plan.images > 1 else ''}, {plan.optimizer}",
        caption="memory is arena and stack, which the program lies beside; a budget of bytes is for all three\n"
        f"predicted by: {source.label}\ndata: {ready.data}\n"
        f"task: {episode.dataset}, {episode.ways} ways, {shots} shots, episode {episode.seed}",
    )
    parts = [*task, whole(task)]
    energy = any(part.energy_mj is not None for part in parts)
    table(
        [
            {"part": p.name, "images": p.images, "latency_s": p.latency_ms / 1e3}
            | ({"energy_mj": p.energy_mj} if energy else {})
            for p in parts
        ],
        title="the whole task",
        caption="on the device, as predicted; the choice itself is made on this host, and squares of the Fisher pass's "
        "sums and means of features, for which there is no op, are left out",
    )


def whole(task: Sequence[TaskPart]) -> TaskPart:
    """All parts together."""
    energies = [part.energy_mj for part in task]
    energy = None if any(e is None for e in energies) else sum(e for e in energies if e is not None)
    return TaskPart("all", sum(p.images for p in task), sum(p.latency_ms for p in task), energy)


def why_table(why: Sequence[dict], source: CostSource, table: Callable) -> None:
    """Print what ``--explain`` asks for."""
    table(
        why,
        title="Layer by layer: what speaks for it, what it costs, and why it was taken or not",
        caption="MACs of one image; ms and bytes of a step that trains all of the layer: own is what it adds behind an "
        f"earlier frontier, chain what being the frontier adds to that; by {source.label}",
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
