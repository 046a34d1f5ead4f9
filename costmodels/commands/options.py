"""Arguments and options that verbs of ``costmodels`` share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.errors import UserError
from profiler.model_cards import CARD
from profiler.store import MANIFEST

if TYPE_CHECKING:
    from profiler.workloads.plan import StepPlan

Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of runs of one device.", show_default=False)]
SomeRuns = Annotated[
    list[Path] | None, typer.Argument(metavar="RUN", help="Folders of runs of one device.", show_default=False)
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a fitted model.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of tables.")]
NetworkName = Annotated[
    str | None,
    typer.Option("--network", metavar="NAME|MODULE:FACTORY", help="By default the plan's network.", show_default=False),
]
InputShape = Annotated[
    str | None,
    typer.Option("--input", metavar="CxHxW", help="By default the plan's, or 3x64x64.", show_default=False),
]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", metavar="PLAN.json", help="Step plan; by default everything trains.", show_default=False),
]


def read_plan(plan: Path | None) -> StepPlan | None:
    """What --plan names, before anything that takes long; UserError where it is missing or no plan."""
    from profiler.workloads.plan import StepPlan  # noqa: PLC0415 - keeps --help fast

    return None if plan is None else StepPlan.load(plan)


def check_runs(runs: Iterable[Path]) -> None:
    """Raise UserError where one of them is a cost model instead of a run."""
    for run in runs:
        if (run / CARD).exists() and not (run / MANIFEST).exists():
            raise UserError(
                f"{run} is a cost model and no run",
                hint="give the folders of runs that `profile` wrote; `costmodels predict` takes a model",
            )
