"""``costmodels``: fit, evaluate and use cost models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, parse_input_shape, print_json, print_table, progress, run_app, warn
from profiler.errors import UserError

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit what was measured; predict what ops and training steps cost.\n\n"
    "Example: costmodels fit runs/an500 --out an500.model",
)

Runs = Annotated[list[Path], typer.Argument(help="Folders of runs of one device.", show_default=False)]
Model = Annotated[Path, typer.Argument(help="Folder of a fitted model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]


@app.command()
def fit(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Folder to write the model into.", show_default=False)],
    include_held_out: Annotated[
        bool, typer.Option("--include-held-out", help="Fit on every op; the model then has no honest accuracy.")
    ] = False,
    caches: Annotated[
        str | None,
        typer.Option(metavar="warm|cold", help="Which ops, where the runs were timed with both.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Fit a cost model to runs.

    Example: costmodels fit runs/an500 --out an500.model
    """
    if caches not in (None, "warm", "cold"):
        raise UserError(f"--caches {caches!r} is unknown", hint="there are warm and cold", exit_status=2)
    from costmodels.model import CostModel  # noqa: PLC0415  (scipy and scikit-learn take seconds: not for --help)
    from costmodels.plots import timer_note  # noqa: PLC0415

    with progress(1, "fitting groups of ops", quiet=json) as ticker:

        def show(done: int, groups: int, key: str) -> None:
            ticker.grow(groups - ticker.total)
            ticker.advance(done - ticker.done, note=key)

        model = CostModel().fit(runs, include_held_out=include_held_out, on_group=show, caches=caches)
    model.save(out)
    card = model.card_
    groups = [
        {
            "group": key,
            "n_ops": group.regressor.n_ops_,
            "cv_error_percent": group.regressor.cv_error_percent_,
            "residual_process": group.regressor.process_ is not None,
        }
        for key, group in sorted(model.groups_.items())
    ]
    if json:
        summary = {
            name: card[name] for name in ("device", "timer", "caches", "n_ops", "us_per_mac", "held_out_accuracy")
        }
        print_json({"model": out, **summary, "groups": groups})
        return
    note = timer_note(card["timer"])
    print_table(groups, title=f"{card['device']}: {card['n_ops']} ops fitted", caption=note)
    if card["held_out_accuracy"]:
        figures = card["held_out_accuracy"]
        print_table([figures], title="Held-out ops", caption=note)
    message(f"model written to {out}")


@app.command()
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


@app.command()
def predict(
    model: Model,
    network: Annotated[
        str | None, typer.Option(help="Built-in name or module:factory; by default the plan's.", show_default=False)
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input", help="Channels x height x width; by default the plan's, or 3x64x64.", show_default=False
        ),
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Step plan; by default everything trains.")] = None,
    json: Json = False,
) -> None:
    """Cost of a training step, op by op.

    Example: costmodels predict an500.model --network mcunet-5fps --input 3x64x64 --plan plan.json
    """
    from costmodels.model import CostModel  # noqa: PLC0415
    from costmodels.plots import timer_note  # noqa: PLC0415
    from profiler.workloads.lower import load_network  # noqa: PLC0415
    from profiler.workloads.plan import LayerPlan, StepPlan  # noqa: PLC0415

    costs = CostModel.load(model)
    step_plan = None if plan is None else StepPlan.load(plan)
    if network is None and step_plan is None:
        raise UserError("there is nothing to predict", hint="give --network, --plan, or both", exit_status=2)
    shape = parse_input_shape(input_shape or "3x64x64") if input_shape or not step_plan else step_plan.input_shape
    _, lowered = load_network(network or step_plan.network, shape)
    if step_plan is None:
        layers = {
            layer.name: LayerPlan(tuple(range(layer.geometry.channels("out"))), bias=bool(layer.geometry.bias_elements))
            for layer in lowered.trainable
        }
        step_plan = StepPlan.for_network(lowered, layers)
    cost = costs.step(lowered, step_plan)
    if json:
        print_json(
            {
                "model": costs.label,
                "timer": costs.card_["timer"],
                "network": lowered.name,
                "latency_ms": cost.latency_ms,
                "latency_std_ms": cost.latency_std_ms,
                "energy_mj": cost.energy_mj,
                "memory_bytes": cost.memory_bytes,
                "ops": list(cost.rows),
            }
        )
        return
    note = timer_note(costs.card_["timer"])
    print_table(cost.table, title=f"{lowered.name}: one training step on {costs.card_['device']}", caption=note)
    by_pass = cost.table.groupby("pass", sort=False)["latency_ms"].sum().reset_index()
    print_table(by_pass, title="By pass", caption=note)
    message(
        f"step: {cost.latency_ms:,.2f} ± {cost.latency_std_ms:,.2f} ms, {cost.memory_bytes:,} bytes of memory ({note})"
    )


def main() -> None:
    run_app(app, "costmodels")


if __name__ == "__main__":
    main()
