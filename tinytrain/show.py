"""What a selection looks like: notes in the plan, tables for people, a record for programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from costmodels.sources import CostSource
from profiler.workloads.plan import StepPlan
from tinytrain.selection import Selection
from tinytrain.tasks import Prepared


def with_notes(
    selection: Selection, source: CostSource, ready: Prepared, *, ratios: Sequence[float], inspected: float
) -> StepPlan:
    """The plan with notes on who chose it, with what and for which task."""
    return dataclasses.replace(
        selection.plan,
        notes={
            "cost_source": source.label,
            "budget": {
                "latency_ms": _finite(selection.budget.latency_ms),
                "memory_bytes": selection.budget.memory_bytes,
                "confidence": selection.budget.confidence,
            },
            "predicted": predicted(selection),
            "data": ready.data,
            "episode": {
                "dataset": ready.episode.dataset,
                "seed": ready.episode.seed,
                "ways": ready.episode.ways,
                "shots": len(ready.episode.support) // ready.episode.ways,
            },
            "ratios": list(ratios),
            "inspected_share": inspected,
            "fisher_share": selection.fisher_share,
            "scores": {taken.score.layer: taken.score.score for taken in selection.order},
        },
    )


def predicted(selection: Selection) -> dict:
    """Latency in ms with its standard deviation, and bytes, of one training step."""
    return {
        "latency_ms": selection.cost.latency_ms,
        "latency_std_ms": _finite(selection.cost.latency_std_ms),
        "upper_latency_ms": selection.budget.upper_latency_ms(selection.cost),
        "memory_bytes": selection.cost.memory_bytes,
    }


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
            "parameters": taken.score.parameters,
            f"cost_{taken.score.unit}": taken.score.cost,
            "score": taken.score.score,
            "channels": f"{taken.channels}/{taken.all_channels}",
            "own_ms": by_layer.get(taken.score.layer),
            "added_ms": taken.latency_ms if taken.channels else None,
        }
        for taken in selection.order
    ]


def record(selection: Selection, source: CostSource, ready: Prepared, *, out: Path, selection_s: float) -> dict:
    """Everything for ``--json``."""
    return {
        "plan": str(out),
        "cost_source": source.label,
        "budget": {"latency_ms": selection.budget.latency_ms, "memory_bytes": selection.budget.memory_bytes},
        "predicted": predicted(selection),
        "fisher_share": selection.fisher_share,
        "selection_s": selection_s,
        "data": ready.data,
        "layers": rows(selection),
    }


def tables(selection: Selection, source: CostSource, ready: Prepared, table: Callable) -> None:
    """Print the layers, then the totals beside the budget."""
    plan = selection.plan
    name = f"{plan.network} at {'x'.join(map(str, plan.input_shape))}"
    table(rows(selection), title=f"{name}: layers in the order of their scores, costs {source.label}")
    cost, budget = selection.cost, selection.budget
    summary = {
        "layers trained": len(plan.layers),
        "frontier": next(iter(plan.layers)),
        "Fisher share": selection.fisher_share,
        "latency_ms": cost.latency_ms,
        "budget_ms": budget.latency_ms,
        "memory_bytes": cost.memory_bytes,
    }
    if not math.isnan(cost.latency_std_ms):
        summary |= {
            "latency_std_ms": cost.latency_std_ms,
            f"upper_latency_ms ({budget.confidence:.0%})": budget.upper_latency_ms(cost),
        }
    if budget.memory_bytes is not None:
        summary["budget_bytes"] = budget.memory_bytes
    episode = ready.episode
    shots = len(episode.support) // episode.ways
    table(
        [summary],
        title=f"one training step, {plan.images} image{'s' if plan.images > 1 else ''}, {plan.optimizer}",
        caption=f"predicted by: {source.label}\ndata: {ready.data}\n"
        f"task: {episode.dataset}, {episode.ways} ways, {shots} shots, episode {episode.seed}",
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
