"""``tinytrain select``: what to train for a task under a budget."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, parse_input_shape, print_json, print_table, progress, warn
from profiler.errors import UserError
from tinytrain.commands.options import (
    DataOption,
    InputOption,
    JsonOption,
    NetworkOption,
    check_learning_rate,
    cost_source,
)


def select(
    *,
    network: NetworkOption = "mcunet-5fps",
    input_shape: InputOption = "3x64x64",
    costs: Annotated[str, typer.Option(help="`analytical` or the folder of a fitted cost model.")],
    latency_ms: Annotated[float, typer.Option(help="Most milliseconds that one training step may take.")],
    memory_bytes: Annotated[int | None, typer.Option(help="Most bytes that one training step may need.")] = None,
    confidence: Annotated[
        float, typer.Option(help="With which a step stays below --latency-ms, by the cost model's own uncertainty.")
    ] = 0.95,
    us_per_mac: Annotated[
        float | None, typer.Option(help="For analytical costs: microseconds a MAC takes on the device.")
    ] = None,
    scale_from: Annotated[
        Path | None, typer.Option(help="For analytical costs: cost model whose one scalar (us per MAC) is taken.")
    ] = None,
    accounting: Annotated[
        str,
        typer.Option(help="For analytical costs: count layers' `own` MACs, as published, or the whole `chain`."),
    ] = "own",
    ways: Annotated[int, typer.Option(min=2, help="Classes of the episode.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support images a class.")] = 5,
    episode: Annotated[int, typer.Option(min=0, help="Seed of the episode.")] = 0,
    dataset: Annotated[
        str | None, typer.Option(help="omniglot, gtsrb, dtd or digits; by default what the data source is for.")
    ] = None,
    data: DataOption = None,
    ratios: Annotated[str, typer.Option(help="Shares of a layer's channels that may be trained.")] = "1/8,1/4,1/2,1",
    inspect: Annotated[float, typer.Option(help="Share of the layers to choose from, counted from the last.")] = 0.44,
    optimizer: Annotated[str, typer.Option(help="adam or sgd.")] = "adam",
    learning_rate: Annotated[float, typer.Option(help="Of the update.")] = 1e-3,
    images: Annotated[int, typer.Option(min=1, help="Images in the batch of one step.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the step plan goes.")] = Path("plan.json"),
    as_json: JsonOption = False,
) -> None:
    """Choose layers and channels for one episode under a budget, and write the step plan."""
    from tinytrain import show  # noqa: PLC0415  (torch takes seconds, and --help should not)
    from tinytrain.fisher import fisher_information  # noqa: PLC0415
    from tinytrain.selection import Budget, inspected_layers  # noqa: PLC0415
    from tinytrain.selection import select as choose  # noqa: PLC0415
    from tinytrain.tasks import prepare  # noqa: PLC0415
    from tinytrain.training import pseudo_query  # noqa: PLC0415

    if not latency_ms > 0 or (memory_bytes is not None and memory_bytes < 1):
        raise UserError("a budget of nothing", hint="give --latency-ms and --memory-bytes above 0", exit_status=2)
    if not 0.5 <= confidence < 1:
        raise UserError(f"a confidence of {confidence}", hint="give --confidence from 0.5 to below 1", exit_status=2)
    if optimizer not in ("adam", "sgd"):
        raise UserError(f"there is no optimizer {optimizer!r}", hint="give adam or sgd", exit_status=2)
    check_learning_rate(learning_rate)
    shares = _ratios(ratios)
    shape = parse_input_shape(input_shape)
    source = cost_source(costs, us_per_mac, scale_from, accounting)

    with progress(3, "selecting", quiet=as_json) as ticker:
        ticker.note("loading the episode")
        ready = prepare(
            network, shape, data_folder=data, dataset=dataset, seed=episode, ways=ways, shots=shots, tell=message
        )
        ticker.advance(note="Fisher information")
        layers = inspected_layers(ready.network, inspect)
        information = fisher_information(
            ready.model,
            layers,
            pseudo_query(ready.task.support, episode),
            ready.task.support_labels,
            head=ready.head,
            prototypes=ready.prototypes,
        )
        ticker.advance(note="choosing layers and channels")
        start = time.monotonic()
        selection = choose(
            ready.network,
            information,
            source,
            Budget(latency_ms, memory_bytes, confidence),
            ratios=shares,
            head=ready.head,
            images=images,
            optimizer=optimizer,
            learning_rate=learning_rate,
        )
        selection_s = time.monotonic() - start
        ticker.advance()
    plan = show.with_notes(selection, source, ready, ratios=shares, inspected=inspect)
    try:
        plan.save(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}", hint="give --out a file that you can write") from None
    if as_json:
        print_json(show.record(selection, source, ready, out=out, selection_s=selection_s))
    else:
        show.tables(selection, source, ready, print_table)
        message(f"step plan written to {out} (chosen in {selection_s:.2f} s)")
    extrapolated = sorted({str(row["layer"]) for row in selection.cost.rows if row["extrapolates"]})
    if extrapolated:
        warn(
            f"{', '.join(extrapolated)}: outside the range of the ops that the cost model was fitted to (where this "
            "network was profiled, they are its held-out ops); `costmodels fit --include-held-out` fits all of a run"
        )


def _ratios(text: str) -> list[float]:
    values = []
    for part in text.split(","):
        numerator, _, denominator = part.strip().partition("/")
        try:
            values.append(float(numerator) / float(denominator or 1))
        except (ValueError, ZeroDivisionError):
            raise UserError(
                f"--ratios {text!r} is no list of shares", hint="give for example --ratios 1/8,1/4,1/2,1", exit_status=2
            ) from None
    return values
