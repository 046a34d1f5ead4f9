"""``tinytrain adapt``: a plan trained in torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler.cli_support import message, print_json, print_table, progress, warn
from profiler.errors import UserError
from profiler.outputs import check_file
from tinytrain.commands.options import (
    DataOption,
    InputOption,
    JsonOption,
    NetworkOption,
    WeightsOption,
    check_learning_rate,
    image_shape,
)

if TYPE_CHECKING:
    from profiler.workloads.plan import StepPlan


def adapt(
    *,
    plan: Annotated[Path | None, typer.Option(metavar="PLAN.json", help="The step plan.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead of a plan: none, full, last, biases, tinytl, adapters or sparse-update:SCHEME, on --network.",
        ),
    ] = None,
    network: NetworkOption = "mcunet-5fps",
    input_shape: InputOption = "3x64x64",
    apply: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of training, apply the changes that --out saved (and their plan)."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps.")] = 40,
    learning_rate: Annotated[float | None, typer.Option(metavar="RATE", help="Instead of the plan's.")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images a step, instead of the plan's.")
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Augmented versions of every support image, whose frozen activations are kept; else augmented anew.",
        ),
    ] = None,
    ways: Annotated[int | None, typer.Option(min=2, metavar="N", help="By default those of the plan.")] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="By default those that the plan was chosen with, or 5.")
    ] = None,
    episode: Annotated[
        int | None, typer.Option(min=0, metavar="SEED", help="By default the one that the plan was chosen with, or 0.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="By default the one that the plan was chosen with.")
    ] = None,
    data: DataOption = None,
    weights: WeightsOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the changed values go (.npz), and nothing else.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a plan, or a method that needs none, on an episode in torch; query accuracy before and after."""
    from profiler.workloads.plan import StepPlan  # noqa: PLC0415
    from tinytrain import adaptation, episodes  # noqa: PLC0415
    from tinytrain.baselines import edited, find_method  # noqa: PLC0415
    from tinytrain.delta import Delta  # noqa: PLC0415
    from tinytrain.tasks import prepare  # noqa: PLC0415

    if [plan, method, apply].count(None) != 2 or (apply is not None and out is not None):
        raise UserError(
            "what to train is not clear",
            hint="give one of --plan, --method and --apply, the last without --out",
            exit_status=2,
        )
    check_learning_rate(learning_rate)
    if out is not None:
        check_file(out, "what is trained")
    delta = None if apply is None else Delta.load(apply)
    chosen = delta.plan if delta is not None else StepPlan.load(plan) if plan is not None else None
    noted = {} if chosen is None else _noted_episode(chosen)
    trains = None if method is None else find_method(method)
    ready = prepare(
        network if chosen is None else chosen.network,
        image_shape(input_shape) if chosen is None else chosen.input_shape,
        data_folder=data,
        weights_file=weights,
        dataset=dataset or noted.get("dataset"),
        seed=noted.get("seed", 0) if episode is None else episode,
        ways=ways or (5 if chosen is None else chosen.head.classes),
        shots=shots or noted.get("shots", 5),
        tell=message,
    )
    if chosen is None:
        ready, chosen = trains.prepare(ready, images=images or len(ready.episode.support))
        chosen.notes["episode"] = ready.episode.summary
    else:
        ready = edited(ready, chosen.edits)
    if delta is not None:
        before = episodes.accuracy(ready.model, ready.task, ready.episode.ways)
        delta.apply(ready.model, ready.network)
        record = {
            "applied_values": sum(len(value) for value in delta.values.values()),
            "accuracy_before_percent": 100 * before,
            "accuracy_after_percent": 100 * episodes.accuracy(ready.model, ready.task, ready.episode.ways),
        }
    else:
        if chosen.dtype != "f32":
            warn(f"the plan's step is {chosen.dtype} on the device; here its channels are trained in float32")
        with progress(steps, "training", quiet=as_json) as ticker:
            result, changed = adaptation.adapt(
                ready,
                chosen,
                steps=steps,
                learning_rate=learning_rate,
                images=images,
                pool=pool,
                advance=ticker.advance,
            )
        record = result.to_dict()
        if out is not None:
            record |= {"delta": str(out), "delta_bytes": changed.save(out)}
    if as_json:
        print_json(record | {"data": ready.data, "plan": plan or apply, "method": method})
    else:
        print_table(
            [record],
            title=f"{chosen.network}, {ready.episode.dataset} episode {ready.episode.seed}",
            caption=f"data: {ready.data}",
        )


def _noted_episode(plan: StepPlan) -> dict[str, Any]:
    """``dataset``, ``seed`` and ``shots`` of the task that the plan was chosen for, as far as its notes say."""
    noted = plan.notes.get("episode")
    noted = noted if isinstance(noted, dict) else {}
    found = {"dataset": noted["dataset"]} if isinstance(noted.get("dataset"), str) else {}
    for key, least in (("seed", 0), ("shots", 1)):
        if isinstance(noted.get(key), int) and noted[key] >= least:
            found[key] = noted[key]
    return found
