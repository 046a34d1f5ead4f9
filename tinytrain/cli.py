"""``tinytrain``: choose what to train on the device, and train it in torch."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from profiler.cli_support import message, parse_input_shape, print_json, print_table, progress, run_app, warn
from profiler.errors import UserError

app = typer.Typer(
    add_completion=False,
    help=(
        "Few-shot, task-adaptive sparse training: choose layers and channels for one task, and train them.\n\n"
        "Example: tinytrain select --costs an500.model --latency-ms 1500"
    ),
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

NetworkOption = Annotated[str, typer.Option(help="mcunet-5fps, mbv2-w0.35, proxyless-w0.3, or module:factory.")]
InputOption = Annotated[str, typer.Option("--input", help="Channels x height x width of an image.")]
DataOption = Annotated[
    str | None,
    typer.Option(help="Folder with weights/ and images/, or `embedded`; else TINYTRAIN_DATA, a cache, or embedded."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]


@app.command(
    epilog="Example: tinytrain select --network mcunet-5fps --input 3x64x64 --costs an500.model --latency-ms 1500 "
    "--out plan.json"
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
    _check_rate(learning_rate)
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


@app.command(epilog="Example: tinytrain adapt --plan plan.json --steps 40")
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
    _check_rate(learning_rate)
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


def cost_source(costs: str, us_per_mac: float | None, scale_from: Path | None, accounting: str):
    """The cost source that the options describe.

    Raises:
        UserError: no such model, options that contradict each other, or analytical costs without a scalar.
    """
    from costmodels.analytical import AnalyticalCosts  # noqa: PLC0415
    from costmodels.model import CostModel  # noqa: PLC0415

    if costs != "analytical":
        if us_per_mac is not None or scale_from is not None:
            raise UserError(
                "--us-per-mac and --scale-from belong to --costs analytical",
                hint="leave them out with a cost model",
                exit_status=2,
            )
        return CostModel.load(Path(costs))
    if accounting not in ("own", "chain"):
        raise UserError(f"there is no accounting {accounting!r}", hint="give own or chain", exit_status=2)
    if (us_per_mac is None) == (scale_from is None):
        raise UserError(
            "analytical costs are MACs, and a budget in ms needs the time that one takes",
            hint="give one of --scale-from MODEL_DIR and --us-per-mac F",
            exit_status=2,
        )
    if scale_from is not None:
        card = CostModel.load(scale_from).card_
        if card.get("us_per_mac") is None:
            raise UserError(f"the cost model {scale_from} has no time per MAC", hint="give --us-per-mac F instead")
        return AnalyticalCosts(card["us_per_mac"], accounting, f"{card['device']}, timer: {card['timer']}")
    if not (us_per_mac > 0 and math.isfinite(us_per_mac)):
        raise UserError(f"{us_per_mac} us a MAC", hint="give --us-per-mac above 0", exit_status=2)
    return AnalyticalCosts(us_per_mac, accounting)


def _check_rate(learning_rate: float | None) -> None:
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise UserError(f"a learning rate of {learning_rate}", hint="give --learning-rate above 0", exit_status=2)


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


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry of the console script."""
    run_app(app, "tinytrain", arguments)


if __name__ == "__main__":
    main()
