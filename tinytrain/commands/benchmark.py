"""``tinytrain benchmark``: methods compared on the same tasks and devices."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli_support import message, print_json, print_table, progress, warn
from profiler.commands.options import DEFAULT_RATIOS, parse_ratios
from profiler.errors import UserError
from profiler.measure.schedule import MOST_REPETITIONS
from tinytrain.commands import options, plan_options

if TYPE_CHECKING:
    import pandas as pd

    from tinytrain.benchmark import Device, Settings
    from tinytrain.benchmark_run import Comparison


def benchmark(
    *,
    methods: Annotated[
        str, typer.Option(metavar="NAMES", help="Names with commas between; --list-methods shows them.")
    ] = "none,full,last,tinytrain-analytical,tinytrain",
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|MODULE:FACTORY", help="mcunet-5fps, mbv2-w0.35, proxyless-w0.3 or module:factory; repeatable."
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="omniglot, gtsrb, dtd, digits, or a folder of images; repeatable. [default: the data source's own]",
            show_default=False,
        ),
    ] = None,
    costs: Annotated[
        list[Path] | None,
        typer.Option(metavar="MODEL", help="Folder of a device's fitted cost model; one a device, repeatable."),
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PORT", help="Where the device of the cost model lies, in the order of --costs; repeatable."
        ),
    ] = None,
    no_device: Annotated[
        bool, typer.Option("--no-device", help="Measure nothing: costs are those that the cost models predict.")
    ] = False,
    tasks: Annotated[int, typer.Option(min=1, metavar="N", help="Tasks a domain.")] = 20,
    sampling: Annotated[
        str, typer.Option(metavar="n-way|meta-dataset", help="`n-way`, or `meta-dataset`: ways and shots vary.")
    ] = "n-way",
    ways: Annotated[int, typer.Option(min=2, metavar="N", help="Classes of a task; with meta-dataset the fewest.")] = 5,
    max_ways: Annotated[int, typer.Option(min=2, metavar="N", help="With meta-dataset, most classes of a task.")] = 50,
    shots: options.ShotsOption = 5,
    queries: options.QueriesOption = 15,
    max_support: Annotated[
        int, typer.Option(min=2, metavar="N", help="With meta-dataset, most support images of a task.")
    ] = 100,
    seed: options.TaskSeedOption = 0,
    input_shape: Annotated[
        str, typer.Option("--input", metavar="CxHxW", help="Channels x height x width of an image.")
    ] = "3x84x84",
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK=FILE", help="A backbone's weights instead of the data source's; repeatable."),
    ] = None,
    contributions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK=FILE", help="For sparse-update-searched: what `tinytrain search` measured; repeatable."
        ),
    ] = None,
    data: options.DataOption = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps.")] = 40,
    images: Annotated[int, typer.Option(min=1, metavar="N", help="Images in the batch of a step.")] = 5,
    optimizer: Annotated[str, typer.Option(metavar="adam|sgd", help="adam or sgd.")] = "adam",
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Of the update, where it is not chosen.")] = 1e-3,
    choose_lr: Annotated[
        bool,
        typer.Option(
            "--choose-lr",
            help="Choose it of 1e-2, 1e-3 and 1e-4 for each method and network, on mini-ImageNet's validation classes.",
        ),
    ] = False,
    lr_tasks: Annotated[int, typer.Option(min=1, metavar="N", help="With --choose-lr, on so many tasks.")] = 5,
    latency_ms: plan_options.LatencyLimitOption = None,
    latency_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Most of a step as a share of one that trains everything, on each device.",
            show_default=False,
        ),
    ] = None,
    energy_mj: plan_options.EnergyLimitOption = None,
    memory_bytes: plan_options.MemoryLimitOption = None,
    confidence: plan_options.ConfidenceOption = plan_options.DEFAULT_CONFIDENCE,
    ratios: plan_options.RatiosOption = DEFAULT_RATIOS,
    inspect: plan_options.InspectOption = plan_options.DEFAULT_INSPECTED_SHARE,
    energy: Annotated[
        str | None,
        typer.Option(
            metavar="INSTRUMENT", help="Measure energy, too: an instrument as `profile step --energy` takes it."
        ),
    ] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_REPETITIONS, metavar="N", help="Timed steps on the device; by default as `profile step`."
        ),
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Most distinct steps to measure on a device, those of most tasks first; the others' costs are "
            "predicted. [default: all]",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", help="Processes that train, one thread each; -1 for one a core.")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Train on the workers of this Dask scheduler (extra `dask`)."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Method that the others' accuracies are compared with. [default: `none` where it is among them, else "
            "the first]",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The benchmark's folder; what is in it already is not done again.")
    ] = Path("benchmark"),
    reuse: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="A benchmark of the same tasks with other limits: plans that were trained there are not trained "
            "again; repeatable.",
        ),
    ] = None,
    list_methods: Annotated[bool, typer.Option("--list-methods", help="Show the methods, and do nothing.")] = False,
    as_json: options.JsonOption = False,
) -> None:
    """Compare methods on the same tasks: accuracy, and what a training step costs on each device."""
    from tinytrain.benchmark import Place, Settings  # noqa: PLC0415  (torch takes seconds, and --help should not)
    from tinytrain.benchmark_device import check_device  # noqa: PLC0415
    from tinytrain.benchmark_methods import METHODS, SEARCHED, Limits, find_methods  # noqa: PLC0415
    from tinytrain.benchmark_run import Comparison  # noqa: PLC0415
    from tinytrain.benchmark_store import Results  # noqa: PLC0415

    if list_methods:
        rows = [{"method": m.name, "asks_for_a_budget": m.budgeted, "what": m.what} for m in METHODS.values()]
        print_json(rows) if as_json else print_table(rows)
        return
    asked = find_methods([name.strip() for name in methods.split(",")])
    compared = [method.name for method in asked]
    against = against or ("none" if "none" in compared else compared[0])
    if against not in compared:
        raise UserError(
            f"--against {against} is none of the methods compared", hint="name it in --methods, too", exit_status=2
        )
    if latency_share is not None and not 0 < latency_share <= 1:
        raise UserError(
            f"a budget of {latency_share} of a full step",
            hint="give --latency-share above 0 and at most 1",
            exit_status=2,
        )
    limits = Limits(latency_ms, latency_share, energy_mj, memory_bytes, confidence)
    if limits.given:
        latency = latency_share if latency_ms is None else latency_ms
        plan_options.check_budget(latency, energy_mj, memory_bytes, confidence)
    elif budgeted := [method.name for method in asked if method.budgeted]:
        raise UserError(
            f"the method {budgeted[0]} asks for a budget",
            hint="give --latency-share, --latency-ms, --energy-mj or --memory-bytes",
            exit_status=2,
        )
    options.check_learning_rate(learning_rate)
    plan_options.check_choice("sampling", sampling, ("n-way", "meta-dataset"))
    plan_options.check_choice("optimizer", optimizer, ("adam", "sgd"))
    if jobs == 0 or jobs < -1:
        raise UserError(f"--jobs {jobs}", hint="give a number of processes, or -1 for one a core", exit_status=2)
    networks = tuple(dict.fromkeys(network or ["mcunet-5fps"]))
    domains = tuple(dict.fromkeys(domain or [_own_domain(data, networks[0])]))
    settings = Settings(
        input_shape=options.image_shape(input_shape),
        sampling=sampling,
        ways=ways,
        max_ways=max_ways,
        shots=shots,
        queries=queries,
        max_support=max_support,
        seed=seed,
        steps=steps,
        images=images,
        optimizer=optimizer,
        learning_rate=learning_rate,
        choose_lr=choose_lr,
        lr_tasks=lr_tasks,
        limits=limits,
        ratios=tuple(parse_ratios(ratios)),
        inspected_share=inspect,
    )
    _check_domains(domains, settings)
    devices, ports = _devices(costs or [], port or [], no_device)
    place = Place(data, _files("--weights", weights or []), _files("--contributions", contributions or []))
    for option, given in (("--weights", place.weights), ("--contributions", place.contributions)):
        if strange := dict(given).keys() - set(networks):
            raise UserError(
                f"{option} is given for {min(strange)}, which is none of the networks compared",
                hint=f"give it for {', '.join(networks)}, or name --network {min(strange)}, too",
                exit_status=2,
            )
    lacking = set(networks) - dict(place.contributions).keys()
    if lacking and any(method.name == SEARCHED for method in asked):
        raise UserError(
            f"the method {SEARCHED} asks for contributions, of {min(lacking)} there are none",
            hint="give --contributions NETWORK=FILE; `tinytrain search` measures them",
            exit_status=2,
        )
    for device in devices:
        if device.name in ports:
            check_device(out, device, ports[device.name])
    with Results(out, settings, devices) as results:
        if results.damaged:
            warn(f"{len(results.damaged)} damaged lines of {out / 'results.jsonl'} are left out, and done again")
        contributed = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in place.contributions}
        results.check_same("contributions", contributed)
        comparison = Comparison(results, place, devices, asked, networks, domains, tasks, tuple(reuse or ()))
        _train(comparison, jobs, scheduler, quiet=as_json)
        failures = _measure(comparison, ports, measure, repetitions, energy, quiet=as_json)
    for failure in failures:
        warn(failure)
    _report(out, comparison, against, as_json)


def _own_domain(data: str | None, network: str) -> str:
    """The set that the source is for which images and weights are taken from."""
    from tinytrain.backbones import GEOMETRIES  # noqa: PLC0415
    from tinytrain.data import locate  # noqa: PLC0415

    return locate(data, network=network if network in GEOMETRIES else None, tell=message).dataset


def _check_domains(domains: tuple[str, ...], settings: Settings) -> None:
    from profiler.store import slug  # noqa: PLC0415
    from tinytrain.benchmark import VALIDATION_SET  # noqa: PLC0415

    if settings.choose_lr and VALIDATION_SET in domains:
        raise UserError(
            f"learning rates are chosen on {VALIDATION_SET}, which is a domain to be tested, too",
            hint="leave out --choose-lr or the domain",
            exit_status=2,
        )
    if len({slug(name) for name in domains}) < len(domains):
        raise UserError(
            f"two of the domains {', '.join(domains)} would have the same file of tasks",
            hint="rename a folder",
            exit_status=2,
        )


def _devices(costs: list[Path], ports: list[str], no_device: bool) -> tuple[tuple[Device, ...], dict[str, str]]:
    """Devices by their cost models, and the port of each by its name."""
    from costmodels.model import CostModel  # noqa: PLC0415
    from tinytrain.benchmark import Device  # noqa: PLC0415

    if not costs:
        raise UserError(
            "there is no cost model to choose and to predict by", hint="give --costs MODEL_DIR", exit_status=2
        )
    if no_device == bool(ports) or (ports and len(ports) != len(costs)):
        raise UserError(
            f"{len(costs)} cost models and {len(ports)} ports{' with --no-device' if no_device else ''}",
            hint="give a --port for every --costs, in the same order, or --no-device",
            exit_status=2,
        )
    devices = tuple(Device(CostModel.load(folder).card_["device"], folder.resolve()) for folder in costs)
    names = [device.name for device in devices]
    if len(set(names)) < len(names):
        raise UserError(f"two of the cost models are of the same device ({', '.join(names)})", hint="give one a device")
    return devices, dict(zip(names, ports, strict=False))


def _files(option: str, given: list[str]) -> tuple[tuple[str, Path], ...]:
    """Networks' names and files."""
    found = []
    for text in given:
        network, equals, file = text.partition("=")
        if not equals or not file:
            raise UserError(
                f"{option} {text!r} names no network and file", hint=f"give {option} NETWORK=FILE", exit_status=2
            )
        if not Path(file).is_file():
            raise UserError(f"there is no file {file}, as {option} says", hint="look for the file")
        found.append((network, Path(file).resolve()))
    return tuple(found)


def _train(comparison: Comparison, jobs: int, scheduler: str | None, *, quiet: bool) -> None:
    """Work off what is missing: first what learning rates are chosen by, then all else."""
    from tinytrain.benchmark_run import workers  # noqa: PLC0415

    for what, make in (("choosing learning rates", comparison.validation_jobs), ("training", comparison.jobs)):
        work = make(message)
        if not work:
            continue
        with progress(len(work), what, quiet=quiet) as ticker, workers(jobs, scheduler) as work_off:
            for outcomes in work_off(work):
                comparison.results.append(outcomes)
                last = outcomes[-1].record
                ticker.advance(note=f"{last['domain']} task {last['task']}: {last['method']}")


def _measure(
    comparison: Comparison,
    ports: dict[str, str],
    most: int | None,
    repetitions: int | None,
    energy: str | None,
    *,
    quiet: bool,
) -> list[str]:
    from tinytrain.benchmark_device import measure  # noqa: PLC0415

    failures = []
    for device, where in ports.items():
        wanted = comparison.steps_of(device)[:most]
        with progress(len(wanted), f"steps on {device}", quiet=quiet) as ticker:
            failures += measure(
                comparison.results.folder,
                device,
                where,
                wanted,
                repetitions=repetitions,
                energy=energy,
                advance=ticker.advance,
            )
    return failures


def _report(out: Path, comparison: Comparison, against: str, as_json: bool) -> None:
    """Tables and plots of what was asked for, as files and on stdout."""
    from tinytrain.benchmark_plots import write_plots  # noqa: PLC0415
    from tinytrain.benchmark_tables import difference_table, results_table, summary_table  # noqa: PLC0415

    table = comparison.asked_for(results_table(out))
    tables: dict[str, pd.DataFrame] = {
        "results": table,
        "summary": summary_table(table),
        "differences": difference_table(table, against),
    }
    for name, rows in tables.items():
        rows.to_csv(out / f"{name}.csv", index=False)
    plots = write_plots(table, out)
    for (name, device), rows in table[table.status != "ok"].groupby(["method", "device"], sort=False):
        warn(f"{name} has no plan for {len(rows)} tasks on {device}: {rows.reason.iloc[0]}")
    if as_json:
        print_json({name: rows for name, rows in tables.items() if name != "results"} | {"plots": plots, "out": out})
        return
    print_table(
        tables["summary"],
        title="Accuracy of the query and costs of a training step, means over tasks",
        caption="half_95_points: half of Student's 95 % interval of the mean\n" + _timers(table),
    )
    print_table(
        tables["differences"],
        title=f"Accuracy less that of {against}, task by task",
        caption="95 % intervals of the mean paired difference by Student's t; `all` weighs domains equally",
    )
    message(f"results.csv, summary.csv, differences.csv and {len(plots)} plots are in {out}")


def _timers(table: pd.DataFrame) -> str:
    from costmodels.plots import energy_note, timer_note  # noqa: PLC0415

    timers = [timer_note(timer) for timer in table.timer.dropna().unique()]
    energies = [energy_note(source) for source in table.energy_source.dropna().unique() if source]
    return "; ".join([*(timers or ["costs are predicted, none was measured"]), *energies])
