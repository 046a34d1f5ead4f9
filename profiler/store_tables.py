"""The ops of a run as a tidy table: one row an op (:mod:`profiler.store_steps` has the training steps).

Every figure carries its unit in the column's name. The harness's own cost (the run's ``empty`` trials) is subtracted
from latencies and stands beside them as ``overhead_ticks``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from profiler.errors import UserError
from profiler.measure.trials import caches_of
from profiler.ops import GEOMETRIES, Op
from profiler.store import DamagedRunWarning, iterate, read_manifest
from profiler.store_builds import foreign_sentences, of_one_build
from profiler.store_energy import ENERGY_COLUMNS
from profiler.store_lines import parse
from profiler.store_merged import Fields, Merged, Overhead, rows
from profiler.store_schema import default_region

#: Share of geometries that no fit may see.
HELD_OUT_SHARE = 0.2
#: Part of the hash, so that the choice is this project's own and fixed.
HELD_OUT_SALT = "held out 1"
#: A network has one layer of these: holding it out would leave nothing to fit.
NEVER_HELD_OUT = frozenset(
    {"empty", "softmax_cross_entropy", "l2_normalize", "cosine_head", "global_avg_pool", "dequantize"}
)

#: Fields of all geometries, in the order in which they first appear.
GEOMETRY_COLUMNS: tuple[str, ...] = tuple(
    dict.fromkeys(field.name for cls in GEOMETRIES.values() for field in dataclasses.fields(cls))
)
#: What names an op.
OP_COLUMNS: tuple[str, ...] = (
    "op_key",
    "kind",
    "pass",
    "dtype",
    "variant",
    *GEOMETRY_COLUMNS,
    "trained_channels",
    "trained_axis",
    "trains_bias",
    "optimizer",
    "macs",
)
COLUMNS: tuple[str, ...] = (
    "run",
    "device",
    "board",
    "timer",
    "timer_hz",
    "clock_hz",
    "build_hash",
    "region",
    *OP_COLUMNS,
    "caches",
    "status",
    "reason",
    "rounds",
    "repetitions",
    "warm_ups",
    "ticks",
    "ticks_mad",
    "overhead_ticks",
    "latency_us",
    "latency_mad_us",
    "latency_quiet_us",
    "latency_quiet_spread_us",
    "arena_peak_bytes",
    "scratch_peak_bytes",
    "stack_peak_bytes",
    "memory_peak_bytes",
    "energy_uj",
    *ENERGY_COLUMNS,
    "relative_error",
    "disturbed_trials",
    "held_out",
)


def _held_out(kind: str, values: tuple[int, ...]) -> bool:
    return kind not in NEVER_HELD_OUT and set_aside(kind, values)


@lru_cache(maxsize=65536)
def set_aside(kind: str, values: tuple[int, ...]) -> bool:
    """Whether the hash of a geometry falls into the share that is held out, of any kind."""
    digest = hashlib.sha256(f"{HELD_OUT_SALT}/{kind}/{'x'.join(map(str, values))}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64 < HELD_OUT_SHARE


def held_out(op: Op) -> bool:
    """Whether ``op`` is kept from every fit.

    Chosen by a hash of the kind and geometry alone: all passes, channel counts and optimisers of a geometry fall on
    one side, on every device and in every run, and no fit learns a held-out geometry from another of its passes.
    """
    return _held_out(op.kind, op.geometry.values())


def op_columns(trial: dict[str, Any]) -> dict[str, Any]:
    op = trial["op"]
    row = {"op_key": trial["op_key"], "kind": op["kind"], "pass": op["pass"], "dtype": op["dtype"]}
    row["variant"] = op["variant"]
    row.update(op["geometry"])
    row["trained_channels"] = op.get("trained_channels", 0)
    row["trained_axis"] = op.get("trained_axis", "out")
    row["trains_bias"] = op.get("trains_bias", False)
    row["optimizer"] = op.get("optimizer", "")
    row["macs"] = trial["macs"]
    return row


def device_columns(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "run": folder.name,
        "device": manifest["device"],
        "board": manifest["identity"]["board"],
        "timer": manifest["labels"]["timer"],
        "timer_hz": manifest["identity"]["timer_hz"],
    }


def extra_columns(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Columns that a run has besides this project's own: those of a table that was imported."""
    return tuple(manifest.get("extra_columns", ()))


def held_out_trial(trial: dict[str, Any]) -> bool:
    """Whether the op of a trial is kept from every fit: by its geometry, or since whoever measured it set it aside."""
    return trial.get("held_out", False) or _held_out(trial["op"]["kind"], tuple(trial["op"]["geometry"].values()))


def own_trials(
    folder: Path, manifest: dict[str, Any], damage: list[str] | None = None, only: type | None = None
) -> Iterator[dict[str, Any]]:
    """Every readable trial of the run's own firmware build, one at a time; those of another are left out and said.

    Args:
        folder: The run's.
        manifest: The run's.
        damage: Receives a sentence for the lines that cannot be read, and for every other build; without it each is a
            ``DamagedRunWarning``.
        only: The fields that are wanted, as in :func:`profiler.store.iterate`.

    Raises:
        UserError: there is no such run.
    """
    foreign: Counter[str] = Counter()
    yield from of_one_build(iterate(folder, damage, only), manifest, foreign)
    for sentence in foreign_sentences(folder, manifest, foreign):
        if damage is not None:
            damage.append(sentence)
        else:
            warnings.warn(sentence, DamagedRunWarning, stacklevel=2)


def load(path: Path | str, *, status: str | None = "ok") -> pd.DataFrame:
    """One row an op, its trials merged; two where it was timed both with warm and with cold caches.

    Args:
        path: Folder of a run.
        status: Only ops with this status (see :class:`profiler.measure.trials.Status`); None for all. An op that was
            stopped is ``ok`` where it has whole repetitions; ``reason`` then says that it was.

    Returns:
        Columns :data:`COLUMNS`, in the order in which the ops were first measured. ``ticks`` is the median over the
        accepted repetitions of all rounds, ``ticks_mad`` the median absolute deviation. ``latency_us`` is
        ``(ticks - overhead_ticks) / timer_hz``, the overhead being that of the same ``caches``; where ``timer`` is
        ``instructions`` it is virtual time. ``latency_quiet_us`` is the same of the least disturbed repetitions, and
        ``latency_quiet_spread_us`` how far these lie apart (:func:`profiler.measure.statistics.quiet`).
        ``memory_peak_bytes`` is arena and stack (scratch lies in the arena). ``energy_uj`` is the median over the
        accepted repetitions, or over the windows of an energy meter (:mod:`profiler.store_energy`, which says what the
        columns beside it are), NaN where it was not measured.
        ``disturbed_trials`` counts the rounds in which the device itself told of heat, throttling or another frequency.
        The run's own :func:`extra_columns` follow: the median of numbers, of anything else what all repetitions agree
        on.
        ``attrs["damage"]`` holds a sentence for the lines that could not be read, and for trials of another firmware
        build than the run's, which are left out.

    Raises:
        UserError: no run there, or one without any trial.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    damage: list[str] = []
    ops: dict[tuple[str, str], Merged] = {}
    overhead = Overhead()
    for trial in own_trials(folder, manifest, damage, Fields):
        if trial["type"] == "op":
            timing = trial["op_key"], caches_of(trial)
            merged = ops.get(timing)
            if merged is None:
                trial["op"] = parse(trial["op"])
                columns = op_columns(trial) | {"caches": timing[1], "held_out": held_out_trial(trial)}
                merged = ops[timing] = Merged(columns)
            merged.add(trial)
        overhead.add(trial)
    for sentence in damage:
        warnings.warn(sentence, DamagedRunWarning, stacklevel=3)
    if not ops:
        raise UserError(
            f"the run {folder} holds no trial of an op",
            hint="measure with `profile --port PORT --network NAME --input CxHxW`",
        )
    common = device_columns(folder, manifest) | {
        "clock_hz": manifest["identity"]["clock_hz"],
        "build_hash": manifest["identity"]["build_hash"],
        "region": manifest.get("plan", {}).get("region", default_region(manifest)),
    }
    shown = [merged for merged in ops.values() if status in (None, merged.status)]
    records = [common | row for row in rows(shown, overhead, common["timer_hz"])]
    table = pd.DataFrame.from_records(records, columns=[*COLUMNS, *extra_columns(manifest)])
    table.attrs["damage"] = damage
    return table


def ops_of(table: pd.DataFrame) -> list[Op]:
    """The ops of a table of :func:`load` (or of any rows with :data:`OP_COLUMNS`), in its order."""
    fields = {kind: [f.name for f in dataclasses.fields(cls)] for kind, cls in GEOMETRIES.items()}
    known: dict[str, Op] = {}
    ops = []
    columns = [name for name in OP_COLUMNS if name in table.columns]
    for values in zip(*(table[name] for name in columns), strict=True):
        row = dict(zip(columns, values, strict=True))
        key = row["op_key"]
        if key not in known:
            known[key] = Op.from_dict(
                {
                    "kind": row["kind"],
                    "pass": row["pass"],
                    "dtype": row["dtype"],
                    "variant": row["variant"],
                    "geometry": {name: int(row[name]) for name in fields[row["kind"]]},
                    "trained_channels": int(row["trained_channels"]),
                    "trained_axis": row["trained_axis"],
                    "trains_bias": bool(row["trains_bias"]),
                    "optimizer": row["optimizer"] if isinstance(row["optimizer"], str) and row["optimizer"] else "sgd",
                }
            )
        ops.append(known[key])
    return ops
