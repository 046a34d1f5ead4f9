"""``profile export``: a run as a table for other programs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.cli_support import message, warn
from profiler.errors import UserError
from profiler.outputs import check_file
from profiler.store import read_manifest


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="The table as CSV; - for stdout.")] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="The table as Parquet; both may be given.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Warm-ups, rejected repetitions, the empty and the reference op and wrong ops too."),
    ] = False,
) -> None:
    """Write a run as CSV or Parquet, a row a repetition: the op's columns, repetition, ticks, latency_us.

    Latencies have the harness's own cost (overhead_ticks) subtracted. A Parquet file also says where its figures come
    from: device, timer, firmware build, versions.

    Example: profile export measurements/qemu-stm32f405/20260101-120000-mcunet-5fps --csv ops.csv
    """
    from profiler.store_export import export_rows, write  # noqa: PLC0415 - keeps --help fast

    if csv is None and parquet is None:
        raise UserError("there is no file to write", hint="give --csv FILE or --parquet FILE, or both", exit_status=2)
    if str(parquet) == "-":
        raise UserError("--parquet writes to a file only", hint="give it a name, or --csv -", exit_status=2)
    read_manifest(run)  # no run: said before FILE is emptied
    for path, option in ((csv, "--csv"), (parquet, "--parquet")):
        if path is not None and str(path) != "-":
            check_file(path, "the table", option)
    damage: list[str] = []
    with contextlib.ExitStack() as files:
        sinks = [files.enter_context(_csv(csv, run))] if csv is not None else []
        sinks += [files.enter_context(_parquet(parquet, run))] if parquet is not None else []
        count = write(export_rows(run, everything=everything, damage=damage), sinks)
    named = " and ".join(str(path) for path in (csv, parquet) if path is not None and str(path) != "-")
    message(f"{count} rows of {run}" + (f" in {named}" if named else ""))
    if damage:
        for sentence in damage[1:]:
            warn(sentence)
        raise UserError(
            f"{damage[0].rpartition('; ')[0]}; the {count} rows of the sound trials are exported",
            hint="`profile ... --resume` measures the missing ones again",
        )


@contextlib.contextmanager
def _csv(path: Path, run: Path) -> Iterator[Any]:
    from profiler.store_export import csv_sink, export_columns  # noqa: PLC0415

    columns = export_columns(run)
    if str(path) == "-":
        yield csv_sink(sys.stdout, columns)
        return
    with _writing(path, "--csv"), path.open("w", newline="") as stream:
        yield _guarded(csv_sink(stream, columns), path, "--csv")


@contextlib.contextmanager
def _parquet(path: Path, run: Path) -> Iterator[Any]:
    from profiler.store_parquet import parquet_sink  # noqa: PLC0415

    with _writing(path, "--parquet"), parquet_sink(path, run) as sink:
        yield _guarded(sink, path, "--parquet")


def _guarded(sink: Any, path: Path, option: str) -> Any:
    """``sink`` whose errors name its own file, where another is written too."""

    def take(rows: Any) -> None:
        with _writing(path, option):
            sink(rows)

    return take


@contextlib.contextmanager
def _writing(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}", hint=f"give {option} a file you can write"
        ) from None
