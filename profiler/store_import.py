"""``profile import``: a table of somebody else's measurements as a run like any other, labelled as what it is."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler import store
from profiler.errors import UserError
from profiler.measure.schedule import EMPTY
from profiler.ops import GEOMETRIES, Op
from profiler.store_import_files import BadRowError, Reading, Table, read_table, sha256
from profiler.store_import_ops import READ_COLUMNS, whole
from profiler.store_import_trials import (
    ENERGIES_UJ,
    LATENCIES_US,
    PEAKS,
    Clock,
    RowsRead,
    TrialRows,
    Watched,
    read_rows,
    records,
    unwatched,
)

#: What the timer and the energy of an imported run are called in every table and plot.
IMPORTED = "imported"

#: The same in all rows of a run, which has one device.
_OF_THE_DEVICE = ("device", "board", "timer", "timer_hz", "clock_hz", "build_hash", "region")
#: Where a row comes from: kept in the manifest.
_ORIGINS = ("run", "device", "board", "region", "plan", "layer")
#: What decides how a row is read, and what a run says anew.
_PASSED_OVER = ("caches", "held_out", "overhead_ticks", "reason", "repetition", "round", "status", "ticks", "trial",
                "type", "warm_up")  # fmt: skip
#: How many rows an error names, how many values of a column the manifest, how many trials are written at a time.
_MOST_NAMED, _MOST_VALUES, _BATCH = 5, 8, 1000


@dataclass(frozen=True)
class Imported:
    """What was made of a table.

    Attributes:
        folder: The run's.
        ops: How many different ops it has.
        repetitions: How many rows are repetitions of them.
        left_out: Why rows were left out, and how many.
        extra_columns: Columns that were kept besides this project's own, under the names they have now.
        depthwise_as_conv2d: Ops that are convolutions with a group a channel, which networks here call ``depthwise``.
    """

    folder: Path
    ops: int
    repetitions: int
    left_out: dict[str, int]
    extra_columns: tuple[str, ...]
    depthwise_as_conv2d: int


def import_table(
    path: Path,
    device: str,
    folder: Path | None = None,
    *,
    timer_hz: int | None = None,
    reading: Reading | None = None,
    skip_bad: bool = False,
    watched: Watched = unwatched,
) -> Imported:
    """Make a run of a table with a row a repetition, or a row an op.

    Args:
        path: CSV, TSV or Parquet. Columns are those of ``profile export``; see
            :func:`profiler.store_import_ops.op_of` for what may be missing.
        device: What the run's device is to be called.
        folder: The run's; None: a new one below ``measurements``.
        timer_hz: Ticks a second, where the table has ``ticks`` and does not say.
        reading: Other names of the columns, values that the table does not say, and which rows to read.
        skip_bad: Leave out rows that are no measurement of an op instead of refusing the table.
        watched: Sees rows and trials go by, as :func:`profiler.cli_support.watched` does.

    Raises:
        UserError: no table, rows that are no measurement of an op, or a folder that is not empty.
    """
    reading = reading or Reading()
    table = read_table(path, reading)
    folder = folder or store.new_run_folder(store.MEASUREMENTS, device, f"{IMPORTED}-{path.stem}")
    if store.holds_run(folder) or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty", hint="give --out a new folder")
    _check_one_device(path, table)
    clock = Clock.of(path, table, timer_hz)
    read = read_rows(table, clock, watched)
    if read.bad and not skip_bad:
        raise _refusal(path, read, len(table.rows))
    measured = [trial for trial in read.trials if trial.type == "op"]
    if not measured:
        found = "; ".join(f"line {line}: {why}" for line, why in read.bad[:1]) or ", ".join(read.left_out)
        raise UserError(f"no row of {path} is a measurement of an op ({found or 'it has none'})", hint=_HINT)
    if read.bad:
        read.left_out["no measurement of an op"] = len(read.bad)
    ops = list(dict.fromkeys(trial.op for trial in measured))
    extra = _extra_columns(table, read.trials)
    manifest = _manifest(path, device, table, clock.timer_hz(read.trials), ops)
    manifest["imported"] |= {
        "left_out": dict(read.left_out),
        "rename": {theirs: list(ours) for theirs, ours in reading.rename.items()},
        "set": dict(reading.values),
        "where": dict(reading.where),
    }
    manifest["extra_columns"] = list(extra)
    if any(row.energy_uj is not None for trial in measured for row in trial.rows):
        manifest["labels"]["energy"] = IMPORTED
    identity = manifest["identity"]
    trials = records(read.trials, clock, identity["timer_hz"], identity["build_hash"], extra)
    _write(folder, manifest, watched(trials, len(read.trials), "writing trials"))
    return Imported(
        folder,
        len(ops),
        sum(not row.warm_up for trial in measured for row in trial.rows),
        dict(read.left_out),
        tuple(extra),
        sum(map(_is_depthwise, ops)),
    )


_HINT = (
    "name its columns with --rename THEIRS=OURS, say what it leaves out with --set COLUMN=VALUE; "
    "`profile import --help` lists ours"
)


def _is_depthwise(op: Op) -> bool:
    g = op.geometry
    return op.kind == "conv2d" and 1 < g.groups == g.in_channels == g.out_channels  # type: ignore[attr-defined]


def _check_one_device(path: Path, table: Table) -> None:
    for column in _OF_THE_DEVICE:
        values = table.values(column)
        if len(values) > 1:
            named = ", ".join(values[:_MOST_NAMED]) + (", ..." if len(values) > _MOST_NAMED else "")
            raise UserError(
                f"{path} has measurements of several devices: {column} is {named}",
                hint=f"import one at a time: --where {column}={values[0]}, by the table's own name of the column",
            )


def _refusal(path: Path, read: RowsRead, row_count: int) -> UserError:
    lines: dict[str, list[int]] = {}
    for line, why in read.bad:
        lines.setdefault(why, []).append(line)
    named = "; ".join(
        f"line {first}: {why}" + (f" (and in {len(more)} lines more)" if more else "")
        for why, (first, *more) in list(lines.items())[:_MOST_NAMED]
    )
    others = sum(map(len, list(lines.values())[_MOST_NAMED:]))
    more = f"; and {others} more" if others else ""
    kinds = f"; kinds are {', '.join(k for k in GEOMETRIES if k != EMPTY.kind)}" if ": kind " in named else ""
    return UserError(
        f"{len(read.bad)} of {row_count} rows of {path} are no measurement of an op: {named}{more}",
        hint=f"{_HINT}; --skip-bad leaves such rows out{kinds}",
    )


def _extra_columns(table: Table, trials: Sequence[TrialRows]) -> dict[str, str]:
    """Columns that are kept as they are: the name they get to the one they have in the table."""
    from profiler.store_export import EXPORT_COLUMNS  # noqa: PLC0415 - pandas takes a second
    from profiler.store_tables import COLUMNS  # noqa: PLC0415

    rows = [(trial.op.macs, row.cells) for trial in trials for row in trial.rows]
    read = {*READ_COLUMNS, *LATENCIES_US, *ENERGIES_UJ, *PEAKS, *_OF_THE_DEVICE, *_ORIGINS, *_PASSED_OVER}
    # Others count otherwise (a bias, padding not): theirs then stand beside ours.
    if all(cells.get("macs", "") in ("", str(macs), f"{macs}.0") for macs, cells in rows):
        read.add("macs")
    kept = [name for name in table.columns if name not in read and any(cells.get(name) for _, cells in rows)]
    taken = {*COLUMNS, *EXPORT_COLUMNS}
    return {f"table_{name}" if name in taken else name: name for name in kept}


def _manifest(path: Path, device: str, table: Table, timer_hz: int, ops: Sequence[Op]) -> dict[str, Any]:
    file_hash = sha256(path)
    build, timer, clock = (table.only(name) for name in ("build_hash", "timer", "clock_hz"))
    label = timer if timer.startswith(IMPORTED) else f"{IMPORTED} ({timer})" if timer else IMPORTED
    try:
        clock_hz = whole("clock_hz", clock, 1) if clock else None
    except BadRowError as error:
        raise UserError(f"{path}: {error}", hint="give the core's clock in hertz") from None
    return {
        "device": device,
        "port": None,
        "identity": {
            "board": device,
            "unique_id": "",
            "clock_hz": clock_hz,
            "timer": label,
            "timer_hz": timer_hz,
            "build_hash": f"{IMPORTED}-{build.removeprefix(f'{IMPORTED}-') or file_hash[:16]}",
            "memory": [],
        },
        "labels": {"timer": label, "energy": None},
        "instrument": None,
        "kernels": "unknown",
        "plan": {"kind": IMPORTED, "network": IMPORTED, "ops": [op.key for op in ops]},
        "policy": {},
        "not_measured": [],
        "sittings": [],
        "imported": {
            "file": path.name,
            "sha256": file_hash,
            "rows": table.row_count,
            "origins": {name: values[:_MOST_VALUES] for name in _ORIGINS if (values := table.values(name))},
        },
    } | store.provenance()


def _write(folder: Path, manifest: dict[str, Any], trials: Iterator[dict[str, Any]]) -> None:
    """A whole run in ``folder``, or nothing: one that is not complete could not be gone on with."""
    unfinished = folder.parent / f".{folder.name}.{os.getpid()}"
    try:
        with store.Run.create(unfinished, manifest) as run:
            batch: list[dict[str, Any]] = []
            for trial in trials:
                batch.append(trial)
                if len(batch) == _BATCH:
                    run.extend(batch)
                    batch = []
            run.extend(batch)
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(
            f"cannot write the run {folder}: {error.strerror}", hint="give --out a new folder that you can write"
        ) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(unfinished)
