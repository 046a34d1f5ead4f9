"""``tinytrain adapt``: a plan trained in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, print_json, print_table, progress
from tinytrain.commands.options import DataOption, JsonOption, check_learning_rate


def adapt(
    *,
    plan: Annotated[Path, typer.Option(help="The step plan.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 40,
    learning_rate: Annotated[float | None, typer.Option(help="Instead of the plan's.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images a step, instead of the plan's.")] = None,
    ways: Annotated[int | None, typer.Option(min=2, help="By default those of the plan.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help="By default those that the plan was chosen with, or 5.")
    ] = None,
    episode: Annotated[
        int | None, typer.Option(min=0, help="By default the one that the plan was chosen with, or 0.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="By default the one that the plan was chosen with.")] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a plan's channels on an episode in torch; query accuracy before and after."""
    from profiler.workloads.plan import StepPlan  # noqa: PLC0415
    from tinytrain import adaptation  # noqa: PLC0415
    from tinytrain.tasks import prepare  # noqa: PLC0415

    chosen = StepPlan.load(plan)
    noted = chosen.notes.get("episode")
    noted = noted if isinstance(noted, dict) else {}
    check_learning_rate(learning_rate)
    ready = prepare(
        chosen.network,
        chosen.input_shape,
        data_folder=data,
        dataset=dataset or noted.get("dataset"),
        seed=noted.get("seed", 0) if episode is None else episode,
        ways=ways or chosen.head.classes,
        shots=shots or noted.get("shots", 5),
        tell=message,
    )
    with progress(steps, "training", quiet=as_json) as ticker:
        result = adaptation.adapt(
            ready, chosen, steps=steps, learning_rate=learning_rate, images=images, advance=ticker.advance
        )
    if as_json:
        print_json(result.to_dict() | {"data": ready.data, "plan": plan})
    else:
        print_table(
            [result.to_dict()],
            title=f"{chosen.network}, {ready.episode.dataset} episode {ready.episode.seed}",
            caption=f"data: {ready.data}",
        )
