"""``costmodels fit``: a cost model from runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from costmodels.commands.options import Json, Runs
from profiler.cli_support import message, print_json, print_table, progress
from profiler.errors import UserError


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
    from costmodels.estimators import METHODS  # noqa: PLC0415
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
        return
    note = timer_note(card["timer"])
    print_table(groups, title=f"{card['device']}: {card['n_ops']} ops fitted", caption=note)
    if card["held_out_accuracy"]:
        figures = card["held_out_accuracy"]
        print_table([figures], title="Held-out ops", caption=note)
    if model.steps.context.n_steps:
        print_table(model.steps.summary(), title="Whole steps, each judged by a fit to the others", caption=note)
    message(f"model written to {out}")
