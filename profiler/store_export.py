"""Runs for other programs: a row a repetition, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from profiler.measure.trials import caches_of
from profiler.store import read_manifest
from profiler.store_tables import (
    OP_COLUMNS,
    PEAKS,
    UNKNOWN,
    Overhead,
    device_columns,
    extra_columns,
    held_out_trial,
    op_columns,
    own_trials,
    peaks_of,
)

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
    "memory_peak_bytes",
)


def export_rows(path: Path, *, everything: bool = False, damage: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """One row a repetition, columns :func:`export_columns`; of a step's trial one a repetition and op.

    Args:
        path: Folder of a run.
        everything: Warm-ups, rejected repetitions, trials of the empty and the reference op, and ops without ticks
            (wrong, refused) too.
        damage: As for :func:`profiler.store.iterate`.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    common = device_columns(folder, manifest)
    quiet: list[str] = []
    harness = Overhead()
    for trial in own_trials(folder, manifest, quiet):
        harness.add(trial)
    for trial in own_trials(folder, manifest, damage):
        if trial["type"] not in ("op", "step") and not everything:
            continue
        row = common | {name: trial.get(name) for name in ("type", "plan", "status", "trial", "round")}
        row["caches"] = caches_of(trial)
        if "stack_peak_bytes" in trial:
            row |= {name: None if peak == UNKNOWN else peak for name, peak in zip(PEAKS, peaks_of(trial), strict=True)}
        if trial["type"] == "step":
            yield from _export_step(row, trial, harness.ticks("warm"), everything)
            continue
        overhead = harness.ticks(row["caches"])
        row |= op_columns(trial) | {"held_out": held_out_trial(trial), "overhead_ticks": overhead}
        accepted = set(range(trial["warm_ups"], len(trial["ticks"]))) - {r["repetition"] for r in trial["rejected"]}
        for index, ticks in enumerate(trial["ticks"]):
            if everything or index in accepted:
                row |= {name: values[index] for name, values in trial.get("extra", {}).items()}
                row["energy_uj"] = trial["energy_uj"][index] if "energy_uj" in trial else None
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


def export_columns(folder: Path) -> tuple[str, ...]:
    """:data:`EXPORT_COLUMNS`, and those that the run in ``folder`` has besides."""
    return EXPORT_COLUMNS + extra_columns(read_manifest(folder))


def write_csv(rows: Iterable[dict[str, Any]], stream: TextIO, columns: Sequence[str] = EXPORT_COLUMNS) -> int:
    """Write ``columns`` of rows of :func:`export_rows`; how many there were."""
    writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007 - the count is what is wanted
        writer.writerow(row)
    return count
