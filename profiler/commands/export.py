"""``profile export``: a run as a table for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli_support import message
from profiler.errors import UserError
from profiler.store import read_manifest


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="The table; - for stdout.")],
    everything: Annotated[
        bool,
        typer.Option("--all", help="Warm-ups, rejected repetitions, the empty and the reference op and wrong ops too."),
    ] = False,
) -> None:
    """Write a run as CSV, a row a repetition: the op's columns, repetition, ticks, latency_us.

    Latencies have the harness's own cost (overhead_ticks) subtracted.

    Example: profile export measurements/qemu-stm32f405/20260101-120000-mcunet-5fps --csv ops.csv
    """
    from profiler.store_export import export_columns, export_rows, write_csv  # noqa: PLC0415 - keeps --help fast

    read_manifest(run)  # no run: said before FILE is emptied
    damage: list[str] = []
    columns = export_columns(run)
    rows = export_rows(run, everything=everything, damage=damage)
    if str(csv) == "-":
        count = write_csv(rows, sys.stdout, columns)
    else:
        try:
            with csv.open("w", newline="") as stream:
                count = write_csv(rows, stream, columns)
        except OSError as error:
            raise UserError(f"cannot write {csv}: {error.strerror}", hint="give --csv a file you can write") from None
    message(f"{count} rows of {run}" + ("" if str(csv) == "-" else f" in {csv}"))
    if damage:
        more = f" (and {len(damage) - 1} lines more)" if len(damage) > 1 else ""
        raise UserError(
            f"{damage[0].rpartition('; ')[0]}{more}; the {count} rows of the sound trials are exported",
            hint="`profile ... --resume` measures the missing ones again",
        )
