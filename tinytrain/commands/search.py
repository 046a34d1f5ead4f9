"""``tinytrain search``: an update scheme found offline, once for a network and device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli_support import message, print_json, print_table, progress
from profiler.commands.options import DEFAULT_RATIOS, parse_ratios
from profiler.errors import UserError
from profiler.outputs import check_file
from tinytrain.commands import options, plan_options

if TYPE_CHECKING:
    from tinytrain.contributions import AnalysisSettings, Contributions
    from tinytrain.scheme_search import Searched


def search(
    *,
    contributions: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File of the contributions of single layers; what it lacks is measured first."
        ),
    ],
    network: options.NetworkOption = "mcunet-5fps",
    input_shape: options.InputOption = "3x64x64",
    dataset: options.SourceSetOption = None,
    data: options.DataOption = None,
    weights: options.WeightsOption = None,
    tasks: Annotated[int, typer.Option(min=1, metavar="N", help="On which every part is fine-tuned by itself.")] = 10,
    ways: Annotated[int, typer.Option(min=2, metavar="N", help="Classes of a task.")] = 5,
    shots: options.ShotsOption = 5,
    queries: options.QueriesOption = 15,
    seed: options.TaskSeedOption = 0,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps of one fine-tuning.")] = 20,
    ratios: Annotated[
        str, typer.Option(metavar="SHARES", help="Shares of a layer's input channels that may train.")
    ] = DEFAULT_RATIOS,
    inspect: plan_options.InspectOption = plan_options.DEFAULT_INSPECTED_SHARE,
    costs: Annotated[
        str | None,
        typer.Option(
            metavar="analytical|MODEL",
            help="`analytical` or the folder of a fitted cost model; without it, only measure.",
            show_default=False,
        ),
    ] = None,
    latency_ms: plan_options.LatencyLimitOption = None,
    energy_mj: plan_options.EnergyLimitOption = None,
    memory_bytes: plan_options.MemoryLimitOption = None,
    confidence: plan_options.ConfidenceOption = plan_options.DEFAULT_CONFIDENCE,
    us_per_mac: plan_options.UsPerMacOption = None,
    scale_from: plan_options.ScaleFromOption = None,
    accounting: plan_options.AccountingOption = "own",
    classes: Annotated[int, typer.Option(min=2, metavar="N", help="Of the tasks that the scheme is for.")] = 5,
    images: plan_options.ImagesOption = 1,
    optimizer: plan_options.OptimizerOption = None,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Of the plan's update.")] = 1e-3,
    dtype: plan_options.DtypeOption = "f32",
    savings: plan_options.SavingsOption = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the step plan goes.")] = Path("searched.json"),
    as_json: options.JsonOption = False,
) -> None:
    """SparseUpdate's search: the static scheme of the most contribution under a budget for one step.

    What each layer contributes is measured by training it alone, on tasks of source classes; that takes a second or
    two a layer, ratio and task, and goes on where it was.
    """
    from profiler.workloads.lower import load_network  # noqa: PLC0415  (torch takes seconds, and --help should not)
    from profiler.workloads.plan import Head  # noqa: PLC0415
    from tinytrain.contributions import AnalysisSettings  # noqa: PLC0415
    from tinytrain.scheme_search import search as find  # noqa: PLC0415

    shape = options.image_shape(input_shape)
    shares = parse_ratios(ratios)
    budget = asked = None
    limits = (latency_ms, energy_mj, memory_bytes)
    if costs is not None:
        budget = plan_options.check_budget(*limits, confidence)
        optimizer = plan_options.chosen_optimizer(optimizer, dtype)
        options.check_learning_rate(learning_rate)
        saved = plan_options.parse_savings(savings, dtype, images, optimizer)
        asked = options.costs_option(costs, us_per_mac, scale_from, accounting)
        check_file(out, "the step plan")
    elif any(limit is not None for limit in limits):
        raise UserError("a budget, and nothing that says what steps cost", hint="give --costs, too", exit_status=2)
    check_file(contributions, "the contributions", "--contributions")
    settings = AnalysisSettings(ways=ways, shots=shots, queries=queries, seed=seed, steps=steps)
    found = _measured(
        contributions, tasks, settings, quiet=as_json, network=network, shape=shape, dataset=dataset, data=data,
        weights=weights, ratios=shares, inspect=inspect,
    )  # fmt: skip
    searched = None
    if asked is not None:
        assert budget is not None
        lowered = load_network(network, shape)[1]
        of_plan = {
            "head": Head(classes=classes),
            "images": images,
            "optimizer": optimizer,
            "dtype": dtype,
            "savings": saved,
            "learning_rate": learning_rate,
        }
        source = asked.source(lowered, **of_plan)
        searched = find(found, lowered, source, budget, **of_plan)
        searched.plan.notes.update(
            method="sparse-update-searched",
            cost_source=source.label,
            contributions=f"{found.tasks} tasks, {found.data}",
            predicted={"latency_ms": searched.cost.latency_ms, "memory_bytes": searched.cost.memory_bytes,
                       "program_bytes": searched.cost.program_bytes},
            budget={"latency_ms": latency_ms, "energy_mj": energy_mj, "memory_bytes": memory_bytes,
                    "confidence": confidence},
        )  # fmt: skip
        plan_options.save_plan(searched.plan, out)
    _report(found, searched, out, as_json)


def _measured(
    path: Path,
    tasks: int,
    settings: AnalysisSettings,
    *,
    quiet: bool,
    network: str,
    shape: tuple[int, int, int],
    dataset: str | None,
    data: str | None,
    weights: Path | None,
    ratios: list[float],
    inspect: float,
) -> Contributions:
    """The contributions in the file, those that it lacks measured."""
    from tinytrain import data as sources  # noqa: PLC0415
    from tinytrain import tasks as loading  # noqa: PLC0415
    from tinytrain.backbones import GEOMETRIES  # noqa: PLC0415
    from tinytrain.contributions import Analysis, parts_of  # noqa: PLC0415

    if dataset is None:
        own = network if network in GEOMETRIES and weights is None else None
        source = sources.locate(data, network=own, tell=message)
        dataset = sources.source_set(source)
    loaded = loading.load(network, shape, data_folder=data, weights_file=weights, dataset=dataset, tell=message)
    split = "train" if loaded.images.splits is not None else None
    analysis = Analysis(loaded, parts_of(loaded.network, ratios=ratios, share=inspect), path, settings, split)
    if missing := analysis.missing(tasks):
        with progress(missing, "contributions", quiet=quiet) as ticker:
            analysis.run(tasks, lambda note: ticker.advance(note=note))
    return analysis.found


def _report(found: Contributions, searched: Searched | None, out: Path, as_json: bool) -> None:
    trained = {} if searched is None else searched.plan.layers
    rows = [
        {
            "part": part.name,
            "points": found.points(part),
            "half_95_points": found.half_interval(part),
            "chosen": searched is not None
            and (
                part.last_biases == searched.last_biases
                if not part.layer
                else part.layer in trained and len(trained[part.layer].channels) == part.channels
            ),
        }
        for part in found.parts
    ]
    scheme = None
    if searched is not None:
        scheme = {
            "plan": str(out),
            "last_biases": searched.last_biases,
            "layers_with_weights": sum(bool(p.channels) for p in searched.plan.layers.values()),
            "points": searched.points,
            "points_bound": searched.bound,
            "latency_ms": searched.cost.latency_ms,
            "energy_mj": searched.cost.energy_mj,
            "memory_bytes": searched.cost.memory_bytes,
            "program_bytes": searched.cost.program_bytes,
            "search_s": searched.seconds,
        }
    if as_json:
        print_json({"tasks": found.tasks, "data": found.data, "contributions": rows, "scheme": scheme})
        return
    print_table(
        rows,
        title=f"{found.network}: what training one part alone gains, in points of accuracy",
        caption=f"{found.tasks} tasks; half of Student's 95 % interval beside it\ndata: {found.data}",
    )
    if scheme is not None:
        print_table([scheme], title="the scheme of the most contribution under the budget")
        message(f"step plan written to {out}")
