"""``tinytrain select``: what to train for a task under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, print_json, print_table, progress, warn
from profiler.commands.options import DEFAULT_RATIOS, parse_ratios
from profiler.outputs import check_file
from tinytrain.commands import options, plan_options


def select(
    *,
    network: options.NetworkOption = "mcunet-5fps",
    input_shape: options.InputOption = "3x64x64",
    costs: Annotated[
        str, typer.Option(metavar="analytical|MODEL", help="`analytical` or the folder of a fitted cost model.")
    ],
    latency_ms: plan_options.LatencyLimitOption = None,
    energy_mj: plan_options.EnergyLimitOption = None,
    memory_bytes: plan_options.MemoryLimitOption = None,
    confidence: plan_options.ConfidenceOption = plan_options.DEFAULT_CONFIDENCE,
    solver: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="`exact`: the most Fisher information that the budget allows; `greedy`: TinyTrain's, layers by score; "
            "`marginal`: greedily, gain for what it adds to the step; `biases`: no weights, the biases of as many last "
            "layers as the budget allows.",
        ),
    ] = "exact",
    denominator: Annotated[
        str | None,
        typer.Option(
            metavar="published|device",
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
    us_per_mac: plan_options.UsPerMacOption = None,
    scale_from: plan_options.ScaleFromOption = None,
    accounting: plan_options.AccountingOption = "own",
    ways: Annotated[int, typer.Option(min=2, metavar="N", help="Classes of the episode.")] = 5,
    shots: options.ShotsOption = 5,
    episode: Annotated[int, typer.Option(min=0, metavar="SEED", help="Seed of the episode.")] = 0,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="omniglot, gtsrb, dtd, digits, or a folder; by default the source's own."),
    ] = None,
    data: options.DataOption = None,
    weights: options.WeightsOption = None,
    ratios: plan_options.RatiosOption = DEFAULT_RATIOS,
    inspect: plan_options.InspectOption = plan_options.DEFAULT_INSPECTED_SHARE,
    last_biases: Annotated[
        int, typer.Option(min=0, metavar="K", help="Biases of so many last layers train in any case.")
    ] = 0,
    dtype: plan_options.DtypeOption = "f32",
    savings: plan_options.SavingsOption = None,
    optimizer: plan_options.OptimizerOption = None,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Of the update.")] = 1e-3,
    images: plan_options.ImagesOption = 1,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Training steps of the task, to tell what all of it costs.")
    ] = 40,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show of each layer potential, costs, scores, and why it was taken or not."),
    ] = False,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the step plan goes.")] = Path("plan.json"),
    as_json: options.JsonOption = False,
) -> None:
    """Choose layers and channels for one episode under a budget, and write the step plan."""
    budget = plan_options.check_budget(latency_ms, energy_mj, memory_bytes, confidence)
    plan_options.check_choice("solver", solver, ("exact", "greedy", "marginal", "biases"))
    plan_options.check_choice("denominator", denominator or "device", ("published", "device"))
    optimizer = plan_options.chosen_optimizer(optimizer, dtype)
    options.check_learning_rate(learning_rate)
    saved = plan_options.parse_savings(savings, dtype, images, optimizer)
    shares = parse_ratios(ratios)
    shape = options.image_shape(input_shape)
    check_file(out, "the step plan")
    asked = options.costs_option(costs, us_per_mac, scale_from, accounting)
    from costmodels.layers import extrapolated, layer_passes, remedy  # noqa: PLC0415  (takes seconds: not for --help)
    from costmodels.model import CostModel  # noqa: PLC0415
    from tinytrain import show  # noqa: PLC0415
    from tinytrain.explain import explain as reasons  # noqa: PLC0415
    from tinytrain.fisher import fisher_information  # noqa: PLC0415
    from tinytrain.selection import inspected_layers, select_biases, step_table  # noqa: PLC0415
    from tinytrain.selection import last_biases as biases  # noqa: PLC0415
    from tinytrain.selection import select as choose  # noqa: PLC0415
    from tinytrain.selection_task import task_parts  # noqa: PLC0415
    from tinytrain.tasks import prepare  # noqa: PLC0415
    from tinytrain.training import pseudo_query  # noqa: PLC0415

    with progress(4, "selecting", quiet=as_json) as ticker:
        ticker.note("loading the episode")
        ready = prepare(
            network,
            shape,
            data_folder=data,
            weights_file=weights,
            dataset=dataset,
            seed=episode,
            ways=ways,
            shots=shots,
            tell=message,
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
    plan_options.save_plan(plan, out)
    why = reasons(selection, information) if explain else None
    if as_json:
        print_json(show.record(selection, source, ready, out=out, task=task, why=why))
    else:
        if why is not None:
            show.why_table(why, source, print_table)
        show.tables(selection, source, ready, task, print_table)
        message(f"step plan written to {out} (chosen in {selection.seconds:.2f} s)")
    if isinstance(source, CostModel):
        passes = layer_passes(source, ready.network, selection.plan, selection.cost)
        if guessed := extrapolated(passes):
            warn(f"{guessed}; {remedy(passes)}")
