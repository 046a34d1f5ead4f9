"""Runs for other programs: a row a repetition, of a step a row a repetition and op.

The columns, whose names stay as they are (`profile import` reads them too):

- ``run``, ``device``, ``board``: folder of the run, name of the device, its board.
- ``timer``: what ticks count: ``instructions`` on an emulated device (its times are virtual), else the timer's name.
  ``timer_hz``: its ticks a second.
- ``type``: ``op``, ``step``, and with everything ``empty`` and ``reference``. ``plan``, ``layer``: of a step's op.
- ``op_key``, ``kind``, ``pass``, ``dtype``, ``variant``, the fields of all geometries (``in_h`` to the last of
  :data:`profiler.store_tables.GEOMETRY_COLUMNS`, empty where a kind has no such field), ``trained_channels``,
  ``trained_axis``, ``trains_bias``, ``optimizer``: the op, as in :class:`profiler.ops.Op`. ``macs``: its
  multiply-accumulates by the textbook formula.
- ``caches``: ``warm``, ``cold``, of a step ``sequence``. ``held_out``: whether fits leave the op's geometry out.
- ``status``: ``ok``, else why there are no ticks. ``trial``, ``round``: numbers in the run, from 0.
- ``repetition``: from 0, warm-ups below 0. ``warm_up``: whether it is one.
- ``ticks``: as read. ``overhead_ticks``: the harness's own cost, the median of the run's empty ops with such caches, of
  a step's op once for each image. ``latency_us``: ``(ticks - overhead_ticks) / timer_hz``, at least 0, in microseconds.
- ``energy_uj``: microjoules, where it was measured, ``energy_uncertainty_uj`` its standard uncertainty;
  ``net_energy_uj``, ``net_energy_uncertainty_uj``: the same above the idle power ``baseline_power_uw``.
  ``energy_windows``: of how many trials; ``energy_source``: what measured. An energy meter gives one figure a trial,
  which stands at each of its repetitions.
- ``arena_peak_bytes``, ``scratch_peak_bytes``, ``stack_peak_bytes``, ``memory_peak_bytes``: the most that was touched;
  scratch lies in the arena, memory is arena and stack.

An imported run's own columns follow.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from profiler.measure.trials import caches_of
from profiler.store import read_manifest
from profiler.store_energy import ENERGY_COLUMNS, energy_columns
from profiler.store_merged import PEAKS, UNKNOWN, Overhead, peaks_of
from profiler.store_tables import (
    OP_COLUMNS,
    device_columns,
    extra_columns,
    held_out_trial,
    op_columns,
    own_trials,
)

#: Takes rows of :func:`export_rows`, in order.
Sink = Callable[[Sequence[dict[str, Any]]], None]
#: Rows that are handed over at once.
BATCH_ROWS = 4096

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
    *ENERGY_COLUMNS,
    "arena_peak_bytes",
    "scratch_peak_bytes",
    "stack_peak_bytes",
    "memory_peak_bytes",
)


#: Columns that hold no integer.
TEXTS: tuple[str, ...] = (
    *("run", "device", "board", "timer", "type", "plan", "layer", "op_key", "kind", "pass", "dtype", "variant"),
    *("trained_axis", "optimizer", "caches", "status", "energy_source"),
)
BOOLEANS: tuple[str, ...] = ("trains_bias", "held_out", "warm_up")
FLOATS: tuple[str, ...] = (
    *("overhead_ticks", "latency_us", "energy_uj", "energy_uncertainty_uj", "net_energy_uj"),
    *("net_energy_uncertainty_uj", "baseline_power_uw"),
)


class _Ops:
    """Columns of ops, made once for each."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def columns(self, trial: dict[str, Any]) -> dict[str, Any]:
        """What names the op of a trial, or of an entry of a step's."""
        found = self._known.get(trial["op_key"])
        if found is None:
            found = self._known[trial["op_key"]] = op_columns(trial) | {"held_out": held_out_trial(trial)}
        return found


def export_rows(path: Path, *, everything: bool = False, damage: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """One row a repetition, columns :func:`export_columns`; of a step's trial one a repetition and op.

    Memory does not grow with the run: the trials are read one by one, twice.

    Args:
        path: Folder of a run.
        everything: Warm-ups, rejected repetitions, trials of the empty and the reference op, and ops without ticks
            (wrong, refused) too.
        damage: As for :func:`profiler.store.iterate`.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    common = device_columns(folder, manifest)
    harness, ops = Overhead(), _Ops()
    for trial in own_trials(folder, manifest, []):
        harness.add(trial)
    for trial in own_trials(folder, manifest, damage):
        if trial["type"] not in ("op", "step") and not everything:
            continue
        row = common | {name: trial.get(name) for name in ("type", "plan", "status", "trial", "round")}
        row["caches"] = caches_of(trial)
        if trial["status"] == "stopped" and trial["ticks"]:  # rows are repetitions, and those that are there are whole
            row["status"] = "ok"
        if "stack_peak_bytes" in trial:
            row |= {name: None if peak == UNKNOWN else peak for name, peak in zip(PEAKS, peaks_of(trial), strict=True)}
        if trial["type"] == "step":
            yield from _export_step(row, trial, ops, harness.ticks("warm"), everything)
            continue
        overhead = harness.ticks(row["caches"])
        row |= ops.columns(trial) | {"overhead_ticks": overhead}
        if "energy" in trial:
            row |= energy_columns(trial, harness.harness, row["caches"], overhead / row["timer_hz"])
        accepted = set(range(trial["warm_ups"], len(trial["ticks"]))) - {r["repetition"] for r in trial["rejected"]}
        for index, ticks in enumerate(trial["ticks"]):
            if everything or index in accepted:
                row |= {name: values[index] for name, values in trial.get("extra", {}).items()}
                if "energy_uj" in trial:
                    row["energy_uj"] = trial["energy_uj"][index]
                yield row | _repetition(index, trial["warm_ups"], ticks, overhead, row["timer_hz"])
        if everything and not trial["ticks"]:
            yield row


def _export_step(
    row: dict[str, Any], trial: dict[str, Any], ops: _Ops, overhead: float, everything: bool
) -> Iterator[dict[str, Any]]:
    for index, ticks in enumerate(trial["ticks"]):
        if index < trial["warm_ups"] and not everything:
            continue
        for entry, value in zip(trial["timed"], ticks, strict=True):
            share = overhead * entry["count"]
            yield (
                row
                | ops.columns(entry)
                | {"layer": entry["layer"], "overhead_ticks": share}
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


def csv_sink(stream: TextIO, columns: Sequence[str]) -> Sink:
    """Writes the header of ``columns`` at once, and then what rows it is given."""
    writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    return writer.writerows


def write(rows: Iterable[dict[str, Any]], sinks: Iterable[Sink]) -> int:
    """Hand rows of :func:`export_rows` to each of ``sinks``; how many there were."""
    sinks, rows = list(sinks), iter(rows)
    count = 0
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        for sink in sinks:
            sink(batch)
        count += len(batch)
    return count


def write_csv(rows: Iterable[dict[str, Any]], stream: TextIO, columns: Sequence[str] = EXPORT_COLUMNS) -> int:
    """Write ``columns`` of rows of :func:`export_rows` as CSV; how many there were."""
    return write(rows, [csv_sink(stream, columns)])
