"""``costmodels evaluate``: how well a model predicts what it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodels.commands.options import Json, Model, Runs, check_runs
from profiler.cli_support import message, print_json, print_table, progress, warn
from profiler.outputs import check_file

LeaveOut = Annotated[
    bool,
    typer.Option(
        "--leave-one-network-out",
        help="Judge models fitted without one of the runs' networks at a time, too. By itself where the model's fit "
        "saw every op and the runs are of several networks.",
    ),
]


def evaluate(
    model: Model,
    runs: Runs,
    leave_one_network_out: LeaveOut = False,
    json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG of predicted against measured.", show_default=False)
    ] = None,
) -> None:
    """Accuracy on ops, networks and whole steps that the fit never saw, beside the baselines.

    Runs may be of single ops and, measured by `profile step`, of whole training steps. Of ops only those are judged
    whose geometry the fit saw in no pass. Baselines learn from the ops that the model was fitted to.

    Example: costmodels evaluate an500.model runs/an500 runs/an500-steps --plot accuracy.png
    """
    check_runs(runs)
    if plot is not None:
        check_file(plot, "the plot", "--plot", makes_folders=True)
    from costmodels import evaluate_tables as tables  # noqa: PLC0415  (scikit-learn takes seconds: not for --help)
    from costmodels.evaluate import LEFT_OUT, NETWORKS_LEFT_OUT  # noqa: PLC0415
    from costmodels.evaluate_points import TARGETS  # noqa: PLC0415
    from costmodels.evaluate_runs import evaluate_runs  # noqa: PLC0415
    from costmodels.evaluate_steps import step_summary  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415
    from costmodels.plots import energy_note, predicted_against_measured, timer_note  # noqa: PLC0415

    with progress(1, "evaluating", quiet=json) as ticker:

        def show(done: int, fits: int, left_out: str) -> None:
            ticker.grow(fits - ticker.total)
            ticker.advance(done - ticker.done, note=f"fitting without {left_out}")

        result, step_table = evaluate_runs(
            CostModel.load(model), runs, leave_one_network_out=leave_one_network_out, on_fit=show
        )
    steps = step_summary(step_table)
    if plot is not None:
        predicted_against_measured(result, plot)
        message(f"plot written to {plot}")
    if json:
        print_json(result.to_dict() | {"steps": steps})
        return
    if result.judged_on in (LEFT_OUT, NETWORKS_LEFT_OUT):
        without = "one of the networks" if result.judged_on == NETWORKS_LEFT_OUT else "a fifth of the geometries"
        warn(
            f"the model was fitted to every op of these runs, so models without {without} at a time were judged "
            "instead; where errors are large, fit these runs together with that of a larger network"
        )
    notes = dict.fromkeys(TARGETS, timer_note(result.timer))
    notes["energy"] = f"{notes['latency']}; {energy_note(result.energy_source)}"
    for target in TARGETS:
        for title, rows in (
            (f"{target} of {result.judged_on}", tables.by_op_rows(result.points, target)),
            (f"{target} of each network's {result.judged_on}", tables.network_rows(result, target)),
            (f"{target} of whole networks that the fit was without", tables.left_out_rows(result, target)),
        ):
            if rows:
                print_table(rows, title=f"{result.device}: {title}", caption=notes[target])
    print_table(
        tables.overall_rows(result.points),
        title=f"{result.device}: all {result.judged_on}",
        caption=f"{notes['energy' if len(result.points['energy']) else 'latency']}; ops without MACs: c × MACs and "
        "linear in MACs charge the words they move instead",
    )
    if steps is not None:
        print_table(
            tables.step_rows(steps), title=f"{result.device}: {steps['n']} whole steps", caption=notes["latency"]
        )
