"""``costmodels evaluate``: how well a model predicts what it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodels.commands.options import Json, Model, Runs
from profiler.cli_support import message, print_json, print_table, warn


def evaluate(
    model: Model,
    runs: Runs,
    json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="PNG of predicted against measured.", show_default=False)] = None,
) -> None:
    """Accuracy on the ops that the fit never saw, beside c × MACs and linear in MACs.

    Example: costmodels evaluate an500.model runs/an500 --plot accuracy.png
    """
    from costmodels.evaluate import FIGURES, LEFT_OUT, evaluate  # noqa: PLC0415
    from costmodels.measured import read  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415
    from costmodels.plots import predicted_against_measured, timer_note  # noqa: PLC0415

    fitted = CostModel.load(model)
    result = evaluate(fitted, read(runs, fitted.caches))
    if plot is not None:
        predicted_against_measured(result, plot)
        message(f"plot written to {plot}")
    if json:
        print_json(result.to_dict())
        return
    if result.judged_on == LEFT_OUT:
        warn(
            "the model was fitted to every op of this run, so models without a fifth of its geometries were judged "
            "instead; where errors are large, fit this run together with that of a larger network"
        )
    note = timer_note(result.timer)
    print_table(result.by_op, title=f"{result.device}: latency of {result.judged_on}", caption=note)
    overall = [
        {"ops": ops, "predictor": name, **{figure: figures[figure] for figure in FIGURES}}
        for ops, predictors in result.overall.items()
        for name, figures in predictors.items()
    ]
    print_table(
        overall,
        title="Overall",
        caption=f"{note}; ops without MACs: c × MACs and linear in MACs charge the words they move instead",
    )
    if result.memory["n"]:
        print_table([{name: result.memory[name] for name in FIGURES}], title="Peak memory of single ops", caption=note)
