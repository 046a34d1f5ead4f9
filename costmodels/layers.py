"""Where the cost of a training step goes: layer by layer and pass by pass."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from costmodels.features import geometry_key, group_key
from costmodels.model import CostModel
from costmodels.sources import NORMAL_90, StepCost
from profiler.ops import Op, Pass
from profiler.shown_values import format_value
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.step import TrainingStep, training_step

#: What is said of a cost that no measurement is near, before what of the op it is.
OUTSIDE = "far from what was measured"
UNKNOWN = "no op of this kernel was fitted"
#: What is added where the layer was measured, but no fit saw it.
HELD_OUT = "held out"
#: Percent of a step's latency below which it is not worth a warning that they are extrapolated.
WORTH_SAYING = 1.0


def everything(network: Network, **settings: object) -> StepPlan:
    """The plan that trains all channels and biases of every layer."""
    layers = {layer.name: LayerPlan.whole(layer) for layer in network.trainable}
    return StepPlan.for_network(network, layers, **settings)


def layer_passes(model: CostModel, network: Network, plan: StepPlan, cost: StepCost | None = None) -> pd.DataFrame:
    """A row a layer and pass of one training step, layers in the order in which they run forward.

    Args:
        model: The cost source.
        network: What is trained.
        plan: What trains in it.
        cost: ``model.step(network, plan)``, where it is known already.

    Returns:
        ``layer, kind, pass, dtype, count`` (ops in the step, images included), ``macs, latency_ms, latency_low_ms,
        latency_high_ms`` (a 90 % interval: errors of one layer and pass count as fully correlated), ``energy_mj``
        (NaN where none was measured), ``memory_bytes`` (arena and stack of the hungriest op run alone) and
        ``extrapolates``: empty, or in words why the figure is a guess.

    Raises:
        UserError: the plan is for another network.
    """
    step = training_step(network, plan)
    cost = cost or model.step(network, plan)
    why = _reasons(model)
    ops = [step_op.op for step_op in step.ops]
    memory = model.predict(ops)["memory_bytes"]
    table = pd.DataFrame.from_records(list(cost.rows))
    table["memory_bytes"] = memory.to_numpy()
    table["extrapolates"] = [why(op) if outside else "" for op, outside in zip(ops, table["extrapolates"], strict=True)]
    table["energy_mj"] = table["energy_mj"].astype("float64")
    rows = (
        table.groupby(["layer", "pass"], sort=False)
        .agg(
            kind=("kind", "first"),
            dtype=("dtype", "first"),
            count=("count", "sum"),
            macs=("macs", "sum"),
            latency_ms=("latency_ms", "sum"),
            std_ms=("latency_std_ms", "sum"),
            energy_mj=("energy_mj", lambda values: values.sum(min_count=len(values))),
            memory_bytes=("memory_bytes", "max"),
            extrapolates=("extrapolates", lambda words: ", ".join(sorted({word for word in words if word}))),
        )
        .reset_index()
    )
    reach = NORMAL_90 * rows.pop("std_ms")
    rows["latency_low_ms"] = (rows["latency_ms"] - reach).clip(lower=0)
    rows["latency_high_ms"] = rows["latency_ms"] + reach
    order = _layer_order(step)
    passes = [str(p) for p in Pass]
    rows["layer_at"] = rows["layer"].map(order)
    rows["pass_at"] = rows["pass"].map(passes.index)
    columns = ["layer", "kind", "pass", "dtype", "count", "macs", "latency_ms", "latency_low_ms", "latency_high_ms"]
    columns += ["energy_mj", "memory_bytes", "extrapolates"]
    return rows.sort_values(["layer_at", "pass_at"])[columns].reset_index(drop=True)


def layer_table(passes: pd.DataFrame) -> pd.DataFrame:
    """:func:`layer_passes` with a row a layer: latency of each pass beside one another, and the layer's totals.

    Returns:
        ``layer, kind, PASS_ms`` for each pass, ``latency_ms, latency_low_ms, latency_high_ms, share_percent,
        energy_mj, memory_bytes, extrapolates`` (with the passes that it is true of).
    """
    rows = []
    total_ms = passes["latency_ms"].sum()
    for layer, own in passes.groupby("layer", sort=False):
        row: dict[str, object] = {"layer": layer, "kind": own["kind"].iloc[0]}
        by_pass = own.groupby("pass")["latency_ms"].sum()
        row |= {f"{p}_ms": by_pass.get(str(p), float("nan")) for p in Pass}
        row |= {name: own[name].sum() for name in ("latency_ms", "latency_low_ms", "latency_high_ms")}
        row["share_percent"] = 100 * row["latency_ms"] / total_ms
        row["energy_mj"] = own["energy_mj"].sum(min_count=len(own))
        row["memory_bytes"] = own["memory_bytes"].max()
        flagged = own[own["extrapolates"] != ""]
        row["extrapolates"] = "; ".join(
            f"{', '.join(part['pass'])}: {words}" for words, part in flagged.groupby("extrapolates", sort=False)
        )
        rows.append(row)
    return pd.DataFrame.from_records(rows)


def pass_table(passes: pd.DataFrame) -> pd.DataFrame:
    """:func:`layer_passes` with a row a pass: ``pass, count, macs, latency_ms, latency_low_ms, latency_high_ms,
    share_percent`` and, where it was measured, ``energy_mj``.
    """
    sums = ["count", "macs", "latency_ms", "latency_low_ms", "latency_high_ms"]
    sums += ["energy_mj"] if passes["energy_mj"].notna().all() else []
    rows = passes.groupby("pass")[sums].sum()
    rows = rows.reindex([str(p) for p in Pass if str(p) in rows.index]).reset_index()
    rows["share_percent"] = 100 * rows["latency_ms"] / rows["latency_ms"].sum()
    return rows


def extrapolated(passes: pd.DataFrame) -> str:
    """How much of a step is extrapolated, and of what, as a sentence for people; empty below :data:`WORTH_SAYING`.

    Args:
        passes: Of :func:`layer_passes`.
    """
    guessed = passes[passes["extrapolates"] != ""]
    share = 100 * guessed["latency_ms"].sum() / passes["latency_ms"].sum()
    if share < WORTH_SAYING:
        return ""
    most = _most_extrapolated(passes)
    one = "the one is" if len(guessed) == 1 else "above all"
    return (
        f"{format_value(share, digits=2)} % of the step's latency is extrapolated, {len(guessed)} of {len(passes)} "
        f"layers and passes: {one} {most['layer']}, {most['pass']} ({most['extrapolates']})"
    )


def remedy(passes: pd.DataFrame) -> str:
    """What makes sure of what is extrapolated most (:func:`extrapolated` names it), as a sentence's end.

    Args:
        passes: Of :func:`layer_passes`, some of which extrapolate.
    """
    if HELD_OUT in _most_extrapolated(passes)["extrapolates"]:
        return "`costmodels fit --include-held-out` fits what was held out, too"
    return "measure such ops with `profile` and fit again to be sure"


def _most_extrapolated(passes: pd.DataFrame) -> pd.Series:
    return passes.loc[passes["latency_ms"].where(passes["extrapolates"] != "").idxmax()]


def _reasons(model: CostModel) -> Callable[[Op], str]:
    known = model.targets["latency"].groups
    geometries = set(model.card_.get("calibrated_geometries", ()))
    groups = set(model.card_.get("held_out_groups", ()))

    def why(op: Op) -> str:
        key = group_key(op)
        held_out = geometry_key(op) in geometries and (key in known or key in groups)
        reason = f"{OUTSIDE}: {known[key].outside(op)}" if key in known else UNKNOWN
        return f"{reason}; {HELD_OUT}" if held_out else reason

    return why


def _layer_order(step: TrainingStep) -> dict[str, int]:
    """Layers by their first op: forward comes first, and every layer has a forward op."""
    order: dict[str, int] = {}
    for step_op in step.ops:
        order.setdefault(step_op.layer, len(order))
    return order
