"""``profile step``: whole training steps, run by the firmware, beside what was predicted of them."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from profiler import store
from profiler.cli_support import json_ready, message, parse_input_shape, print_json, print_table, progress, warn
from profiler.commands.metering import energy_source, instrument_around
from profiler.commands.options import (
    STEP_LIMIT_S,
    BaudOption,
    EnergyOption,
    EnergyRateOption,
    EnergyWindowOption,
    JsonOption,
    LinkLogOption,
    PortOption,
    PowerCycleOption,
    RecordingOption,
    RegionOption,
    SeedOption,
    TargetPowerOption,
    TrialLimitOption,
    TriggerInputOption,
    load_network,
    open_chosen_device,
    run_folder,
)
from profiler.errors import UserError
from profiler.link.transport import BAUD
from profiler.measure.observed import disturbance_warning, disturbed, observed_run
from profiler.measure.schedule import EMPTY, Policy, Slot
from profiler.measure.sitting import manifest, open_run, sitting, split
from profiler.measure.statistics import median
from profiler.measure.steps import foreseen, measure_step, step_trial
from profiler.measure.trials import accepted_ticks, op_trial, timed
from profiler.measure.verify import Ahead

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter

#: What the table shows of each step.
FIGURES = (
    "trained_layers",
    "images",
    "latency_ms",
    "predicted_latency_ms",
    "predicted_by",
    "error_percent",
    "budget_latency_ms",
    "latency_budget",
    "memory_peak_bytes",
    "predicted_memory_bytes",
    "budget_memory_bytes",
    "memory_budget",
    "energy_mj",
    "energy_uncertainty_mj",
    "net_energy_mj",
    "energy_source",
    "relative_error",
    "status",
)
#: Fitted cost models, by name: that package lies above this one.
_COST_MODEL = ("costmodels.model", "CostModel")


def step(
    *,
    port: PortOption,
    plan: Annotated[
        list[Path] | None,
        typer.Option(
            "--plan",
            metavar="PLAN.json",
            help="What the step trains, in float32 or int8 as the plan says; may be given often.",
            show_default=False,
        ),
    ] = None,
    scheme: Annotated[
        list[str] | None,
        typer.Option(
            "--scheme",
            metavar="NAME",
            help="A published int8 update scheme of mcunet-5fps: mcunetv3-49kb, -74kb, -99kb, -124kb, -148kb; needs "
            "--input; may be given often.",
            show_default=False,
        ),
    ] = None,
    savings: Annotated[
        str | None,
        typer.Option(
            "--savings",
            metavar="NAMES",
            help="Ways in which --scheme is to need less memory, with commas between: stream, in_place, fused_update, "
            "recompute_masks. A plan says its own.",
            show_default=False,
        ),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="NAME|MODULE:FACTORY", help="[default: the plan's]")
    ] = None,
    input_: Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="[default: the plan's]")] = None,
    repetitions: Annotated[
        int | None,
        typer.Option("--repetitions", min=1, help="Timed steps, after a warm-up. [default: 3 where emulated, else 20]"),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="MODEL",
            help="A fitted cost model's folder: predict with it, not as the plan's notes say.",
        ),
    ] = None,
    region: RegionOption = None,
    seed: SeedOption = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run's folder. [default: measurements/DEVICE/TIME-step-NETWORK]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Run only the plans that the run in --out lacks.")] = False,
    arena: Annotated[bool, typer.Option("--arena", help="Say what lies in the arena when it is fullest.")] = False,
    baud: BaudOption = BAUD,
    power_cycle: PowerCycleOption = None,
    target_power: TargetPowerOption = None,
    energy: EnergyOption = None,
    energy_window: EnergyWindowOption = None,
    energy_rate: EnergyRateOption = None,
    trigger_input: TriggerInputOption = 0,
    recording: RecordingOption = None,
    link_log: LinkLogOption = None,
    trial_limit: TrialLimitOption = STEP_LIMIT_S,
    json_: JsonOption = False,
) -> None:
    """Run whole training steps on a device: check them, time them, and set predicted beside measured.

    Example: profile step --port qemu://mps2-an500 --network mcunet-5fps --input 3x64x64 --plan plan.json
    """
    from profiler.workloads.peak import at_peak  # noqa: PLC0415
    from profiler.workloads.plan import StepPlan  # noqa: PLC0415

    folder = run_folder(out)
    meters = energy_source(energy, energy_window, trigger_input, recording, energy_rate)
    plan = plan or []
    if not plan and not scheme:
        raise UserError("there is no step to run", hint="give --plan PLAN.json or --scheme NAME", exit_status=2)
    published = _published(scheme or [], savings, network, input_)
    plans = dict(zip(_names(plan), (StepPlan.load(path) for path in plan), strict=True))
    if twice := plans.keys() & published.keys():
        raise UserError(f"a plan's file has the name of the scheme {min(twice)}", hint="rename the file", exit_status=2)
    model = _cost_model(costs) if costs is not None else None
    networks = {name: _network_of(p, network, input_) for name, p in plans.items()}
    plans |= {name: p for name, (p, _) in published.items()}
    networks |= {name: net for name, (_, net) in published.items()}
    with (
        instrument_around(meters, port, target_power=target_power, power_cycle=power_cycle) as around,
        open_chosen_device(
            port, baud, power_cycle, region, link_log=link_log, trial_limit_s=trial_limit, supply=around.supply
        ) as device,
    ):
        if repetitions is None:
            repetitions = 3 if device.identity.counts_instructions else 20
        record = {
            "kind": "steps",
            "network": "step-" + next(iter(networks.values())).name,
            "seed": seed,
            "plans": {name: p.to_json() for name, p in plans.items()},
            "region": device.arena_region,
        } | ({"energy": energy} if energy else {})
        policy = Policy(repetitions=repetitions)
        fresh = manifest(device, device.url, record, policy, [])
        with open_run(folder, resume=resume, fresh=fresh) as run:
            for notice in run.notices:
                warn(notice)
            there = {trial["slot"] for trial in run.trials}
            prepared, failures = [], []
            with sitting(device, run), around.meter(device, run) as meter:
                for name, step_plan in plans.items():
                    if f"step|{name}" in there:
                        continue
                    try:
                        item = _prepare(device, name, step_plan, networks[name], model=model, repetitions=repetitions)
                        prepared.append(item)
                    except UserError as error:
                        failures.append(f"plan {name} cannot run on {device.identity.board}: {error.args[0]}")
                _measure_empty(device, run, repetitions, seed, meter)
                _sit(device, run, prepared, repetitions=repetitions, seed=seed, meter=meter)
            timer = device.identity.timer_label
            trials = list(run.trials)
    if counts := disturbed(trials):
        warn(disturbance_warning(counts, len(trials)))
    peaks = {item.name: at_peak(item.step, item.program.placement) for item in prepared if arena}
    _report(run.folder, timer, failures, peaks, json_)


def _names(paths: list[Path]) -> list[str]:
    """A name a plan: its file's, made unique."""
    names: list[str] = []
    for path in paths:
        name = path.stem if path.stem not in names else str(path)
        if name in names:
            raise UserError(f"--plan {path} is given twice", hint="give each plan once", exit_status=2)
        names.append(name)
    return names


def _published(schemes: list[str], savings: str | None, network: str | None, input_: str | None) -> dict[str, Any]:
    """(plan, network) of every published scheme, by name."""
    if savings is not None and not schemes:
        raise UserError("--savings goes with --scheme; a plan says its own", hint="leave it away", exit_status=2)
    if not schemes:
        return {}
    from profiler.workloads.plan import Saving  # noqa: PLC0415
    from profiler.workloads.schemes import find_scheme, published_scheme  # noqa: PLC0415

    wanted = [name.strip() for name in savings.split(",")] if savings else []
    if unknown := [name for name in wanted if name not in get_args(Saving)]:
        known = ", ".join(get_args(Saving))
        raise UserError(
            f"--savings names {unknown[0]!r}", hint=f"there are {known}, with commas between", exit_status=2
        )
    if input_ is None:
        raise UserError("--scheme needs --input", hint="published was 3x128x128", exit_status=2)
    found: dict[str, Any] = {}
    for name in schemes:
        net = load_network(network or find_scheme(name).network, parse_input_shape(input_))
        found[name] = published_scheme(net, name, savings=wanted), net  # type: ignore[arg-type]
    return found


def _network_of(plan: Any, network: str | None, input_: str | None) -> Any:
    shape = parse_input_shape(input_) if input_ is not None else plan.input_shape
    net = load_network(network or plan.network, shape)
    plan.check(net)
    return net


def _cost_model(folder: Path) -> Any:
    module, name = _COST_MODEL
    return getattr(importlib.import_module(module), name).load(folder)


@dataclass(frozen=True)
class _Prepared:
    """A plan ready to be measured."""

    name: str
    plan: Any
    step: Any
    program: Any
    foreseen: dict[str, Any]


def _prepare(device: Any, name: str, plan: Any, network: Any, *, model: Any, repetitions: int) -> _Prepared:
    """The program of a plan, and what is foreseen of it.

    Raises:
        UserError: a kernel or memory is lacking.
    """
    from profiler.workloads.program import step_program  # noqa: PLC0415
    from profiler.workloads.step import training_step  # noqa: PLC0415

    work = training_step(network, plan)
    supported = device.identity.supported()
    lacking = {
        f"{s.op.kind} {s.op.pass_}" for s in work.ops if (s.op.kind, str(s.op.pass_), s.op.dtype) not in supported
    }
    if lacking:
        raise UserError(f"there is no kernel for {', '.join(sorted(lacking))}", hint="build newer firmware")
    program = step_program(work, device.memory)
    program.check_fits(device.memory, 1 + repetitions)
    expectation = foreseen(plan)
    if model is not None:
        cost = model.step(network, plan)
        expectation |= {
            "predicted_latency_ms": float(cost.latency_ms),
            "predicted_memory_bytes": int(cost.memory_bytes),
            "predicted_by": getattr(model, "label", "cost model"),
        }
    return _Prepared(name, plan, work, program, expectation)


def _measure_empty(device: Any, run: store.Run, repetitions: int, seed: int, meter: EnergyMeter | None) -> None:
    """The harness's own cost an op, to be subtracted."""
    slot = Slot("empty", EMPTY, 0)
    if all(trial["slot"] != slot.name for trial in run.trials):
        programs, _ = split([], device.identity, device.memory, 1 + repetitions)
        if EMPTY not in programs:
            return  # so many repetitions' ticks do not fit: neither does any step
        trial = op_trial(slot, build_hash=device.identity.build_hash, seed=seed, region=device.arena_region)
        result, state = observed_run(device, programs[EMPTY], repetitions=1 + repetitions, seed=seed)
        trial |= timed(result, 1, 1 + repetitions) | state
        if meter is not None and trial["status"] == "ok":
            execution_s = median(accepted_ticks(trial)) / device.identity.timer_hz
            trial["energy"] = meter.measure(device, programs[EMPTY], execution_s=execution_s, seed=seed, name=slot.name)
        run.append(trial)


def _sit(
    device: Any,
    run: store.Run,
    prepared: list[_Prepared],
    *,
    repetitions: int,
    seed: int,
    meter: EnergyMeter | None,
) -> None:
    """Measure plans; one that the device cannot do is recorded with the reason, and the next one's turn comes."""
    from profiler import reference  # noqa: PLC0415 - torch takes seconds to import

    compute = lambda program: reference.expected(program, seed, device.memory)  # noqa: E731
    queue = [(item.name, item.program) for item in prepared]
    # One reference waits while the device runs: it holds every result of a step in float64.
    with progress(len(prepared), "steps") as ticker, Ahead(queue, compute, ahead=1) as references:
        for item in prepared:
            ticker.note(item.name)
            blank = step_trial(
                item.name,
                item.plan,
                item.step,
                build_hash=device.identity.build_hash,
                seed=seed,
                region=device.arena_region,
            )
            trial = measure_step(
                device,
                item.program,
                blank | item.foreseen,
                reference=references.get(item.name, item.program),
                repetitions=repetitions,
                seed=seed,
                meter=meter,
            )
            run.append(trial)
            if trial["status"] == "stopped":
                warn(f"plan {item.name} was {trial['reason']}")
            ticker.advance()


def _report(folder: Path, timer: str, failures: list[str], peaks: dict[str, list], json_: bool) -> None:
    rows = []
    if any(trial["type"] == "step" for trial in store.iterate(folder)):
        table = store.load_steps(folder)
        for record in table.to_dict("records"):
            rows.append(record | judged(record))
    # Those of earlier sittings too: going on does not make a wrong step right.
    failures = failures + [f"{r['plan']} is {r['status']}: {r['reason']}" for r in rows if r["status"] != "ok"]
    if json_:
        record = {"run": str(folder), "timer": timer, "steps": json_ready(rows), "failures": failures}
        arena = {name: [row._asdict() for row in peak] for name, peak in peaks.items()}
        print_json(record | ({"arena": arena} if arena else {}))
    else:
        # A column a plan: there are more figures than plans.
        print_table(
            [
                {"figure": name} | {row["plan"]: row.get(name) for row in rows}
                for name in FIGURES
                if "energy" not in name or any(isinstance(row["energy_source"], str) for row in rows)
            ],
            title=f"Training steps (timer: {timer})",
            caption=f"run: {folder}"
            + ("\nlatency is virtual time: the timer counts instructions" if timer == "instructions" else ""),
        )
        for name, peak in peaks.items():
            print_table(
                [row._asdict() for row in peak],
                title=f"What lies in the arena of {name} when it is fullest",
                caption="without an offset: what lives through the run, by what it is; what shares memory counts each",
            )
    message(f"{sum(row['status'] == 'ok' for row in rows)} steps measured; run: {folder}")
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise UserError(
            f"{failures[0]}{more}", hint="take a device with more memory, a plan that trains less, or other firmware"
        )


def judged(record: dict[str, Any]) -> dict[str, Any]:
    """Predicted against measured, and whether each budget was kept or broken (nothing where there is none)."""
    measured, predicted = record.get("latency_ms"), record.get("predicted_latency_ms")
    result: dict[str, Any] = {"error_percent": None, "latency_budget": None, "memory_budget": None}
    if record["status"] != "ok" or measured is None:
        return result
    if _is_number(predicted) and measured:
        result["error_percent"] = 100 * (predicted - measured) / measured
    for name, value in (("latency", measured), ("memory", record["memory_peak_bytes"])):
        limit = record["budget_latency_ms" if name == "latency" else "budget_memory_bytes"]
        if _is_number(limit):
            result[f"{name}_budget"] = "kept" if value <= limit else "broken"
    return result


def _is_number(value: Any) -> bool:
    return value is not None and not math.isnan(value)
