"""The report's charts of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from costmodels.evaluate_points import FITTED
from costmodels.svg import COLORS, Axis, Chart, number, stacked_bars
from profiler.ops import Pass

#: How targets' values are called on axes.
UNIT_LABELS: dict[str, str] = {"latency": "latency, µs", "energy": "energy, µJ", "memory": "memory, bytes"}
PASS_COLORS: dict[str, str] = {str(p): COLORS[i] for i, p in enumerate(Pass)}
#: Errors beyond this are drawn at the edge, in percent: one bad op is not to hide how all the others lie.
WIDEST_RESIDUAL = 25.0


def kind_colors(points: pd.DataFrame) -> dict[str, str]:
    """A colour for each of the commonest kinds; the others share the last one, under "others"."""
    kinds = points["kind"].value_counts().index.tolist()
    named = kinds if len(kinds) <= len(COLORS) else kinds[: len(COLORS) - 1]
    colors = dict(zip(named, COLORS, strict=False))
    return colors | ({"others": COLORS[-1]} if len(named) < len(kinds) else {})


def predicted_against_measured(points: pd.DataFrame, target: str) -> list[str]:
    """Predicted against measured, both logarithmic, a chart a pass: the diagonal is a perfect prediction."""
    colors = kind_colors(points)
    label = UNIT_LABELS[target]
    axis = Axis.around(label, [*points["measured"], *points[FITTED]], log=True)
    charts = []
    for pass_ in Pass:
        rows = points[points["pass"] == str(pass_)]
        if rows.empty:
            continue
        chart = Chart(
            f"{pass_} ({len(rows)} ops)",
            f"Predicted against measured {label} of {pass_} ops.",
            Axis(f"measured {label}", axis.low, axis.high, True),
            Axis(f"predicted {label}", axis.low, axis.high, True),
        )
        ends = (axis.low, axis.high)
        chart.band([(v, 0.9 * v, 1.1 * v) for v in np.geomspace(*ends, 24)], "#888888", "±10 %")
        chart.line([(v, v) for v in ends], "#888888")
        _by_kind(chart, rows, colors, lambda row: (row.measured, row.fitted))
        charts.append(chart.svg())
    return charts


def residuals(points: pd.DataFrame, target: str) -> str:
    """Relative errors over what was measured: where the model is off, and by how much."""
    error = 100 * (points[FITTED] / points["measured"] - 1)
    reach = min(WIDEST_RESIDUAL, max(5.0, 1.1 * float(error.abs().max())))
    beyond = int((error.abs() > reach).sum())
    rows = points.assign(error=error.clip(-reach, reach), told=error)
    label = UNIT_LABELS[target]
    edge = f"; {beyond} beyond ±{number(reach)} % lie at the edge" if beyond else ""
    chart = Chart(
        f"Relative error of {target}{edge}",
        f"Relative error of predicted {target} over the measured {label}, coloured by pass.",
        Axis.around(f"measured {label}", points["measured"].tolist(), log=True),
        Axis("predicted / measured - 1, %", -reach, reach),
        width=940,
    )
    ends = (chart.x.low, chart.x.high)
    for size in (10, 5):
        if size < reach:
            chart.band([(v, -size, size) for v in ends], "#bbbbbb", f"±{size} %")
    chart.line([(v, 0) for v in ends], "#888888")
    for name, color in PASS_COLORS.items():
        own = rows[rows["pass"] == name]
        chart.dots(
            list(zip(own["measured"], own["error"], strict=True)),
            color,
            name,
            [f"{row.op_key}: {row.told:+.2f} %" for row in own.itertuples()],
        )
    return chart.svg()


def steps_against_measured(rows: pd.DataFrame, target: str, unit: str) -> str:
    """Predicted against measured whole steps, with the model's intervals in the tooltips."""
    label = f"{target} of a step, {unit}"
    values = [*rows["measured"], *rows[FITTED]]
    chart = Chart(
        f"{len(rows)} whole steps",
        f"Predicted against measured {label}.",
        Axis.around(f"measured {label}", values, log=True),
        Axis.around(f"predicted {label}", values, log=True),
    )
    ends = (chart.x.low, chart.x.high)
    chart.band([(v, 0.95 * v, 1.05 * v) for v in np.geomspace(*ends, 24)], "#888888", "±5 %")
    chart.line([(v, v) for v in ends], "#888888")
    for i, (network, own) in enumerate(rows.groupby("network", sort=False)):
        tips = [
            f"{r.plan}: measured {number(r.measured)}, predicted {number(r.fitted)} {unit}" for r in own.itertuples()
        ]
        chart.dots(list(zip(own["measured"], own[FITTED], strict=True)), COLORS[i % len(COLORS)], str(network), tips)
    return chart.svg()


def layer_bars(passes: pd.DataFrame, column: str, unit: str, title: str, *, most: int = 60) -> str:
    """Where a step's time or energy goes: a bar a layer, its passes one behind the other.

    Args:
        passes: As :func:`costmodels.layers.layer_passes` gives it.
        column: What is shown.
        unit: Its unit.
        title: Above.
        most: Layers with a bar of their own: those that take most; the rest is one bar.
    """
    sums = passes.groupby("layer", sort=False)[column].sum()
    shown = set(sums.nlargest(most).index)
    bars: list[tuple[str, Mapping[str, float]]] = []
    for layer in sums.index:
        if layer in shown:
            own = passes[passes["layer"] == layer]
            bars.append((f"{layer} ({own['kind'].iloc[0]})", dict(zip(own["pass"], own[column], strict=True))))
    rest = passes[~passes["layer"].isin(shown)]
    if len(rest):
        bars.append((f"{rest['layer'].nunique()} smaller layers", rest.groupby("pass")[column].sum().to_dict()))
    return stacked_bars(title, f"{title}, layer by layer and pass by pass.", bars, PASS_COLORS, unit)


def _by_kind(
    chart: Chart, rows: pd.DataFrame, colors: Mapping[str, str], at: Callable[[object], tuple[float, float]]
) -> None:
    for name, color in colors.items():
        own = rows[~rows["kind"].isin(set(colors))] if name == "others" else rows[rows["kind"] == name]
        listed = list(own.itertuples())
        tips = [f"{r.op_key}: measured {number(r.measured)}, predicted {number(r.fitted)}" for r in listed]
        chart.dots([at(row) for row in listed], color, name, tips)
