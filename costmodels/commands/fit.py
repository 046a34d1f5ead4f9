"""``costmodels fit``: a cost model from runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from costmodels.commands.options import Json, SomeRuns, check_runs
from costmodels.commands.outputs import check_model
from profiler.cli_support import message, print_json, print_table, progress, warn
from profiler.errors import UserError

if TYPE_CHECKING:
    from costmodels.model import CostModel


def fit(
    runs: SomeRuns = None,
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the model into.", show_default=False)],
    include_held_out: Annotated[
        bool, typer.Option("--include-held-out", help="Fit on every op; the model then has no honest accuracy.")
    ] = False,
    caches: Annotated[
        str | None,
        typer.Option(metavar="warm|cold", help="Which ops, where the runs were timed with both.", show_default=False),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="MODEL", help="Begin at another device's model: a dozen ops are enough."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Instead of runs: a table with the columns of `profile import`.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What of the table is fitted: a column of time or energy. [default: latency_us]",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Fit a cost model to runs, or to a table.

    Of each kind, pass and dtype of op the estimator is taken that predicts geometries best that it did not see.

    Example: costmodels fit runs/an500 --out an500.model
    """
    if bool(runs) == (table is not None):
        raise UserError(
            "there is nothing to fit" if table is None else "runs and a table are not fitted together",
            hint="give folders of runs, or --table FILE --target COLUMN",
            exit_status=2,
        )
    for option, given, belongs in (("--target", target, table is not None), ("--caches", caches, table is None)):
        if given is not None and not belongs:
            raise UserError(
                f"{option} {given} is for {'--table FILE' if option == '--target' else 'runs'}",
                hint="leave it out",
                exit_status=2,
            )
    if caches not in (None, "warm", "cold"):
        raise UserError(f"--caches {caches!r} is unknown", hint="there are warm and cold", exit_status=2)
    check_runs(runs or ())
    check_model(out)
    from costmodels.estimators import METHODS  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415  (scipy and scikit-learn take seconds: not for --help)
    from costmodels.tables import read_measured_table  # noqa: PLC0415

    with progress(1, "fitting groups of ops", quiet=json) as ticker:

        def show(done: int, groups: int, key: str) -> None:
            ticker.grow(groups - ticker.total)
            ticker.advance(done - ticker.done, note=key)

        options = {"include_held_out": include_held_out, "on_group": show, "start": start and CostModel.load(start)}
        if table is None:
            model = CostModel().fit(runs, caches=caches, **options)
        else:
            model = CostModel().fit(read_measured_table(table, target or "latency_us"), **options)
    model.save(out)
    card = model.card_
    groups = [
        {
            "group": key,
            "n_ops": group.regressor_.n_ops_,
            "estimator": group.regressor_.method_,
            "cv_error_percent": group.regressor_.cv_error_percent_,
            **{f"{name} %": group.regressor_.scores_percent_.get(name) for name in METHODS},
        }
        for key, group in sorted(model.targets["latency"].groups.items())
    ]
    if json:
        summary = {
            name: card[name] for name in ("device", "timer", "caches", "n_ops", "us_per_mac", "held_out_accuracy")
        }
        print_json({"model": out, **summary, "groups": groups})
    else:
        _tables(model, groups)
        message(f"model written to {out}")
    if unfitted := card.get("held_out_groups"):
        warn(
            f"every measured op of {', '.join(unfitted)} is held out: these are predicted from other kernels; profile "
            "more networks, or --include-held-out"
        )


def _tables(model: CostModel, groups: list[dict[str, object]]) -> None:
    from costmodels.plots import timer_note  # noqa: PLC0415

    card = model.card_
    note = timer_note(card["timer"])
    print_table(
        groups,
        title=f"{card['device']}: {card['n_ops']} ops fitted",
        caption=f"{note}; % of each estimator: of the cross-validation that chooses among them; cv_error_percent: "
        "of one around it, of ops that had no part in choosing",
    )
    if card["held_out_accuracy"]:
        figures = card["held_out_accuracy"]
        print_table([figures], title="Held-out ops", caption=note)
    if model.steps.context.n_steps:
        print_table(model.steps.summary(), title="Whole steps, each judged by a fit to the others", caption=note)
