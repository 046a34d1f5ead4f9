"""``profile verify``: every op of a network against PyTorch, without timing."""

from __future__ import annotations

import typer

from profiler.cli_support import message, print_json, print_table, progress
from profiler.commands.metering import instrument_around
from profiler.commands.options import (
    DEFAULT_RATIOS,
    TRIAL_LIMIT_S,
    BaudOption,
    ClassesOption,
    DtypeOption,
    HeadOption,
    InputOption,
    JsonOption,
    LimitOption,
    LinkLogOption,
    NetworkOption,
    OptimizerOption,
    PassesOption,
    PortOption,
    PowerCycleOption,
    RatiosOption,
    RegionOption,
    SeedOption,
    TargetPowerOption,
    TrialLimitOption,
    open_chosen_device,
)
from profiler.commands.wanted import wanted_ops
from profiler.errors import UserError
from profiler.link.errors import DeviceReset, Refused, Stopped
from profiler.link.transport import BAUD
from profiler.measure.schedule import EMPTY
from profiler.measure.sitting import split
from profiler.measure.trials import Status, not_timed
from profiler.measure.verify import Ahead, expected_outputs
from profiler.measure.verify import verify as verify_program


def verify(
    *,
    port: PortOption,
    network: NetworkOption,
    input_: InputOption,
    passes: PassesOption = None,
    dtype: DtypeOption = "f32",
    ratios: RatiosOption = DEFAULT_RATIOS,
    optimizer: OptimizerOption = None,
    head: HeadOption = "cosine_prototype",
    classes: ClassesOption = 5,
    limit: LimitOption = None,
    region: RegionOption = None,
    seed: SeedOption = 1,
    baud: BaudOption = BAUD,
    power_cycle: PowerCycleOption = None,
    target_power: TargetPowerOption = None,
    link_log: LinkLogOption = None,
    trial_limit: TrialLimitOption = TRIAL_LIMIT_S,
    json_: JsonOption = False,
) -> None:
    """Check every op of a network on a device against PyTorch; a line for each that is wrong, as it is found.

    Exit status 1 if any is.

    Example: profile verify --port native:// --network mcunet-5fps --input 3x64x64
    """

    wanted = wanted_ops(
        network,
        input_,
        passes=passes,
        dtype=dtype,
        ratios=ratios,
        optimizers=optimizer,
        head=head,
        classes=classes,
        limit=limit,
        seed=seed,
    )
    rows = []
    with (
        instrument_around(None, port, target_power=target_power, power_cycle=power_cycle) as around,
        open_chosen_device(
            port, baud, power_cycle, region, link_log=link_log, trial_limit_s=trial_limit, supply=around.supply
        ) as device,
    ):
        programs, left = split(wanted.ops, device.identity, device.memory, repetitions=0)
        programs.pop(EMPTY, None)
        compute = lambda program: expected_outputs(program, seed, device.memory)  # noqa: E731
        queue = [(op.key, program) for op, program in programs.items()]
        with progress(len(programs), "verifying") as ticker, Ahead(queue, compute) as references:
            for op, program in programs.items():
                row = {"op_key": op.key, "status": "ok", "relative_error": None, "reason": ""}
                try:
                    verdict = verify_program(device, program, references.get(op.key, program), seed)
                    row["relative_error"] = verdict.relative_error
                    if not verdict.right:
                        row |= {"status": "wrong", "reason": verdict.sentence}
                except Refused as error:
                    row |= not_timed(Status.REFUSED, error.args[0])
                except Stopped as error:
                    row |= not_timed(Status.STOPPED, error.args[0])
                except DeviceReset as error:
                    row |= not_timed(Status.FAILED, error.args[0])
                rows.append(row)
                if row["status"] != "ok" and not json_:
                    # At once: should the link die, what was found is on the screen.
                    ticker.line(f"{row['status']}: {row['op_key']}: {row['reason']}")
                ticker.advance(note=op.key)
        board = device.identity.board
    bad = [row for row in rows if row["status"] != "ok"]
    worst = max((row["relative_error"] or 0.0 for row in rows), default=0.0)
    if json_:
        print_json(
            {
                "board": board,
                "network": network,
                "checked": len(rows),
                "wrong": bad,
                "relative_error_max": worst,
                "not_checked": [item.to_dict() for item in left],
                "ops": rows,
            }
        )
    else:
        if left:
            print_table(
                (item.to_dict() for item in left),
                ["op_key", "reason", "bytes_wanted", "bytes_available"],
                title=f"Not checked: {len(left)} ops",
            )
        if rows:
            typer.echo(
                f"{len(rows) - len(bad)} of {len(rows)} ops of {network} agree with PyTorch on {board} "
                f"(largest relative error {worst:.1e}); {len(left)} not checked"
            )
    if not rows:
        raise UserError(
            f"no op of {network} at {input_} could be checked on {board}", hint="take a smaller input or another device"
        )
    if bad:
        wrong = sum(row["status"] == "wrong" for row in bad)
        if wrong:
            message(f"{wrong} ops are wrong on {board}: rebuild its firmware, and report what stands above")
        if len(bad) > wrong:
            message(f"{len(bad) - wrong} ops could not be checked on {board}: see the reasons above")
        raise typer.Exit(1)
