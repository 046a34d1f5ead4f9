"""An evaluation as tables for people: rows that a command prints and the report shows."""

from __future__ import annotations

from costmodels.accuracy import FIGURES
from costmodels.evaluate import Evaluation
from costmodels.evaluate_points import FITTED, TARGETS, Points, baseline_names, by_target, figures, groups, only

Rows = list[dict[str, object]]


def overall_rows(points: Points) -> Rows:
    """A row a target and predictor that has something to say of it."""
    found = {name: by_target(points, name) for name in (FITTED, *baseline_names(points))}
    return [
        {"target": target, "predictor": name} | {figure: row[target][figure] for figure in FIGURES}
        for target in TARGETS
        for name, row in found.items()
        if row[target]["n"]
    ]


def by_op_rows(points: Points, target: str) -> Rows:
    """A row a kind, pass and dtype: the model's figures of one target, and each baseline's MAPE."""
    rows = []
    for what, own in groups(points):
        if figures(own[target], target)["n"]:
            rows.append(what | _beside(own, target))
    return rows


def network_rows(evaluation: Evaluation, target: str) -> Rows:
    """A row a network: how many of its ops were judged, and how well they were foretold."""
    judged = {name: only(evaluation.points, keys) for name, keys in evaluation.networks.items()}
    return [
        {"network": name, "ops": len(evaluation.networks[name])} | _beside(points, target)
        for name, points in judged.items()
        if figures(points[target], target)["n"]
    ]


def left_out_rows(evaluation: Evaluation, target: str) -> Rows:
    """A row a network that was left out of the fit."""
    return [
        {"network left out": name} | _beside(points, target)
        for name, points in (evaluation.left_out or {}).items()
        if figures(points[target], target)["n"]
    ]


def _beside(points: Points, target: str) -> dict[str, object]:
    table = points[target]
    own = figures(table, target)
    names = [name for name in baseline_names({target: table}) if table[name].notna().any()]
    return {figure: own[figure] for figure in FIGURES} | {
        f"{name}: mape_percent": figures(table, target, name)["mape_percent"] for name in names
    }


def step_rows(summary: dict) -> Rows:
    """A row a target and predictor of whole steps.

    Args:
        summary: As :func:`costmodels.evaluate_steps.step_summary` gives it.
    """
    predictors = {FITTED: summary, **summary["baselines"]}
    return [
        {"target": target, "predictor": name} | {figure: row[target][figure] for figure in FIGURES}
        for target in TARGETS
        for name, row in predictors.items()
        if row[target]["n"]
    ]
