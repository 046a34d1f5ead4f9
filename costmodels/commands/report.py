"""``costmodels report``: one page about a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from costmodels.commands.evaluate import LeaveOut
from costmodels.commands.options import InputShape, Model, NetworkName, PlanFile, Runs, check_runs, read_plan
from profiler.cli_support import message, progress, warn
from profiler.errors import UserError
from profiler.outputs import check_file

if TYPE_CHECKING:
    import pandas as pd

    from costmodels.model import CostModel


def report(
    model: Model,
    runs: Runs,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file to write.", show_default=False)],
    network: NetworkName = None,
    input_shape: InputShape = None,
    plan: PlanFile = None,
    leave_one_network_out: LeaveOut = False,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve/--no-learning-curve", help="Error by the number of measured ops; takes minutes."
        ),
    ] = True,
) -> None:
    """Write one HTML page: the model card, accuracy beside the baselines, plots, a step layer by layer, provenance.

    The step is that of --plan, or trains everything of --network, by default of the runs' first network. The page loads
    nothing and runs nothing: it can be mailed and printed.

    Example: costmodels report an500.model runs/an500 runs/an500-steps --out report.html
    """
    check_runs(runs)
    check_file(out, "the report", makes_folders=True)
    step_plan = read_plan(plan)
    from costmodels.commands.network import network_and_plan  # noqa: PLC0415  (torch takes seconds: not for --help)
    from costmodels.evaluate_runs import evaluate_runs  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415
    from costmodels.report import Report, StepReport  # noqa: PLC0415

    if network is None and plan is None:
        network, input_shape = _first_network(runs, input_shape)
    costs = CostModel.load(model)
    shown = None
    if network is not None or plan is not None:
        trains = "trains everything" if plan is None else f"trains what {plan.name} says"
        shown = StepReport.of(costs, *network_and_plan(network, input_shape, step_plan), trains)
    with progress(1, "evaluating") as ticker:

        def show(done: int, fits: int, left_out: str) -> None:
            ticker.grow(fits - ticker.total)
            ticker.advance(done - ticker.done, note=f"fitting without {left_out}")

        evaluation, steps = evaluate_runs(costs, runs, leave_one_network_out=leave_one_network_out, on_fit=show)
    curve = _curve(costs, runs) if learning_curve else None
    Report(costs, model, evaluation, steps, curve, shown, runs).write(out)
    message(f"report written to {out}")


def _first_network(runs: list[Path], input_shape: str | None) -> tuple[str | None, str | None]:
    """The network that the first run with one was of, and its input."""
    from profiler.store import read_manifest  # noqa: PLC0415

    for run in runs:
        plan = read_manifest(run).get("plan") or {}
        if plan.get("network") and plan.get("input"):
            return plan["network"], input_shape or "x".join(map(str, plan["input"]))
    return None, None


def _curve(model: CostModel, runs: list[Path]) -> pd.DataFrame | None:
    """The learning curve; None, with a warning, where there are too few ops for one."""
    from costmodels.learning_curve import learning_curve  # noqa: PLC0415
    from costmodels.measured import read  # noqa: PLC0415
    from costmodels.runs import split_runs  # noqa: PLC0415

    with progress(1, "learning curve") as ticker:

        def show(done: int, total: int) -> None:
            ticker.grow(total - ticker.total)
            ticker.advance(done - ticker.done)

        try:
            return learning_curve(read(split_runs(runs)[0], model.caches), work=model.work, on_step=show)
        except UserError as error:
            warn(f"the report has no learning curve: {error}")
            return None
