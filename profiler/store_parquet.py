"""Runs as Parquet: the rows of :mod:`profiler.store_export` with their types, and where they come from.

What the figures mean travels in the file: its schema's metadata has a key ``tinytrain-hil`` with a JSON record of
:func:`origin`. Needs pyarrow (the extra ``parquet``).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from profiler.devices.identity import INSTRUCTIONS
from profiler.errors import UserError
from profiler.store import iterate, read_manifest
from profiler.store_export import BOOLEANS, EXPORT_COLUMNS, FLOATS, TEXTS, Sink
from profiler.store_provenance import package_version
from profiler.store_tables import extra_columns

if TYPE_CHECKING:
    import pyarrow as pa

#: Key of the schema's metadata.
METADATA_KEY = "tinytrain-hil"
#: Rows of a row group: enough for columns to compress, few enough to hold.
ROW_GROUP_ROWS = 1 << 16


def origin(folder: Path) -> dict[str, Any]:
    """Where a run's figures come from, as its manifest says: device, timer, firmware build, versions.

    ``emulated`` is whether ticks count an emulator's instructions instead of time.
    """
    manifest = read_manifest(folder)
    identity, timer = manifest["identity"], manifest["labels"]["timer"]
    return {
        "run": Path(folder).name,
        "device": manifest["device"],
        "timer": timer,
        "emulated": timer == INSTRUCTIONS,
        **{
            name: identity.get(name)
            for name in ("board", "core", "timer_hz", "clock_hz", "build_hash", "firmware_version", "compiler", "flags")
        },
        **{name: manifest.get(name) for name in ("created_at", "git_commit", "versions", "instrument")},
        "network": manifest.get("plan", {}).get("network"),
        "schema": manifest["schema"],
        "begun_with_schema": manifest.get("begun_with_schema", manifest["schema"]),
        "exported_by": f"tinytrain-hil {package_version('tinytrain-hil')}",
    }


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise UserError(
            "writing Parquet needs pyarrow, which is not installed",
            hint="pip install 'tinytrain-hil[parquet]', or give --csv",
        ) from None
    return pyarrow, pyarrow.parquet


def parquet_schema(folder: Path) -> pa.Schema:
    """Names, types and metadata of the columns of a run's Parquet file.

    Raises:
        UserError: pyarrow is not installed, or there is no such run.
    """
    pa, _ = _pyarrow()
    types = dict.fromkeys(EXPORT_COLUMNS, pa.int64())
    for names, kind in ((TEXTS, pa.string()), (BOOLEANS, pa.bool_()), (FLOATS, pa.float64())):
        types |= dict.fromkeys(names, kind)
    found = _extra_types(folder)
    types |= {name: {int: pa.int64(), float: pa.float64(), str: pa.string()}[kind] for name, kind in found.items()}
    return pa.schema(list(types.items()), metadata={METADATA_KEY: json.dumps(origin(folder))})


def _extra_types(folder: Path) -> dict[str, type]:
    """Of each column that only this run has, the type that holds all its values."""
    names = extra_columns(read_manifest(folder))
    if not names:
        return {}
    ranks = {int: 0, float: 1, str: 2}
    found: dict[str, type] = dict.fromkeys(names, int)
    for trial in iterate(folder, []):
        for name, values in trial.get("extra", {}).items():
            kinds = {type(value) for value in values} - {type(None)}
            found[name] = max(kinds | {found[name]}, key=ranks.__getitem__)
    return found


@contextlib.contextmanager
def parquet_sink(target: Path, folder: Path) -> Iterator[Sink]:
    """A Parquet file to be: what is yielded takes rows of :func:`profiler.store_export.export_rows`.

    The file is there whole when this ends well, else what was there before. Memory holds a row group at most.

    Args:
        target: The file.
        folder: The run's.

    Raises:
        UserError: pyarrow is not installed.
        OSError: the file cannot be written.
    """
    pa, parquet = _pyarrow()
    schema = parquet_schema(folder)
    texts = [field.name for field in schema if field.type == pa.string() and field.name not in TEXTS]
    special = target.exists() and not target.is_file()  # a pipe, say: nothing to put in its place
    temporary = target if special else target.with_name(f"{target.name}.tmp")
    batches: list[pa.RecordBatch] = []

    def flush(writer: Any) -> None:
        if batches:
            writer.write_table(pa.Table.from_batches(batches, schema))
            batches.clear()

    def take(rows: Sequence[dict[str, Any]]) -> None:
        for name in texts:
            rows = [row if row.get(name) is None else row | {name: str(row[name])} for row in rows]
        batches.append(pa.RecordBatch.from_pylist(list(rows), schema))
        if sum(batch.num_rows for batch in batches) >= ROW_GROUP_ROWS:
            flush(writer)

    try:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            yield take
            flush(writer)
        if not special:
            os.replace(temporary, target)
    except BaseException:
        if not special:
            temporary.unlink(missing_ok=True)
        raise
