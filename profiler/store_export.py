"""Runs for other programs: a row a repetition, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from profiler.measure.trials import caches_of
from profiler.store import iterate, read_manifest
from profiler.store_tables import OP_COLUMNS, Overhead, device_columns, held_out_trial, op_columns

EXPORT_COLUMNS: tuple[str, ...] = (
    "run",
    "device",
    "board",
    "timer",
    "timer_hz",
    "type",
    "plan",
    "layer",
    *OP_COLUMNS,
    "caches",
    "held_out",
    "status",
    "trial",
    "round",
    "repetition",
    "warm_up",
    "ticks",
    "overhead_ticks",
    "latency_us",
    "energy_uj",
    "arena_peak_bytes",
    "scratch_peak_bytes",
    "stack_peak_bytes",
)


def export_rows(path: Path, *, everything: bool = False, damage: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """One row a repetition, columns :data:`EXPORT_COLUMNS`; of a step's trial one a repetition and op.

    Args:
        path: Folder of a run.
        everything: Warm-ups, rejected repetitions, trials of the empty and the reference op, and ops without ticks
            (wrong, refused) too.
        damage: As for :func:`profiler.store.iterate`.
    """
    folder = Path(path)
    common = device_columns(folder, read_manifest(folder))
    quiet: list[str] = []
    harness = Overhead()
    for trial in iterate(folder, quiet):
        harness.add(trial)
    for trial in iterate(folder, damage):
        if trial["type"] not in ("op", "step") and not everything:
            continue
        row = common | {name: trial.get(name) for name in ("type", "plan", "status", "trial", "round")}
        row["caches"] = caches_of(trial)
        row |= {name: trial.get(name) for name in ("arena_peak_bytes", "scratch_peak_bytes", "stack_peak_bytes")}
        if trial["type"] == "step":
            yield from _export_step(row, trial, harness.ticks("warm"), everything)
            continue
        overhead = harness.ticks(row["caches"])
        row |= op_columns(trial) | {"held_out": held_out_trial(trial), "overhead_ticks": overhead}
        accepted = set(range(trial["warm_ups"], len(trial["ticks"]))) - {r["repetition"] for r in trial["rejected"]}
        for index, ticks in enumerate(trial["ticks"]):
            if everything or index in accepted:
                yield row | _repetition(index, trial["warm_ups"], ticks, overhead, row["timer_hz"])
        if everything and not trial["ticks"]:
            yield row


def _export_step(
    row: dict[str, Any], trial: dict[str, Any], overhead: float, everything: bool
) -> Iterator[dict[str, Any]]:
    for index, ticks in enumerate(trial["ticks"]):
        if index < trial["warm_ups"] and not everything:
            continue
        for entry, value in zip(trial["timed"], ticks, strict=True):
            share = overhead * entry["count"]
            yield (
                row
                | op_columns(entry)
                | {"layer": entry["layer"], "held_out": held_out_trial(entry), "overhead_ticks": share}
                | _repetition(index, trial["warm_ups"], value, share, row["timer_hz"])
            )


def _repetition(index: int, warm_ups: int, ticks: int, overhead: float, timer_hz: int) -> dict[str, Any]:
    return {
        "repetition": index - warm_ups,
        "warm_up": index < warm_ups,
        "ticks": ticks,
        "latency_us": max(ticks - overhead, 0.0) * 1e6 / timer_hz,
    }


def write_csv(rows: Iterable[dict[str, Any]], stream: TextIO) -> int:
    """Write rows of :func:`export_rows`; how many there were."""
    writer = csv.DictWriter(stream, EXPORT_COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007 - the count is what is wanted
        writer.writerow(row)
    return count
