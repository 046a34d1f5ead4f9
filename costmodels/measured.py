"""What fitting and evaluating read: one row an op, from runs on disk or from a data frame with the store's columns."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from costmodels.features import geometry_key
from profiler.devices.identity import is_linux_board
from profiler.errors import UserError
from profiler.ops import Op
from profiler.store import load, read_manifest
from profiler.store_tables import GEOMETRY_COLUMNS, OP_COLUMNS, ops_of

#: Columns without which there is nothing to fit (and those of the ops' geometries); the store's other columns are used
#: where they are there.
REQUIRED_COLUMNS = ("device", "timer", "latency_us", *(name for name in OP_COLUMNS if name not in GEOMETRY_COLUMNS))
#: What has to be the same in everything that is fitted together, and why it matters to a reader.
UNIFORM_COLUMNS = {
    "device": "devices",
    "board": "boards",
    "timer": "timers",
    "build_hash": "firmware builds",
    "region": "memory regions",
    "energy_source": "sources of energy",
    "kernels": "kernels",
}


@dataclass(frozen=True)
class Measured:
    """Measured ops of one device.

    Attributes:
        ops: Each op once.
        frame: A row an op, in the same order: ``op_key, latency_us`` (median over trials, of a Linux host's run what a
            quiet one takes, the harness's own cost subtracted), ``noise`` (its relative standard error), ``held_out``,
            ``stack_peak_bytes``,
            ``arena_peak_bytes``, ``memory_peak_bytes``, ``scratch_peak_bytes``, ``energy_uj`` (NaN where it was not
            measured), ``energy_noise`` (its relative standard uncertainty).
        device: Name of the device.
        timer: What its ticks count.
        identity: The device's identity record from the manifest; empty for a bare data frame.
        run_hash: Hash over the rows that were read.
        caches: ``warm`` or ``cold``: how all of them were timed.
        energy_source: What measured energy (``joulescope-js220``, ``replay``, ``simulated``); None: nothing did.
        region: Name of the memory region that arenas lay in; None: not known.
    """

    ops: tuple[Op, ...]
    frame: pd.DataFrame
    device: str
    timer: str
    identity: dict
    run_hash: str
    caches: str = "warm"
    energy_source: str | None = None
    region: str | None = None
    kernels: str = "known"

    @property
    def latency_us(self) -> np.ndarray:
        return self.frame["latency_us"].to_numpy(dtype=np.float64)

    @property
    def noise(self) -> np.ndarray:
        """Relative standard errors of the latencies."""
        return self.frame["noise"].to_numpy(dtype=np.float64)

    @property
    def energy_uj(self) -> np.ndarray:
        """NaN where energy was not measured."""
        return self.frame["energy_uj"].to_numpy(dtype=np.float64)

    @property
    def energy_noise(self) -> np.ndarray:
        """Relative standard uncertainties of the energies; 0 where nobody stated them."""
        return self.frame["energy_noise"].fillna(0.0).to_numpy(dtype=np.float64)

    @property
    def stack_peak_bytes(self) -> np.ndarray:
        """0 where nobody measured it."""
        return self._peaks("stack_peak_bytes")

    @property
    def memory_bytes(self) -> np.ndarray:
        """Peaks of arena and stack; 0 where nobody measured them."""
        return self._peaks("memory_peak_bytes")

    def _peaks(self, name: str) -> np.ndarray:
        return self.frame.get(name, pd.Series(0.0, index=self.frame.index)).fillna(0).to_numpy(dtype=np.float64)

    @property
    def geometries(self) -> tuple[str, ...]:
        """Of each op, in order: what ops of all passes of one layer share."""
        return tuple(geometry_key(op) for op in self.ops)

    def subset(self, mask: np.ndarray) -> Measured:
        """The ops where ``mask`` (bool of shape (n_ops,)) is set."""
        ops = tuple(op for op, keep in zip(self.ops, mask, strict=True) if keep)
        return dataclasses.replace(self, ops=ops, frame=self.frame[mask].reset_index(drop=True))


def read(runs: pd.DataFrame | Path | str | Sequence[Path | str], caches: str | None = None) -> Measured:
    """Read runs, or a data frame, that belong together.

    Args:
        runs: Which.
        caches: Only ops timed with ``warm`` or with ``cold`` caches; None: whichever of the two there is.

    Raises:
        UserError: no run, missing columns, nothing measured, different devices, timers or firmware builds, or ops timed
            both warm and cold where ``caches`` does not choose.
    """
    return from_frame(*_table(runs), caches)


def read_warm_and_cold(
    runs: pd.DataFrame | Path | str | Sequence[Path | str], caches: str | None = None
) -> tuple[Measured, Measured | None]:
    """As :func:`read`; where there are warm and cold ops and ``caches`` does not choose, the warm ones and the cold."""
    frame, identity = _table(runs)
    if caches is None and "caches" in frame and {"warm", "cold"} <= set(frame["caches"]):
        return from_frame(frame, identity, "warm"), from_frame(frame, identity, "cold")
    return from_frame(frame, identity, caches), None


def _table(runs: pd.DataFrame | Path | str | Sequence[Path | str]) -> tuple[pd.DataFrame, dict]:
    """All rows, and the identity of the device."""
    if isinstance(runs, pd.DataFrame):
        return runs, {}
    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not paths:
        raise UserError("there is no run to read", hint="name one, for example measurements/<device>/<run>")
    manifests = [read_manifest(path) for path in paths]
    identities = [dict(manifest["identity"]) for manifest in manifests]
    for path, identity in zip(paths, identities, strict=True):
        for name, what in (("board", "boards"), ("timer", "timers"), ("build_hash", "firmware builds")):
            if identity.get(name) != identities[0].get(name):
                raise UserError(
                    f"{paths[0]} and {path} were measured with different {what} "
                    f"({identities[0].get(name)!r} and {identity.get(name)!r})",
                    hint="fit one device and build at a time",
                )
    tables = [
        load(path).assign(kernels=manifest.get("kernels", "known"))
        for path, manifest in zip(paths, manifests, strict=True)
    ]
    frame = pd.concat(tables, ignore_index=True)
    return (of_a_quiet_host(frame) if is_linux_board(identities[0].get("board", "")) else frame), identities[0]


def of_a_quiet_host(frame: pd.DataFrame) -> pd.DataFrame:
    """A run's table with the latencies of the least disturbed repetitions in place of medians.

    Medians of a shared host tell how busy it was; a model that learned them would foretell that. Rows without such
    latencies, imported ones, keep theirs.
    """
    known = frame["latency_quiet_us"].notna()
    spread = frame["latency_quiet_spread_us"] * np.sqrt(np.maximum(frame["repetitions"], 1)) / (1.253 * 1.4826)
    return frame.assign(
        latency_us=frame["latency_quiet_us"].where(known, frame["latency_us"]),
        latency_mad_us=spread.where(known, frame["latency_mad_us"]),
    )


def from_frame(frame: pd.DataFrame, identity: dict, caches: str | None = None) -> Measured:
    """Check a table with the store's columns, and take the median over trials of the same op."""
    missing = [name for name in REQUIRED_COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(
            f"the table has no column {', '.join(missing)}", hint="give a run's table as profiler.store.load returns it"
        )
    frame = frame[(frame["kind"] != "empty") & frame["latency_us"].notna()]
    if "status" in frame:
        frame = frame[frame["status"].isin(("ok", "accepted"))]
    if frame.empty:
        raise UserError("the run has no measured ops", hint="measure some with `profile --port PORT --network NAME`")
    frame, caches = _choose_caches(frame, caches)
    for column, what in UNIFORM_COLUMNS.items():
        values = sorted(map(str, frame[column].dropna().unique())) if column in frame else []
        if len(values) > 1:
            raise UserError(
                f"the runs mix different {what}: {', '.join(values)}", hint="fit one device, timer and build at a time"
            )
    ops = ops_of(frame)
    # A median below the harness's own cost, after subtracting it, is a reading of nothing: it carries no information
    # about relative error and would make every relative weight infinite.
    positive = frame["latency_us"].to_numpy() > 0
    by_key = dict(zip(frame["op_key"], ops, strict=True))
    return Measured(
        *_one_row_an_op(frame[positive], by_key),
        device=str(frame["device"].iloc[0]),
        timer=str(frame["timer"].iloc[0]),
        identity=identity,
        run_hash=_hash(frame),
        caches=caches,
        energy_source=_energy_source(frame),
        region=_region(frame),
        kernels=str(frame["kernels"].iloc[0]) if "kernels" in frame else "known",
    )


def _choose_caches(frame: pd.DataFrame, wanted: str | None) -> tuple[pd.DataFrame, str]:
    """The rows timed with the wanted caches, and which those are."""
    timed = frame["caches"] if "caches" in frame else pd.Series("warm", index=frame.index)
    found = sorted(timed.unique())
    if wanted is None and len(found) > 1:
        raise UserError(
            f"the ops were timed with {' and with '.join(found)} caches, which do not mix in one model",
            hint=f"choose: {' or '.join(f'--caches {name}' for name in found)}",
        )
    wanted = wanted or found[0]
    if wanted not in found:
        raise UserError(
            f"no op was timed with {wanted} caches, all with {found[0]}",
            hint=f"fit a model to these, or measure with `profile ... --caches {wanted}`",
        )
    return frame[timed == wanted], wanted


def _one_row_an_op(frame: pd.DataFrame, by_key: dict[str, Op]) -> tuple[tuple[Op, ...], pd.DataFrame]:
    noise = np.zeros(len(frame))
    if "latency_mad_us" in frame:
        repetitions = frame["repetitions"].to_numpy(dtype=float) if "repetitions" in frame else np.ones(len(frame))
        # Standard error of a median of n normal readings: 1.253 σ / sqrt(n), with σ = 1.4826 MAD.
        noise = 1.253 * 1.4826 * frame["latency_mad_us"] / frame["latency_us"] / np.sqrt(np.maximum(repetitions, 1))
    energy = frame["energy_uj"] if "energy_uj" in frame else pd.Series(np.nan, index=frame.index)
    uncertainty = frame["energy_uncertainty_uj"] / energy if "energy_uncertainty_uj" in frame else 0.0
    frame = frame.assign(noise=noise, energy_uj=energy, energy_noise=uncertainty, held_out=frame.get("held_out", False))
    how = {"latency_us": "median", "noise": "median", "held_out": "max", "energy_uj": "median"}
    how["energy_noise"] = "median"
    how |= {name: "max" for name in frame.columns if name.endswith("_peak_bytes")}
    grouped = frame.groupby("op_key", sort=True).agg(how).reset_index()
    grouped["held_out"] = grouped["held_out"].astype(bool)
    return tuple(by_key[key] for key in grouped["op_key"]), grouped


def _energy_source(frame: pd.DataFrame) -> str | None:
    if "energy_uj" not in frame or not frame["energy_uj"].notna().any():
        return None
    named = frame["energy_source"].dropna() if "energy_source" in frame else []
    return str(named.iloc[0]) if len(named) else "unknown"


def _region(frame: pd.DataFrame) -> str | None:
    named = frame["region"].dropna() if "region" in frame else []
    return str(named.iloc[0]) if len(named) else None


def _hash(frame: pd.DataFrame) -> str:
    rows = sorted(f"{key} {latency!r}" for key, latency in zip(frame["op_key"], frame["latency_us"], strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
