"""The ops of a run as a tidy table: one row an op (:mod:`profiler.store_steps` has the training steps).

Every figure carries its unit in the column's name. The harness's own cost (the run's ``empty`` trials) is subtracted
from latencies and stands beside them as ``overhead_ticks``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiler.errors import UserError
from profiler.measure.observed import trial_disturbances
from profiler.measure.statistics import median
from profiler.measure.trials import accepted, accepted_ticks, caches_of
from profiler.ops import GEOMETRIES, Op
from profiler.store import DamagedRunWarning, iterate, read_manifest
from profiler.store_builds import foreign_sentences, of_one_build
from profiler.store_energy import ENERGY_COLUMNS, Energies, HarnessPower
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


def own_trials(folder: Path, manifest: dict[str, Any], damage: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Every readable trial of the run's own firmware build, one at a time; those of another are left out and said.

    Args:
        folder: The run's.
        manifest: The run's.
        damage: Receives a sentence for every line that cannot be read, and for every other build; without it each is a
            ``DamagedRunWarning``.

    Raises:
        UserError: there is no such run.
    """
    foreign: Counter[str] = Counter()
    yield from of_one_build(iterate(folder, damage), manifest, foreign)
    for sentence in foreign_sentences(folder, manifest, foreign):
        if damage is not None:
            damage.append(sentence)
        else:
            warnings.warn(sentence, DamagedRunWarning, stacklevel=2)


class Overhead:
    """The harness's own cost of timing one op: what a run's trials of the empty op took, and its power."""

    def __init__(self) -> None:
        self._ticks: dict[str, array[float]] = {}
        self._medians: dict[str, float] = {}
        self.harness = HarnessPower()

    def add(self, trial: dict[str, Any]) -> None:
        """Learn from a trial, if it is one of the empty op."""
        if trial["type"] == "empty" and trial["status"] == "ok":
            caches = caches_of(trial)
            self.harness.add(trial, caches)
            self._ticks.setdefault(caches, array("d")).extend(accepted_ticks(trial))
            self._medians.pop(caches, None)

    def ticks(self, caches: str) -> float:
        """Their median; 0 where there was none with such caches."""
        found = self._medians.get(caches)
        if found is None:
            found = self._medians[caches] = median(self._ticks[caches]) if self._ticks.get(caches) else 0.0
        return found


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
        ``instructions`` it is virtual time. ``memory_peak_bytes`` is arena and stack (scratch lies in the arena).
        ``energy_uj`` is the median over the accepted repetitions, or over the windows of an energy meter
        (:mod:`profiler.store_energy`), NaN where it was not measured; ``net_energy_uj`` is what it is above the idle
        power ``baseline_power_uw``, uncertainties are standard uncertainties, ``energy_source`` says what measured.
        ``disturbed_trials`` counts the rounds in which the device itself told of heat, throttling or another frequency.
        The run's own :func:`extra_columns` follow: the median of numbers, of anything else what all repetitions agree
        on.
        ``attrs["damage"]`` holds a sentence for every line that could not be read, and for trials of another firmware
        build than the run's, which are left out.

    Raises:
        UserError: no run there, or one without any trial.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    damage: list[str] = []
    ops: dict[tuple[str, str], _Merged] = {}
    overhead = Overhead()
    for trial in own_trials(folder, manifest, damage):
        if trial["type"] == "op":
            timing = trial["op_key"], caches_of(trial)
            merged = ops.get(timing)
            if merged is None:
                columns = op_columns(trial) | {"caches": timing[1], "held_out": held_out_trial(trial)}
                merged = ops[timing] = _Merged(columns)
            merged.add(trial)
        else:
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
    rows = [
        common | merged.row(overhead, common["timer_hz"]) for merged in ops.values() if status in (None, merged.status)
    ]
    table = pd.DataFrame.from_records(rows, columns=[*COLUMNS, *extra_columns(manifest)])
    table.attrs["damage"] = damage
    return table


PEAKS = ("arena_peak_bytes", "scratch_peak_bytes", "stack_peak_bytes", "memory_peak_bytes")
#: A peak that nobody measured, as only imported trials have it: less than any.
UNKNOWN = -1


class _Merged:
    """All trials of one op; of each only what the table shows is kept, and eight bytes a counted repetition."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self.columns = columns
        self._status = "ok"
        self._stopped = False
        self.reason = ""
        self.ticks: array[float] = array("d")
        self.rounds = self.warm_ups = self.disturbed = 0
        self.relative_error = np.nan
        self.peaks = (UNKNOWN,) * len(PEAKS)
        self.energies_uj: array[float] = array("d")
        self.energies: Energies | None = None
        self.extra: dict[str, list[Any]] = {}

    def add(self, trial: dict[str, Any]) -> None:
        error = trial.get("relative_error")
        if error is not None and not error <= self.relative_error:
            self.relative_error = error
        if trial["status"] == "stopped":
            self._stopped = True
            self.reason = self.reason or trial.get("reason", "")
            if not accepted_ticks(trial):
                return
        elif trial["status"] != "ok":
            self._status, self.reason = trial["status"], trial.get("reason", "")
            return
        self.ticks.extend(accepted_ticks(trial))
        self.rounds += 1
        self.warm_ups += trial["warm_ups"]
        if "state" in trial:
            self.disturbed += bool(trial_disturbances(trial))
        if "energy" in trial:
            self.energies = self.energies or Energies()
            self.energies.add(trial)
        if "energy_uj" in trial:
            self.energies_uj.extend(e for e in accepted(trial, trial["energy_uj"]) if e is not None)
        if "extra" in trial:
            for name, values in trial["extra"].items():
                self.extra.setdefault(name, []).extend(v for v in accepted(trial, values) if v is not None)
        found = peaks_of(trial)
        if found != self.peaks:
            self.peaks = tuple(map(max, found, self.peaks))

    @property
    def status(self) -> str:
        """A trial that was stopped counts with its whole repetitions; ``stopped`` is an op without any."""
        return "stopped" if self._status == "ok" and self._stopped and not self.ticks else self._status

    def row(self, overhead: Overhead, timer_hz: int) -> dict[str, Any]:
        caches = self.columns["caches"]
        overhead_ticks = overhead.ticks(caches)
        row = dict(self.columns)
        row |= {"status": self.status, "reason": self.reason, "rounds": self.rounds, "warm_ups": self.warm_ups}
        row |= {"repetitions": len(self.ticks), "relative_error": self.relative_error}
        row["energy_uj"] = median(self.energies_uj) if self.energies_uj else np.nan
        if self.energies is not None:
            row |= self.energies.columns(overhead.harness, caches, overhead_ticks / timer_hz)
        row |= {name: _agreed(values) for name, values in self.extra.items() if values}
        row["disturbed_trials"] = self.disturbed
        row["overhead_ticks"] = overhead_ticks
        if self.ticks:
            row |= {name: peak for name, peak in zip(PEAKS, self.peaks, strict=True) if peak != UNKNOWN}
            us_per_tick = 1e6 / timer_hz
            row["ticks"], row["ticks_mad"] = _median_and_mad(self.ticks)
            row["latency_us"] = max(row["ticks"] - overhead_ticks, 0.0) * us_per_tick
            row["latency_mad_us"] = row["ticks_mad"] * us_per_tick
        return row


def _median_and_mad(ticks: array[float]) -> tuple[float, float]:
    """As :mod:`profiler.measure.statistics` has them; of hundreds of values several times as fast."""
    ordered = np.sort(np.frombuffer(ticks))
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    middle = (ordered[low] + ordered[high]) / 2
    deviations = np.sort(np.abs(ordered - middle))
    return float(middle), float(deviations[low] + deviations[high]) / 2


def peaks_of(trial: dict[str, Any]) -> tuple[int, int, int, int]:
    """Arena, scratch, stack and memory (arena and stack, or what an imported trial states), in bytes, or UNKNOWN."""
    arena, scratch, stack = trial["arena_peak_bytes"], trial["scratch_peak_bytes"], trial["stack_peak_bytes"]
    if "memory_peak_bytes" not in trial:
        return arena, scratch, stack, arena + stack
    known = (arena, scratch, stack, trial["memory_peak_bytes"])
    return tuple(UNKNOWN if peak is None else peak for peak in known)  # type: ignore[return-value]


def _agreed(values: list[Any]) -> Any:
    """The median of numbers; of anything else what all values are, or nothing where they differ."""
    if not any(isinstance(v, str) for v in values):
        return median(values)
    return values[0] if all(v == values[0] for v in values) else None


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
