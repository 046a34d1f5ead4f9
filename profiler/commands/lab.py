"""``profile --lab``: the default verb for many boards at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from profiler.cli_support import console_out, message, print_json, print_table
from profiler.errors import UserError
from profiler.lab.config import Board, load
from profiler.lab.display import display
from profiler.lab.process import Outcome, Status
from profiler.lab.runner import measure_boards
from profiler.link.ports.labgrid_client import power_cycle_command
from profiler.shown_values import format_seconds

#: Options of the command that each board's own command does not have, or has with a value of its own.
_OF_THE_LAB = frozenset({"port", "lab", "out", "name", "json_"})


def measure_lab(ctx: typer.Context, file: Path, out: Path | None, *, json_: bool) -> int:
    """Measure every board of a lab, each with the options that were given and with its own over those.

    Args:
        ctx: Of the command; the options that were given go to each board.
        file: Lists the boards.
        out: Folder of the boards' runs, a folder each.
        json_: Whether to report as JSON.
    """
    start = time.monotonic()
    lab = load(file)
    if _was_given(ctx, "name"):
        raise UserError("--name goes with --port", hint=f"boards are named in {file}", exit_status=2)
    _check_one_instrument_a_board(ctx, file)
    message(f"measuring {len(lab.boards)} boards: {', '.join(board.name for board in lab.boards)}")
    with display([board.name for board in lab.boards]) as shown:
        outcomes = measure_boards(lab, lambda board: board_arguments(ctx, board, out), shown)
    seconds = time.monotonic() - start
    if json_:
        print_json({"lab": str(file), "seconds": seconds, "boards": [_record(outcome) for outcome in outcomes]})
    else:
        print_table([_row(outcome) for outcome in outcomes], title=f"{file}: {len(outcomes)} boards")
        console_out.print()
    good = [outcome for outcome in outcomes if outcome.status is Status.OK]
    message(f"measured {len(good)} of {len(outcomes)} boards in {format_seconds(seconds)}")
    _raise_for(outcomes)
    return 0


def board_arguments(ctx: typer.Context, board: Board, out: Path | None) -> list[str]:
    """Arguments of ``profile measure`` for one board of a lab.

    Args:
        ctx: Of the command with --lab.
        board: Its own options come over those that were given.
        out: Folder of all boards' runs.
    """
    options = dict(board.options)
    if board.power_cycle is not None:
        options["power-cycle"] = (
            power_cycle_command(board.port) if board.power_cycle is True else str(board.power_cycle)
        )
    if board.out is not None or out is not None:
        options["out"] = str(board.out or Path(out or ".") / board.name)
    if (log := ctx.params["link_log"]) is not None:
        options["link-log"] = str(log.with_name(f"{log.stem}-{board.name}{log.suffix}"))
    arguments = [f"--port={board.port}", f"--name={board.name}", "--json"]
    own = {name.replace("-", "_") for name in options}
    arguments += _given_arguments(ctx, without=_OF_THE_LAB | own)
    return arguments + [f"--{name}={value}" for name, value in options.items()]


def _check_one_instrument_a_board(ctx: typer.Context, file: Path) -> None:
    for option in ("energy", "target_power"):
        text = ctx.params[option]
        if text is not None and text.partition(":")[0] == "joulescope":
            raise UserError(
                f"--lab and --{option.replace('_', '-')} {text} exclude each other: one instrument is on one board",
                hint=f"name it in {file}, at its board: `{option}: joulescope:SERIAL`",
                exit_status=2,
            )


def _was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _given_arguments(ctx: typer.Context, without: frozenset[str]) -> list[str]:
    """The options of this command line, as they would be typed."""
    arguments = []
    for parameter in ctx.command.params:
        if parameter.name in without or not _was_given(ctx, parameter.name):
            continue
        value: Any = ctx.params[parameter.name]
        if getattr(parameter, "is_flag", False):
            arguments.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            values = value if parameter.multiple else [value]
            arguments += [f"{parameter.opts[0]}={item}" for item in values]
    return arguments


def _row(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report or {}
    return {
        "board": outcome.board.name,
        "status": str(outcome.status),
        "ops_measured": outcome.ops_measured,
        "timer": report.get("timer"),
        "drift_percent": 100 * report["drift"] if report else None,
        "seconds": outcome.seconds,
        "run": str(outcome.run) if outcome.run else "",
    }


def _record(outcome: Outcome) -> dict[str, Any]:
    report = outcome.report or {}
    return {
        "board": outcome.board.name,
        "port": outcome.board.port,
        "status": str(outcome.status),
        "reason": outcome.reason or None,
        "run": outcome.run,
        "ops_measured": outcome.ops_measured,
        "seconds": outcome.seconds,
        **{key: report.get(key) for key in ("timer", "drift", "unsteady", "disturbed", "not_right", "not_measured")},
    }


def _raise_for(outcomes: Sequence[Outcome]) -> None:
    """Raise UserError unless all boards are well, after a sentence for each that is not."""
    bad = [outcome for outcome in outcomes if outcome.status is not Status.OK]
    if not bad:
        return
    by_reason: dict[str, list[str]] = {}
    for outcome in bad:
        by_reason.setdefault(f"{outcome.status}: {outcome.reason}", []).append(outcome.board.name)
    for reason, names in by_reason.items():
        message(f"{', '.join(names)}: {reason}")
    go_on = "go on with the same command and --resume"
    if any(outcome.status is Status.INTERRUPTED for outcome in bad):
        raise UserError("interrupted; the trials so far are safe", hint=go_on)
    names = ", ".join(outcome.board.name for outcome in bad)
    usage = all(outcome.bad_usage for outcome in bad)
    raise UserError(
        f"{len(bad)} of {len(outcomes)} boards failed: {names}",
        hint=f"see the reasons above; put them right and {go_on}: what the boards have measured is kept",
        exit_status=2 if usage else 1,
    )
