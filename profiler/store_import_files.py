"""Tables of somebody else's measurements as rows of text: CSV and its relatives, and Parquet where pyarrow is there."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.errors import UserError

_DELIMITERS = (",", "\t", ";")
_PARQUET_MAGIC = b"PAR1"


class BadRowError(ValueError):
    """A row that is no measurement of an op; the message says which cell and why."""


def bad_cell(column: str, value: str, why: str) -> BadRowError:
    """The row's cell in ``column`` cannot be."""
    return BadRowError(f"{column} is {why}" if value == "" else f"{column} = {value!r}: {why}")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: In the file, from 1; of Parquet the number of the row.
        cells: Text by column, spaces around it taken off; empty where there is none.
        fault: Why its cells cannot be told apart, in words; empty: they can.
    """

    line: int
    cells: dict[str, str]
    fault: str = ""


@dataclass(frozen=True)
class Reading:
    """How a table's columns are to be taken.

    Attributes:
        rename: The table's name of a column to ours; one column may be several of ours (a square kernel, say).
        values: Ours to what the table does not say, or leaves empty.
        where: The table's own name of a column to the only value whose rows are read.
    """

    rename: Mapping[str, Sequence[str]] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table as it is to be read.

    Attributes:
        columns: Names after renaming, those with stated values among them.
        rows: What there is.
        row_count: How many rows the file has, those that ``where`` leaves out among them.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    row_count: int

    def values(self, column: str) -> list[str]:
        """Different values of a column, in order; empty cells are none."""
        return list(dict.fromkeys(value for row in self.rows if (value := row.cells.get(column, ""))))

    def only(self, column: str) -> str:
        """The first value of a column; empty where it has none."""
        return next((value for row in self.rows if (value := row.cells.get(column, ""))), "")


def sha256(path: Path) -> str:
    """Of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_table(path: Path, reading: Reading) -> Table:
    """Read a table's rows as text.

    Args:
        path: A CSV (delimited by commas, semicolons or tabs, as its first line tells), or a Parquet file.
        reading: What its columns are to be called.

    Raises:
        UserError: there is no such file, it is no table, or it has not the columns that ``reading`` names.
    """
    try:
        with path.open("rb") as stream:
            parquet = stream.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        header, lines = _parquet(path) if parquet else _delimited(path)
        names = _names(path, header, reading)
        rows = [_row(line, cells, header, names, reading) for line, cells in lines if any(cells)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="give a table's file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table of text: {error}", hint="give a CSV in UTF-8, or Parquet") from None
    columns = tuple(dict.fromkeys([*(name for targets in names for name in targets), *reading.values]))
    return Table(columns, [row for row in rows if row is not None], len(rows))


def _row(line: int, cells: list[str], header: list[str], names: list[list[str]], reading: Reading) -> Row | None:
    """A row with our names; None where it is not wanted."""
    if len(cells) != len(header):
        return Row(line, {}, f"it has {len(cells)} cells where the header has {len(header)}")
    theirs = dict(zip(header, cells, strict=True))
    if any(theirs[name] != value for name, value in reading.where.items()):
        return None
    ours = {name: cell for targets, cell in zip(names, cells, strict=True) for name in targets}
    for name, value in reading.values.items():
        ours[name] = ours.get(name) or value
    return Row(line, ours)


def _names(path: Path, header: list[str], reading: Reading) -> list[list[str]]:
    """Of each column of the header what it is called here."""
    for option, wanted in (("--rename", reading.rename), ("--where", reading.where)):
        for name in wanted:
            if name not in header:
                raise UserError(
                    f"{option} names a column {name!r}, and {path} has none",
                    hint=f"there are {', '.join(filter(None, header))}",
                    exit_status=2,
                )
    names = [list(reading.rename.get(name, [name] if name else [])) for name in header]
    flat = [name for targets in names for name in targets]
    twice = sorted({name for name in flat if flat.count(name) > 1})
    if twice:
        raise UserError(
            f"{path} has two columns that are called {twice[0]}",
            hint="call one of them something else with --rename THEIRS=OTHER",
        )
    return names


def _delimited(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """(header, (line number, cells) of each row)."""
    rows = _csv_rows(path)
    header = next(rows, None)
    if header is None:
        raise UserError(f"{path} is empty", hint="give a table with a line of column names and a row a measurement")
    return header[1], rows


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        first = stream.readline()
        stream.seek(0)
        delimiter = max(_DELIMITERS, key=first.count)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]


def _parquet(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - an optional package
    except ImportError:
        raise UserError(
            f"{path} is Parquet, and pyarrow is not installed", hint="pip install pyarrow, or give the table as CSV"
        ) from None
    from pyarrow import ArrowException  # noqa: PLC0415

    try:
        table = parquet.read_table(path)
    except (ArrowException, ValueError) as error:
        raise UserError(f"{path} is no whole Parquet file: {error}", hint="write it again, or give it as CSV") from None
    records = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return list(table.column_names), ((i, [_text(v) for v in cells]) for i, cells in enumerate(records, start=1))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()
