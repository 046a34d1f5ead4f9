"""The sections of a report, each as HTML text; written for readers who know TinyML and not this project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from costmodels import evaluate_tables as tables
from costmodels.accuracy import FIGURES
from costmodels.evaluate import LEFT_OUT, NETWORKS_LEFT_OUT, Evaluation
from costmodels.evaluate_points import FITTED, TARGETS, figures
from costmodels.evaluate_steps import STEP_TARGETS, step_points, step_summary
from costmodels.layers import extrapolated, remedy
from costmodels.markup import definitions, key_figures, labels, paragraph, section, table
from costmodels.markup import figures as charts
from costmodels.plots import energy_note
from costmodels.report_card import timer_in_words
from costmodels.report_figures import layer_bars, predicted_against_measured, residuals, steps_against_measured
from costmodels.svg import COLORS, Axis, Chart, number

if TYPE_CHECKING:
    from costmodels.report import StepReport

#: Figures and how the page calls them.
_HEADINGS = {
    "n": "n",
    "mape_percent": "MAPE, %",
    "within_5_percent": "within ±5 %, %",
    "within_10_percent": "within ±10 %, %",
    "p95_percent": "95th percentile, %",
    "bias_percent": "bias, %",
    "coverage_90_percent": "in 90 % interval, %",
}
_JUDGED = {
    "held-out ops": "ops that were kept from the fit on purpose: the fit saw no pass of their layer shapes",
    "unseen ops": "ops of layer shapes that the fit saw in no pass",
    LEFT_OUT: "ops left out in turn: the model was fitted to every op of these runs, so models without a fifth of the "
    "layer shapes at a time were judged in its place",
    NETWORKS_LEFT_OUT: "whole networks left out in turn: the model was fitted to every op of these runs, so models "
    "without one network at a time were judged in its place",
}


def head(
    name: str, card: Mapping[str, Any], evaluation: Evaluation, steps: pd.DataFrame, step: StepReport | None
) -> str:
    """Title, what qualifies every figure, and the few figures that matter most."""
    shown = [("Accuracy", "accuracy"), ("Plots", "plots")]
    shown += [("Whole steps", "steps")] if len(steps) else []
    shown += [("A step, layer by layer", "layers")] if step else []
    nav = "".join(f'<a href="#{anchor}">{text}</a>' for text, anchor in [("The model", "model"), *shown])
    notes = [timer_in_words(card["timer"])]
    if len(evaluation.points["energy"]):
        notes.append(energy_note(evaluation.energy_source))
    if evaluation.caches == "cold":
        notes.append("caches emptied before each op")
    own = {target: figures(points, target) for target, points in evaluation.points.items()}
    latency = own["latency"]
    items = [
        (f"{_short(latency['mape_percent'])} %", f"mean error of latency, {latency['n']} ops never seen"),
        (f"{_short(latency['within_10_percent'])} %", "of them within ±10 %"),
        (f"{_short(latency['coverage_90_percent'])} %", "of them inside the model's 90 % interval"),
    ]
    if own["energy"]["n"]:
        items.append((f"{_short(own['energy']['mape_percent'])} %", f"mean error of energy, {own['energy']['n']} ops"))
    if own["memory"]["n"]:
        items.append((f"{_short(own['memory']['max_percent'])} %", "largest error of an op's peak memory"))
    summary = step_summary(steps)
    if summary:
        items.append((f"{_short(summary['latency']['mape_percent'])} %", f"mean error of {summary['n']} whole steps"))
    return (
        f"<header><h1>{name}</h1>{labels(notes)}"
        + paragraph(
            "What one training step costs on this device, learned from short measurements of single operations, "
            "and how far those predictions can be trusted: every error below is of operations that no fit saw."
        )
        + f"<nav>{nav}</nav></header>"
        + key_figures(items)
    )


def words(evaluation: Evaluation) -> str:
    """What the page's words mean."""
    return section(
        "words",
        "How to read this page",
        [
            definitions(
                {
                    "op": "One pass of one layer with its shape and data type; measured alone, several times over.",
                    "pass": "forward; grad_input, the gradient towards a layer's input, which every layer between the "
                    "loss and the earliest trained one needs; grad_weight, the gradient of what trains; update, the "
                    "optimiser's step.",
                    "judged here": f"{_JUDGED[evaluation.judged_on]}.",
                    "MAPE, bias": "Mean of |predicted / measured - 1|, and of predicted / measured - 1.",
                    "in 90 % interval": "How many measured figures lie inside the bounds that the model states with "
                    "each prediction. About 90 % should: fewer, and it is too sure of itself; more, and too shy.",
                    "baselines": "Other ways to foretell the same figures, learned from the same measured ops: one "
                    "factor times the MACs; a line over the MACs for each kind of layer and pass; nn-Meter's random "
                    "forest on its published features; constant power times the predicted time; and, for memory, the "
                    "bytes of inputs and outputs. Ops without MACs are charged by the words that they move, in favour "
                    "of the first two.",
                }
            )
        ],
    )


def accuracy(evaluation: Evaluation) -> str:
    """Tables of figures, of all ops and of each kind and pass, beside the baselines."""
    parts = [
        paragraph(f"Judged on {_JUDGED[evaluation.judged_on]}."),
        table(
            tables.overall_rows(evaluation.points),
            {"target": "target", "predictor": "predictor"} | _HEADINGS,
            caption="All judged ops; this model's rows are shaded",
            emphasised={"predictor": FITTED},
        ),
    ]
    if evaluation.judged_on == LEFT_OUT:
        parts.insert(1, paragraph("Judge the model on a run of its own for figures of this very model.", "warning"))
    for target in TARGETS:
        points = evaluation.points[target]
        if points.empty:
            continue
        parts.append(f"<h3>{target.capitalize()}</h3>")
        if target == "energy":
            parts.append(paragraph(f"{energy_note(evaluation.energy_source).capitalize()}.", "note"))
        if target == "memory":
            own = figures(points, target)
            parts.append(
                paragraph(
                    f"Peak of arena and stack. Foretold too low: {number(own['under_predicted_percent'])} % of ops; "
                    f"largest error {number(own['max_percent'])} %. No interval is stated: memory is planned, not "
                    "estimated.",
                    "note",
                )
            )
        whole = {"network": "network", "ops": "ops in the runs", "network left out": "network left out"}
        for rows, caption in (
            (tables.by_op_rows(evaluation.points, target), f"{target} by kind of layer, pass and data type"),
            (tables.network_rows(evaluation, target), f"{target} by network: its judged ops"),
            (tables.left_out_rows(evaluation, target), f"{target} of a network of which the fit saw not one layer"),
        ):
            parts.append(
                table(rows, _headings(rows, {"kind": "kind", "pass": "pass", "dtype": "type"} | whole), caption=caption)
            )
    outside = evaluation.points["latency"]
    outside = outside[outside["extrapolates"]]
    if len(outside):
        own = figures(outside, "latency")
        parts.append(
            paragraph(
                f"{own['n']} of these ops lie far from all that was measured, and the model says so with each: "
                f"their mean error of latency is {number(own['mape_percent'])} %.",
                "note",
            )
        )
    return section("accuracy", "Accuracy", parts)


def plots(evaluation: Evaluation) -> str:
    """Predicted against measured, and residuals."""
    parts = []
    timer = timer_in_words(evaluation.timer).capitalize()
    for target in TARGETS:
        points = evaluation.points[target]
        if points.empty:
            continue
        parts.append(f"<h3>{target.capitalize()}</h3>")
        said = {"latency": f" {timer}.", "energy": f" {energy_note(evaluation.energy_source).capitalize()}."}
        text = "Each dot is an op that the fit never saw; point at one to read its name."
        parts.append(paragraph(text + said.get(target, ""), "note"))
        parts.append(charts(*predicted_against_measured(points, target)))
        parts.append(charts(residuals(points, target)))
    return section("plots", "Predicted against measured", parts)


def whole_steps(steps: pd.DataFrame, facts: Mapping[str, Any]) -> str:
    """Training steps that the device ran whole."""
    summary = step_summary(steps)
    if summary is None:
        return ""
    parts = [
        paragraph(
            "Whole training steps (forward, backward and update of a batch, every op behind the other), run by the "
            f"device as one program and foretold from the plan alone. {timer_in_words(facts['timer'])}."
        ),
        table(
            tables.step_rows(summary),
            {"target": "target", "predictor": "predictor"} | _HEADINGS,
            caption="All measured steps",
            emphasised={"predictor": FITTED},
        ),
        table(
            [
                {"network": row["network"], **{name: row["latency"][name] for name in FIGURES}}
                for row in summary["by_network"]
            ],
            {"network": "network"} | _HEADINGS,
            caption="Latency by network",
        ),
    ]
    points = step_points(steps)
    drawn = [
        steps_against_measured(points[target], target, unit.replace("mj", "mJ"))
        for target, unit in STEP_TARGETS.items()
        if len(points[target])
    ]
    return section("steps", "Whole training steps", [*parts, charts(*drawn)])


def curve(learned: pd.DataFrame | None, facts: Mapping[str, Any]) -> str:
    """How the error falls with more measured ops, an active choice beside a random one."""
    if learned is None or learned.empty:
        return ""
    drawn = []
    for (kind, pass_, dtype), rows in learned.groupby(["kind", "pass", "dtype"], sort=False):
        by_size = rows.groupby(["design", "n_ops"])["mape_percent"].agg(["median", "min", "max"]).reset_index()
        chart = Chart(
            f"{kind} {pass_} {dtype}",
            f"Mean absolute percentage error of latency of {kind} {pass_} {dtype} over the number of measured ops, "
            "active beside random.",
            Axis("measured ops", 0.9 * by_size["n_ops"].min(), 1.1 * by_size["n_ops"].max(), True),
            Axis.around("MAPE of latency, %", [*by_size["min"], *by_size["max"]], log=True),
        )
        for design, color in zip(("active", "random"), COLORS, strict=False):
            own = by_size[by_size["design"] == design]
            chart.band(list(own[["n_ops", "min", "max"]].itertuples(index=False)), color)
            points = list(own[["n_ops", "median"]].itertuples(index=False))
            chart.line(points, color, design, dashed=design == "random")
            chart.dots(points, color, "", [f"{design}, {n:g} ops: {number(value)} %" for n, value in points])
        drawn.append(chart.svg())
    medians = learned.groupby(["kind", "pass", "dtype", "n_ops", "design"], sort=False)["mape_percent"].median()
    beside = medians.unstack("design").reset_index().to_dict("records")
    return section(
        "curve",
        "How many measurements it takes",
        [
            paragraph(
                "Error of latency on held-out ops of a kind and pass by how many of its ops were measured: chosen at "
                "random, or one after the other by what lowers the expected error most, as profile --design active "
                "does. Replayed on the measured ops, nothing is measured again; lines are medians of "
                f"{learned['seed'].nunique()} seeds, bands their range. {timer_in_words(facts['timer']).capitalize()}."
            ),
            charts(*drawn),
            table(
                beside,
                {"kind": "kind", "pass": "pass", "dtype": "type", "n_ops": "measured ops"}
                | {"active": "MAPE active, %", "random": "MAPE random, %"},
            ),
        ],
    )


def layers(step: StepReport | None, facts: Mapping[str, Any]) -> str:
    """Where time, energy and memory of one training step go."""
    if step is None:
        return ""
    cost, plan = step.cost, step.plan
    shape = "x".join(map(str, plan.input_shape))
    parts = [
        paragraph(
            f"One training step of {step.network} at {shape}, {plan.images} image{'s' if plan.images > 1 else ''}, "
            f"{plan.dtype}, {plan.optimizer}, {step.trains}: predicted, not measured. {timer_in_words(facts['timer'])}."
        ),
        key_figures(
            [(f"{number(cost.latency_ms)} ms", "latency")]
            + (
                []
                if cost.energy_mj is None
                else [(f"{number(cost.energy_mj)} mJ", energy_note(facts.get("energy_source")))]
            )
            + [(f"{cost.memory_bytes / 1024:,.1f} KiB", "peak memory, arena and stack")]
            + ([(f"{cost.program_bytes / 1024:,.1f} KiB", "program, beside the arena")] if cost.program_bytes else [])
        ),
        charts(layer_bars(step.passes, "latency_ms", "ms", "Time by layer")),
    ]
    if step.passes["energy_mj"].notna().all():
        parts += [
            charts(layer_bars(step.passes, "energy_mj", "mJ", "Energy by layer")),
            paragraph(f"{energy_note(facts.get('energy_source')).capitalize()}.", "note"),
        ]
    if guessed := extrapolated(step.passes):
        parts.append(paragraph(f"{guessed}; {remedy(step.passes)}.", "warning"))
    peak = [
        {"what": row.what, "tensors": row.tensors, "bytes": row.byte_count, "from byte": row.offset_bytes}
        for row in step.peak[:14]
    ]
    rest = sum(row.byte_count for row in step.peak[14:])
    if rest:
        peak.append({"what": f"{len(step.peak) - 14} smaller ones", "tensors": None, "bytes": rest, "from byte": None})
    parts.append(
        table(peak, caption="What lies in the arena when it is fullest (tensors that share bytes count in full)")
    )
    return section("layers", "Where the cost of a training step goes", parts)


def _headings(rows: list[dict[str, object]], first: Mapping[str, str]) -> dict[str, str]:
    """Headings of a table of figures: what the rows are of, the figures, and each baseline's error."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = {name: text for name, text in first.items() if name in names} | _HEADINGS
    return shown | {
        name: f"MAPE of {name.removesuffix(': mape_percent')}, %" for name in names if name.endswith(": mape_percent")
    }


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"
