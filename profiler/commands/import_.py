"""``profile import``: a table of somebody else's measurements as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message, print_json, print_table, warn, watched
from profiler.commands.options import JsonOption, run_folder
from profiler.errors import UserError


def import_(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV, TSV or Parquet.")],
    *,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="What it was measured on.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The run's folder. [default: measurements/NAME/TIME-imported-TABLE]"),
    ] = None,
    timer_hz: Annotated[
        int | None, typer.Option("--timer-hz", min=1, metavar="HZ", help="Ticks a second, for a column `ticks`.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename",
            metavar="THEIRS=OURS",
            help="What a column is called here; kernel=kernel_h,kernel_w makes two of one. May be given often.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="COLUMN=VALUE",
            help="A column of ours that the table leaves out or empty, such as kind=conv2d. May be given often.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="THEIRS=VALUE",
            help="Only rows with this in a column of the table's own. May be given often.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out rows that are no measurement of an op, and say how many.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Make a run of a table of somebody else's measurements, to be exported, checked and fitted like any other.

    A row is a repetition, or an op; rows of the same op are its repetitions. Its columns are those of `profile
    export`: kind, pass (forward where it is left out), dtype (f32), the kind's sizes (in_h, in_w, in_channels,
    out_channels, kernel_h, kernel_w, stride_h, stride_w, groups, has_bias, ...), trained_channels, trained_axis,
    trains_bias, optimizer; latency_us (or _ms, _ns, _s), or ticks with --timer-hz; where they were measured energy_uj
    and memory_peak_bytes. Padding is pad_h and pad_w, or follows from out_h and out_w. Other columns are kept. The kind
    has to be one of this project's; its tables and plots call the timer `imported`.

    Example: profile import theirs.csv --device their-m4 --out runs/theirs --timer-hz 168000000 --set kind=conv2d
    --set dtype=s8 --rename cycles=ticks --rename kernel=kernel_h,kernel_w
    """
    from profiler.store_import import import_table  # noqa: PLC0415 - keeps --help fast
    from profiler.store_import_files import Reading  # noqa: PLC0415

    device = device.strip()
    if not device:
        raise UserError("--device is empty", hint="name what the table was measured on", exit_status=2)
    reading = Reading(
        rename={theirs: _names(theirs, ours) for theirs, ours in _pairs("--rename", rename).items()},
        values=_pairs("--set", set_),
        where=_pairs("--where", where),
    )
    found = import_table(
        table, device, run_folder(out), timer_hz=timer_hz, reading=reading, skip_bad=skip_bad, watched=watched
    )
    from profiler.store import load  # noqa: PLC0415

    ops = load(found.folder)
    timer = ops.timer.iloc[0]
    rows = [
        {
            "kind": kind,
            "pass": pass_,
            "dtype": dtype,
            "ops": len(group),
            "repetitions": int(group.repetitions.sum()),
            "latency_us_min": group.latency_us.min(),
            "latency_us_max": group.latency_us.max(),
        }
        for (kind, pass_, dtype), group in ops.groupby(["kind", "pass", "dtype"], sort=True)
    ]
    if json_:
        print_json(
            {
                "run": str(found.folder),
                "device": device,
                "timer": timer,
                "ops": found.ops,
                "repetitions": found.repetitions,
                "left_out": found.left_out,
                "extra_columns": found.extra_columns,
                "by_kind": rows,
            }
        )
    else:
        print_table(rows, title=f"{device}: {found.ops} ops (timer: {timer})", caption=f"run: {found.folder}")
    for reason, count in found.left_out.items():
        warn(f"{count} rows are left out: {reason}")
    if found.depthwise_as_conv2d:
        warn(
            f"{found.depthwise_as_conv2d} ops are convolutions with a group a channel: networks here call those "
            "depthwise, and predictions of them will not use these; give them that kind in the table"
        )
    kept = f"; other columns kept: {', '.join(found.extra_columns)}" if found.extra_columns else ""
    message(f"{found.repetitions} repetitions of {found.ops} ops imported; run: {found.folder}{kept}")


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """``a=b`` by its first half."""
    pairs: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise UserError(f"{option} {text!r} is no pair", hint=f"give it as in `{option} name=value`", exit_status=2)
        if name in pairs:
            raise UserError(f"{option} names {name} twice", hint="give each name once", exit_status=2)
        pairs[name] = value
    return pairs


def _names(theirs: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"--rename {theirs}={text} has an empty name", hint="give names with commas between",
                        exit_status=2)  # fmt: skip
    return names
