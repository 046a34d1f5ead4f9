"""``profile measure``, the default verb."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import store
from profiler.cli_support import (
    Ticker,
    console_out,
    message,
    print_json,
    print_table,
    progress,
    tell,
    warn,
)
from profiler.commands.alone import WaitOption, alone_on_host
from profiler.commands.design import chooser_class, measure_design
from profiler.commands.design_options import (
    DesignLimitOption,
    DesignOption,
    MaybeDtypeOption,
    MaybeInputOption,
    MaybeNetworkOption,
    TargetErrorOption,
    TimeOption,
    Wish,
    wished,
)
from profiler.commands.lab import measure_lab
from profiler.commands.metering import energy_source, instrument_around
from profiler.commands.options import (
    DEFAULT_RATIOS,
    LONGEST_LIMIT_S,
    TRIAL_LIMIT_S,
    BaudOption,
    CachesOption,
    ClassesOption,
    EnergyOption,
    EnergyRateOption,
    EnergyWindowOption,
    HeadOption,
    JsonOption,
    LabOption,
    LinkLogOption,
    OptimizerOption,
    PassesOption,
    PortOrLabOption,
    PowerCycleOption,
    RatiosOption,
    RecordingOption,
    RegionOption,
    SeedOption,
    TargetPowerOption,
    TrialLimitOption,
    TriggerInputOption,
    open_chosen_device,
    parse_caches,
    run_folder,
)
from profiler.errors import UserError
from profiler.link.transport import BAUD
from profiler.measure.design_terms import DesignName
from profiler.measure.findings import Weight
from profiler.measure.loop import Loop
from profiler.measure.schedule import MOST_REPETITIONS, Policy
from profiler.measure.sitting import Left, check_caches, manifest, open_run, sitting, split
from profiler.shown_values import format_seconds, format_value

if TYPE_CHECKING:
    import pandas as pd

    from profiler.measure.trust import Trust
    from profiler.ops import Op


def measure(
    ctx: typer.Context,
    *,
    port: PortOrLabOption = None,
    lab: LabOption = None,
    network: MaybeNetworkOption = None,
    input_: MaybeInputOption = None,
    design: DesignOption = None,
    time_: TimeOption = None,
    target_error: TargetErrorOption = None,
    passes: PassesOption = None,
    dtype: MaybeDtypeOption = None,
    ratios: RatiosOption = DEFAULT_RATIOS,
    optimizer: OptimizerOption = None,
    head: HeadOption = "cosine_prototype",
    classes: ClassesOption = 5,
    repetitions: Annotated[
        int | None,
        typer.Option(
            "--repetitions",
            min=1,
            max=MOST_REPETITIONS,
            metavar="N",
            help="Counted repetitions an op. [default: until steady]",
        ),
    ] = None,
    time_per_op: Annotated[
        float | None,
        typer.Option(
            "--time-per-op",
            min=0.0,
            max=LONGEST_LIMIT_S,
            metavar="SECONDS",
            help="No further repetitions of an op after this time.",
        ),
    ] = None,
    limit: DesignLimitOption = None,
    caches: CachesOption = "warm",
    region: RegionOption = None,
    companions: Annotated[
        bool,
        typer.Option(
            "--companions/--no-companions",
            help="Measure ops beside the network's own where those are too few to fit a kind's kernels.",
        ),
    ] = True,
    seed: SeedOption = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run's folder. [default: measurements/DEVICE/TIME-NETWORK]"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What tables and folders call the device. [default: its board, and the end of its serial number]",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Measure only what is missing: in --out, or the newest run with these options."),
    ] = False,
    baud: BaudOption = BAUD,
    power_cycle: PowerCycleOption = None,
    target_power: TargetPowerOption = None,
    energy: EnergyOption = None,
    energy_window: EnergyWindowOption = None,
    energy_rate: EnergyRateOption = None,
    trigger_input: TriggerInputOption = 0,
    recording: RecordingOption = None,
    link_log: LinkLogOption = None,
    trial_limit: TrialLimitOption = TRIAL_LIMIT_S,
    wait: WaitOption = False,
    json_: JsonOption = False,
) -> int:
    """Measure every op of a network on a device, or those that a design chooses. This is the default verb.

    Each op is checked against PyTorch first (an int8 one against integer arithmetic, exactly); one whose result is
    wrong is not timed.

    Example: profile --port qemu://stm32f405 --network mcunet-5fps --input 3x64x64

    Example: profile --port qemu://stm32f405 --design active --time 5m
    """

    if (port is None) == (lab is None):
        raise UserError(
            "--port and --lab exclude each other" if port else "the command needs --port or --lab",
            hint="give --port PORT for one device, or --lab FILE for those that the file lists",
            exit_status=2,
        )
    if lab is not None:
        return measure_lab(ctx, lab, out, json_=json_)
    meters = energy_source(energy, energy_window, trigger_input, recording, energy_rate)
    start = time.monotonic()
    folder = run_folder(out)
    timings = parse_caches(caches)
    wish, plan = wished(
        design,
        time_,
        target_error,
        network=network,
        input_=input_,
        passes=passes,
        dtype=dtype,
        ratios=ratios,
        optimizer=optimizer,
        head=head,
        classes=classes,
        limit=limit,
        seed=seed,
        companions=companions,
    )
    if isinstance(wish, Wish) and wish.name is DesignName.ACTIVE:
        chooser_class()  # where there is none, nothing is begun
    with (
        alone_on_host(port, wait=wait),
        instrument_around(meters, port, target_power=target_power, power_cycle=power_cycle) as around,
        open_chosen_device(
            port, baud, power_cycle, region, link_log=link_log, trial_limit_s=trial_limit, supply=around.supply
        ) as device,
    ):
        identity = device.identity
        check_caches(identity, timings)
        if isinstance(wish, Wish):
            policy = Policy.for_design(identity, repetitions, time_per_op)
            programs, left = {}, []
        else:
            policy = Policy.for_device(identity, repetitions, time_per_op)
            programs, left = split(wish, identity, device.memory, policy.warm_ups + policy.repetitions)
        plan |= {"caches": [str(c) for c in timings], "region": device.arena_region}
        if meters is not None:
            plan["energy"] = energy
        fresh = manifest(device, device.url, plan, policy, left)
        if name is not None:
            fresh["device"] = store.slug(name)
        with open_run(folder, resume=resume, fresh=fresh) as run:
            tell(run=run.folder)
            for notice in run.notices:
                warn(notice)
            earlier = bool(run.trials)
            if earlier:
                message(f"going on with {run.folder}: {len(run.trials)} trials are there")
            elif resume:
                message("there is no trial to go on with; beginning a new run")
            message(
                f"measuring {_what(wish, plan, programs)} on {identity.board} (timer: {identity.timer_label}, caches: "
                f"{caches}) into {run.folder}"
            )
            if "qemu user" in identity.core.lower():
                warn("this device is translated instruction by instruction: its times say nothing about real ones")
            with around.meter(device, run) as meter:
                if isinstance(wish, Wish):
                    measure_design(device, run, wish, policy, caches=timings, meter=meter, on_trial=_tell_failure)
                else:
                    _sit(device, run, Loop(device, run, programs, policy, seed, caches=timings, meter=meter))
            trials, record = list(run.trials), run.manifest
    if not any(trial["type"] == "op" for trial in trials):
        _print_left(left, json_)
        raise UserError(
            f"no op of {f'{network} at {input_}' if network else 'the space'} could be measured on {identity.board}",
            hint="take a smaller input, fewer repetitions, another device, or more time",
        )
    table = store.load(run.folder, status=None)
    from profiler.measure.trust import examine  # noqa: PLC0415 - keeps --help fast

    trust = examine(record, trials)
    seconds = time.monotonic() - start
    return _report(run.folder, table, left, trust, seconds=seconds, earlier=earlier, json_=json_)


def _what(wish: Wish | list[Op], plan: dict[str, Any], programs: Mapping[Op, Any]) -> str:
    of = f"of {plan['network']}" if plan["network"] else "of the general op space"
    if isinstance(wish, Wish):
        return f"ops {of}, {wish.name} design,"
    beside = f" ({plan['companions']} of them companions)" if plan["companions"] else ""
    return f"{sum(op in programs for op in wish)} of {len(wish)} ops {of}{beside}"


def _sit(device: Any, run: store.Run, loop: Loop) -> None:
    """Measure what is missing."""
    empty_ops = len({caches for _, caches in loop.wanted})
    total = (len(loop.wanted) + empty_ops) * loop.policy.rounds_min
    with progress(total, "measuring") as ticker, sitting(device, run):
        loop.on_trial = lambda trial: _tick(ticker, trial)
        ticker.advance(min(total, sum(trial["type"] != "reference" for trial in run.trials)))
        loop.measure(on_round=lambda round_, slots: _grow(ticker, loop, round_, slots))


def _tell_failure(trial: dict[str, Any]) -> None:
    if trial["status"] != "ok":
        message(f"{trial['status']}: {trial['op_key']}: {trial['reason']}")


def _tick(ticker: Ticker, trial: dict[str, Any]) -> None:
    _tell_failure(trial)
    if trial["type"] != "reference":
        ticker.advance(note=trial["op_key"])


def _grow(ticker: Ticker, loop: Loop, round_: int, slots: int) -> None:
    if round_ >= loop.policy.rounds_min and slots:
        ticker.grow(slots)


def _report(
    folder: Path, table: pd.DataFrame, left: list[Left], trust: Trust, *, seconds: float, earlier: bool, json_: bool
) -> int:
    good = table[table.status == "ok"]
    bad = table[table.status != "ok"]
    timer = table.timer.iloc[0]
    if json_:
        print_json(
            {
                "run": str(folder),
                "device": table.device.iloc[0],
                "timer": timer,
                "seconds": seconds,
                "drift": trust.drift,
                "unsteady": trust.unsteady,
                "disturbed": trust.evidence.disturbances,
                "verdict": trust.verdict,
                "findings": [finding.to_dict() for finding in trust.findings],
                "ops": good,
                "not_right": bad[["op_key", "status", "reason"]],
                "not_measured": [item.to_dict() for item in left],
            }
        )
    else:
        _print_left(left, json_)
        if len(bad):
            print_table(bad, ["op_key", "status", "reason"], title="Not timed")
        print_table(
            summary(good),
            title=f"{table.device.iloc[0]}: {len(good)} ops (timer: {timer})",
            caption=f"run: {folder}\n"
            + (
                "latency is virtual time: the timer counts instructions\n"
                if timer == "instructions"
                else f"reference op drifted by {100 * trust.drift:+.2f} %\n"
            )
            + f"harness overhead {_overhead(table)} ticks an op, subtracted"
            + _energy_note(good),
        )
        console_out.print()
    for finding in trust.findings:
        if finding.weight > Weight.NOTE and finding.name not in set(bad.status):  # those are the error below
            warn(f"{finding.sentence}; {finding.advice}")
    spent = format_seconds(seconds) + (" and earlier sittings" if earlier else "")
    message(f"measured {len(good)} ops in {spent}; not measured: {len(left)}; run: {folder}")
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(table)} ops were not timed because their result is wrong or the device failed on them "
            f"(first: {bad.op_key.iloc[0]}: {bad.reason.iloc[0]})",
            hint="see the list above; the others are in the run",
        )
    return 0


def _overhead(table: pd.DataFrame) -> str:
    by_caches = table.groupby("caches", sort=False).overhead_ticks.first()
    if len(by_caches) == 1:
        return format_value(float(by_caches.iloc[0]))
    return " and ".join(f"{format_value(float(ticks))} ({caches})" for caches, ticks in by_caches.items())


def _energy_note(table: pd.DataFrame) -> str:
    """What measured the energies and of how many ops; nothing where nobody was to."""
    sources = sorted(set(table.energy_source.dropna()) - {""})
    if not sources:
        return ""
    made_up = ", made up and measured nowhere" if sources == ["simulated"] else ""
    return f"\nenergy of {int(table.energy_uj.notna().sum())} of {len(table)} ops: {', '.join(sources)}{made_up}"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row a kind and pass: how many ops, what they take together, and how unequal a multiply-accumulate is."""
    import pandas as pd  # noqa: PLC0415 - keeps --help fast

    rows = []
    for (kind, pass_, dtype, caches), group in table.groupby(["kind", "pass", "dtype", "caches"], sort=True):
        per_mac = group.latency_us[group.macs > 0] * 1e3 / group.macs[group.macs > 0]
        rows.append(
            {
                "kind": kind,
                "pass": pass_,
                "dtype": dtype,
                "caches": caches,
                "ops": len(group),
                "held_out": int(group.held_out.sum()),
                "macs": int(group.macs.sum()),
                "latency_ms": group.latency_us.sum() / 1e3,
                **({"energy_mj": group.energy_uj.sum(min_count=1) / 1e3} if table.energy_uj.notna().any() else {}),
                "ns_per_mac_min": per_mac.min() if len(per_mac) else None,
                "ns_per_mac_max": per_mac.max() if len(per_mac) else None,
                "memory_peak_bytes_max": int(group.memory_peak_bytes.max()),
                "relative_error_max": group.relative_error.max(),
            }
        )
    return pd.DataFrame(rows)


def _print_left(left: list[Left], json_: bool) -> None:
    if left and not json_:
        print_table(
            (item.to_dict() for item in left),
            ["op_key", "reason", "bytes_wanted", "bytes_available"],
            title=f"Not measured: {len(left)} ops",
        )
