"""``profile step``: whole training steps, run by the firmware, beside what was predicted of them."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import store
from profiler.cli_support import progress, warn
from profiler.commands.alone import WaitOption, alone_on_host
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
    open_chosen_device,
    run_folder,
)
from profiler.commands.step_plans import RandomPlans, method_plans, plans_of_files, published_plans
from profiler.commands.step_report import report
from profiler.errors import UserError
from profiler.link.transport import BAUD
from profiler.measure.observed import disturbance_warning, disturbed, observed_run
from profiler.measure.schedule import EMPTY, MOST_REPETITIONS, Policy, Slot, is_this_host
from profiler.measure.sitting import manifest, open_run, sitting, split
from profiler.measure.statistics import median
from profiler.measure.steps import check_step, energy_of_step, foreseen, step_trial, time_step
from profiler.measure.trials import accepted_ticks, op_trial, step_ticks, timed
from profiler.measure.verify import Ahead

if TYPE_CHECKING:
    from profiler.energy.meter import EnergyMeter
    from profiler.workloads.network import Network
    from profiler.workloads.plan import StepPlan

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
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="What `tinytrain adapt --method NAME` trains, of --network at --input: full, last, biases, tinytl, "
            "adapters and so on; may be given often.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, metavar="N", help="In the batch of --method's step. [default: 1]")
    ] = None,
    random_plans: Annotated[
        int,
        typer.Option(
            "--random-plans",
            min=0,
            metavar="N",
            help="N random plans of --network at --input that fit the device, drawn from --seed: to fit and to judge "
            "what a cost model says of whole steps.",
        ),
    ] = 0,
    dtype: Annotated[str, typer.Option("--dtype", metavar="f32|s8", help="Of the random plans.")] = "f32",
    network: Annotated[
        str | None, typer.Option("--network", metavar="NAME|MODULE:FACTORY", help="[default: the plan's]")
    ] = None,
    input_: Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="[default: the plan's]")] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(
            "--repetitions",
            min=1,
            max=MOST_REPETITIONS,
            metavar="N",
            help="Timed steps, after a warm-up. [default: 3 where emulated, else 20; on Linux until the lowest agree]",
        ),
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
    wait: WaitOption = False,
    json_: JsonOption = False,
) -> None:
    """Run whole training steps on a device: check them, time them, and set predicted beside measured.

    Example: profile step --port qemu://mps2-an500 --network mcunet-5fps --input 3x64x64 --plan plan.json
    """
    from profiler.workloads.peak import at_peak  # noqa: PLC0415

    folder = run_folder(out)
    meters = energy_source(energy, energy_window, trigger_input, recording, energy_rate)
    if not plan and not scheme and not method and not random_plans:
        raise UserError(
            "there is no step to run",
            hint="give --plan PLAN.json, --method NAME, --scheme NAME or --random-plans N",
            exit_status=2,
        )
    published = published_plans(scheme or [], savings, network, input_)
    published |= method_plans(method or [], images, network, input_)
    plans = plans_of_files(plan or [], network, input_)
    if twice := plans.keys() & published.keys():
        raise UserError(
            f"a plan's file has the name of the scheme or method {min(twice)}", hint="rename the file", exit_status=2
        )
    plans |= published
    random = RandomPlans.asked_for(random_plans, network, input_, dtype) if random_plans else None
    model = _cost_model(costs) if costs is not None else None
    with (
        alone_on_host(port, wait=wait),
        instrument_around(meters, port, target_power=target_power, power_cycle=power_cycle) as around,
        open_chosen_device(
            port, baud, power_cycle, region, link_log=link_log, trial_limit_s=trial_limit, supply=around.supply
        ) as device,
    ):
        policy = Policy.for_steps(device.identity, repetitions)
        repetitions = policy.rounds_min * policy.repetitions
        prepared: dict[str, _Prepared] = {}

        def prepare(name: str, step_plan: StepPlan, net: Network) -> None:
            prepared[name] = _prepare(device, name, step_plan, net, model=model)

        if random is not None:
            plans |= random.drawn(seed, prepare)
        record = {
            "kind": "steps",
            "network": "step-" + next(iter(plans.values()))[1].name,
            "seed": seed,
            "plans": {name: p.to_json() for name, (p, _) in plans.items()},
            "region": device.arena_region,
        } | ({"energy": energy} if energy else {})
        fresh = manifest(device, device.url, record, policy, [])
        with open_run(folder, resume=resume, fresh=fresh) as run:
            for notice in run.notices:
                warn(notice)
            there = {trial["slot"] for trial in run.trials}
            failures = []
            with sitting(device, run), around.meter(device, run) as meter:
                todo = [name for name in plans if f"step|{name}" not in there]
                for name in todo:
                    try:
                        if name not in prepared:
                            prepare(name, *plans[name])
                    except UserError as error:
                        failures.append(f"plan {name} cannot run on {device.identity.board}: {error.args[0]}")
                _measure_empty(device, run, repetitions, seed, meter)
                items = [prepared[name] for name in todo if name in prepared]
                _sit(device, run, items, policy=policy, seed=seed, meter=meter)
            timer = device.identity.timer_label
            trials = list(run.trials)
    if counts := disturbed(trials):
        warn(disturbance_warning(counts, len(trials)))
    peaks = {item.name: at_peak(item.step, item.program.placement) for item in items if arena}
    report(run.folder, timer, failures, peaks, json_)


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


def _prepare(device: Any, name: str, plan: Any, network: Any, *, model: Any) -> _Prepared:
    """The program of a plan, and what is foreseen of it.

    Raises:
        UserError: a kernel or memory is lacking.
    """
    from profiler.workloads.arena import lowest_peak  # noqa: PLC0415
    from profiler.workloads.program import DoesNotFit, resident_weights, step_program  # noqa: PLC0415
    from profiler.workloads.step import training_step  # noqa: PLC0415

    work = training_step(network, plan)
    supported = device.identity.supported()
    lacking = {
        f"{s.op.kind} {s.op.pass_}" for s in work.ops if (s.op.kind, str(s.op.pass_), s.op.dtype) not in supported
    }
    if lacking:
        raise UserError(f"there is no kernel for {', '.join(sorted(lacking))}", hint="build newer firmware")
    # Placing a step that is to need little memory searches for seconds: not where it cannot fit.
    least = lowest_peak(work, resident=resident_weights(work, device.memory))
    if least > device.memory.arena_bytes:
        raise DoesNotFit(f"the training step of {network.name}", least, device.memory.arena_bytes)
    program = step_program(work, device.memory)
    expectation = foreseen(plan)
    if model is not None:
        cost = model.step(network, plan)
        expectation |= {
            "predicted_latency_ms": float(cost.latency_ms),
            "predicted_energy_mj": None if cost.energy_mj is None else float(cost.energy_mj),
            "predicted_memory_bytes": int(cost.memory_bytes),
            "predicted_program_bytes": int(cost.program_bytes),
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


def _known(trial: dict[str, Any], rounds: int, policy: Policy) -> bool:
    """Whether a step needs no further round; one that cannot be timed never does."""
    if trial["status"] != "ok":
        return rounds >= policy.rounds_min
    return policy.done(step_ticks(trial), rounds, trial["duration_s"])


def _sit(
    device: Any,
    run: store.Run,
    prepared: list[_Prepared],
    *,
    policy: Policy,
    seed: int,
    meter: EnergyMeter | None,
) -> None:
    """Measure plans; one that the device cannot do is recorded with the reason, and the next one's turn comes.

    Where the policy has several rounds (on Linux, whose speed wanders with what else runs), every plan is timed in
    each until all are known, and recorded then: rounds of a few short steps alone may all fall into one spell of a busy
    neighbour. Or, where the sitting ends before, with the rounds that there were.
    """
    from profiler import reference  # noqa: PLC0415 - torch takes seconds to import

    compute = lambda program: reference.expected(program, seed, device.memory)  # noqa: E731
    queue = [(item.name, item.program) for item in prepared]
    trials: dict[str, dict[str, Any]] = {}

    def finish(item: _Prepared, trial: dict[str, Any]) -> None:
        if meter is not None:
            trial = energy_of_step(device, item.program, trial, meter=meter, seed=seed)
        run.append(trial)
        if trial["status"] == "stopped":
            warn(f"plan {item.name} was {trial['reason']}")

    # One reference waits while the device runs: it holds every result of a step in float64.
    with (
        contextlib.ExitStack() as stack,
        progress(policy.rounds_min * len(prepared), "steps") as ticker,
        Ahead(queue, compute, ahead=0 if is_this_host(device.identity) else 1) as references,
    ):
        stack.callback(lambda: [run.append(trial) for trial in trials.values() if trial["ticks"] and meter is None])
        for round_ in range(policy.rounds_max):
            if round_ >= policy.rounds_min:
                ticker.grow(len(prepared))
            for item in prepared:
                ticker.note(item.name)
                if round_ == 0:
                    blank = step_trial(
                        item.name,
                        item.plan,
                        item.step,
                        program_bytes=item.program.beside_arena_bytes(device.memory),
                        build_hash=device.identity.build_hash,
                        seed=seed,
                        region=device.arena_region,
                    )
                    expected = references.get(item.name, item.program)
                    trials[item.name] = check_step(
                        device, item.program, blank | item.foreseen, reference=expected, seed=seed
                    )
                trials[item.name] = time_step(
                    device, item.program, trials[item.name], repetitions=policy.repetitions, seed=seed
                )
                if policy.rounds_max == 1:
                    finish(item, trials.pop(item.name))
                ticker.advance()
            if all(_known(trial, round_ + 1, policy) for trial in trials.values()):
                break
        for item in prepared:
            if item.name in trials:
                finish(item, trials.pop(item.name))
