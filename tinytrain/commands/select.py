"""``tinytrain select``: what to train for a task under a budget."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, parse_input_shape, print_json, print_table, progress, warn
from profiler.errors import UserError
from tinytrain.budget import Budget
from tinytrain.commands.options import (
    DataOption,
    InputOption,
    JsonOption,
    NetworkOption,
    check_learning_rate,
    costs_option,
)


def select(
    *,
    network: NetworkOption = "mcunet-5fps",
    input_shape: InputOption = "3x64x64",
    costs: Annotated[str, typer.Option(help="`analytical` or the folder of a fitted cost model.")],
    latency_ms: Annotated[
        float | None, typer.Option(help="Most milliseconds that one training step may take.", show_default=False)
    ] = None,
    energy_mj: Annotated[
        float | None, typer.Option(help="Most millijoules that one training step may take.", show_default=False)
    ] = None,
    memory_bytes: Annotated[
        int | None, typer.Option(help="Most bytes that one training step may need.", show_default=False)
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(help="With which a step stays below --latency-ms and --energy-mj, by the cost model's intervals."),
    ] = 0.95,
    solver: Annotated[
        str,
        typer.Option(
            help="`exact`: the most Fisher information that the budget allows; `greedy`: TinyTrain's, layers by score; "
            "`marginal`: greedily, gain for what it adds to the step; `biases`: no weights, the biases of as many last "
            "layers as the budget allows."
        ),
    ] = "exact",
    denominator: Annotated[
        str | None,
        typer.Option(
            help="Of the scores: `published` (weights and MACs) or `device` (bytes kept and predicted latency). "
            "[default: published with analytical costs, else device]",
            show_default=False,
        ),
    ] = None,
    frontier: Annotated[
        bool | None,
        typer.Option(
            help="Count the gradients of all later layers in scores (by default not) and in the marginal solver's "
            "prices (by default so).",
            show_default=False,
        ),
    ] = None,
    us_per_mac: Annotated[
        float | None, typer.Option(help="For analytical costs: microseconds a MAC takes on the device.")
    ] = None,
    scale_from: Annotated[
        Path | None,
        typer.Option(
            help="For analytical costs: MACs become milliseconds by the one scalar with which the full step "
            "(everything trained) costs what it took in this run of `profile step`, or what this cost model says."
        ),
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
    last_biases: Annotated[int, typer.Option(min=0, help="Biases of so many last layers train in any case.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="f32, or s8: int8 forward, float32 gradients against int8 weights.")
    ] = "f32",
    savings: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="With --dtype s8, ways to need less memory, with commas between: stream, in_place, fused_update, "
            "recompute_masks.",
            show_default=False,
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adam or sgd. [default: adam, with --dtype s8 sgd]", show_default=False)
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Of the update.")] = 1e-3,
    images: Annotated[int, typer.Option(min=1, help="Images in the batch of one step.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the task, to tell what all of it costs.")] = 40,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show of each layer potential, costs, scores, and why it was taken or not."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Where the step plan goes.")] = Path("plan.json"),
    as_json: JsonOption = False,
) -> None:
    """Choose layers and channels for one episode under a budget, and write the step plan."""
    from tinytrain import show  # noqa: PLC0415  (torch takes seconds, and --help should not)
    from tinytrain.explain import explain as reasons  # noqa: PLC0415
    from tinytrain.fisher import fisher_information  # noqa: PLC0415
    from tinytrain.selection import inspected_layers, select_biases, step_table  # noqa: PLC0415
    from tinytrain.selection import last_biases as biases  # noqa: PLC0415
    from tinytrain.selection import select as choose  # noqa: PLC0415
    from tinytrain.selection_task import task_parts  # noqa: PLC0415
    from tinytrain.tasks import prepare  # noqa: PLC0415
    from tinytrain.training import pseudo_query  # noqa: PLC0415

    budget = check_budget(latency_ms, energy_mj, memory_bytes, confidence)
    check_choice("solver", solver, ("exact", "greedy", "marginal", "biases"))
    check_choice("denominator", denominator or "device", ("published", "device"))
    check_choice("dtype", dtype, ("f32", "s8"))
    check_choice("optimizer", optimizer or "adam", ("adam", "sgd"))
    check_learning_rate(learning_rate)
    optimizer = optimizer or ("sgd" if dtype == "s8" else "adam")
    saved = parse_savings(savings, dtype, images, optimizer)
    shares = parse_ratios(ratios)
    shape = parse_input_shape(input_shape)
    asked = costs_option(costs, us_per_mac, scale_from, accounting)

    with progress(4, "selecting", quiet=as_json) as ticker:
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
        ticker.advance(note="what steps cost")
        settings = {
            "head": ready.head,
            "images": images,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "dtype": dtype,
            "savings": saved,
        }
        source = asked.source(ready.network, **settings)
        table = step_table(
            ready.network,
            layers,
            source,
            ratios=shares,
            energy="energy_mj" in budget.limits,
            layers=biases(ready.network, last_biases),
            **settings,
        )
        ticker.advance(note="choosing layers and channels")
        if solver == "biases":
            selection = select_biases(information, table, budget, ratios=shares, denominator=denominator)
        else:
            selection = choose(
                information, table, budget, ratios=shares, solver=solver, denominator=denominator, frontier=frontier
            )
        inspected = () if solver == "biases" else layers
        task = task_parts(
            source, ready.network, selection.plan, selection.cost, inspected, support=ways * shots, steps=steps
        )
        ticker.advance()
    plan = show.with_notes(selection, source, ready, ratios=shares, inspected=inspect)
    try:
        plan.save(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}", hint="give --out a file that you can write") from None
    why = reasons(selection, information) if explain else None
    if as_json:
        print_json(show.record(selection, source, ready, out=out, task=task, why=why))
    else:
        if why is not None:
            show.why_table(why, source, print_table)
        show.tables(selection, source, ready, task, print_table)
        message(f"step plan written to {out} (chosen in {selection.seconds:.2f} s)")
    extrapolated = sorted({str(row["layer"]) for row in selection.cost.rows if row["extrapolates"]})
    if extrapolated:
        warn(
            f"{', '.join(extrapolated)}: outside the range of the ops that the cost model was fitted to (where this "
            "network was profiled, they are its held-out ops); `costmodels fit --include-held-out` fits all of a run"
        )


def check_budget(
    latency_ms: float | None, energy_mj: float | None, memory_bytes: int | None, confidence: float
) -> Budget:
    """The limits given.

    Raises:
        UserError: none, one of nothing, or a confidence out of range.
    """
    limits = {"--latency-ms": latency_ms, "--energy-mj": energy_mj, "--memory-bytes": memory_bytes}
    if all(limit is None for limit in limits.values()):
        raise UserError(
            "no budget", hint="give at least one of --latency-ms, --energy-mj and --memory-bytes", exit_status=2
        )
    if any(limit is not None and not limit > 0 for limit in limits.values()):
        raise UserError("a budget of nothing", hint=f"give {', '.join(limits)} above 0", exit_status=2)
    if not 0.5 <= confidence < 1:
        raise UserError(f"a confidence of {confidence}", hint="give --confidence from 0.5 to below 1", exit_status=2)
    return Budget(
        math.inf if latency_ms is None else latency_ms,
        memory_bytes,
        confidence,
        math.inf if energy_mj is None else energy_mj,
    )


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise UserError unless the value is one of those known."""
    if value not in known:
        given = f"{', '.join(known[:-1])} or {known[-1]}"
        raise UserError(f"there is no {name} {value!r}", hint=f"give {given}", exit_status=2)


def parse_savings(text: str | None, dtype: str, images: int, optimizer: str) -> frozenset[str]:
    """Ways to need less memory as ``stream,in_place``; UserError where one is not known or not for such a step."""
    names = frozenset(name.strip() for name in text.split(",")) if text else frozenset()
    known = ("stream", "in_place", "fused_update", "recompute_masks")
    for name in sorted(names):
        check_choice("saving", name, known)
    if names and dtype != "s8":
        raise UserError("--savings are for --dtype s8", hint="leave them away, or give --dtype s8", exit_status=2)
    if "fused_update" in names and (images != 1 or optimizer != "sgd"):
        raise UserError(
            "a fused update keeps no gradient, so it wants --images 1 and --optimizer sgd",
            hint="leave fused_update out of --savings",
            exit_status=2,
        )
    return names


def parse_ratios(text: str) -> list[float]:
    """Shares as ``1/8,1/4,1``; UserError where it is no list of them."""
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
