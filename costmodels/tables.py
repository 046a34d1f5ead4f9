"""Tables of somebody else's measurements, read as a run would be, without keeping the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from costmodels.measured import Measured, read
from profiler.errors import UserError
from profiler.store_import import import_table
from profiler.store_import_files import Reading, read_table
from profiler.store_import_trials import ENERGIES_UJ, LATENCIES_US

#: Columns that say how long an op took.
TIMES = (*LATENCIES_US, "ticks")


def read_measured_table(path: Path, column: str) -> Measured:
    """The measurements of a table with the columns of ``profile import``.

    Args:
        path: CSV, TSV or Parquet.
        column: What is to be fitted: one of the columns of time, or of energy, whose table needs a time too.

    Raises:
        UserError: no such table or column, or rows that are no measurement of an op.
    """
    table = read_table(path, Reading())
    columns = table.columns
    fittable = [name for name in (*TIMES, *ENERGIES_UJ) if name in columns and table.only(name)]
    if column in ENERGIES_UJ and column in columns and column not in fittable:
        raise UserError(
            f"{path}: column {column} has no energy", hint=f"fit a time: {', '.join(fittable) or 'none is there'}"
        )
    if column not in fittable:
        there = f"of these it has {', '.join(fittable)}" if fittable else "it has none"
        raise UserError(
            f"{path} has no column {column} to fit; what can be fitted is {', '.join((*TIMES, *ENERGIES_UJ))}, {there}",
            hint="rename its columns to those that `profile import --help` lists",
        )
    # A table may say the time more than once: what was asked for counts.
    others = [name for name in TIMES if name in columns and name != column] if column in TIMES else []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        try:
            import_table(path, path.stem, run, reading=Reading(rename={name: (f"also_{name}",) for name in others}))
        except UserError as error:
            error.hint = "fit the run that `profile import` makes of it, whose options rename, add or leave out"
            raise
        measured = read(run)
    if column in ENERGIES_UJ and not (measured.energy_uj > 0).any():
        raise UserError(f"{path}: column {column} has no energy", hint="leave out rows without, or fit its time")
    return measured
