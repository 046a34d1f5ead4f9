"""Traces as CSV: a column of times, and power, or current and voltage, or energy a sample.

Values are apart by commas, semicolons or tabs; where it is not the comma, that may stand before decimals.

Columns are found by their names, in the spellings of the instruments in use: ``time_s``, ``Timestamp(ms)``,
``#time``, ``Current(uA)``, ``Main current (A)``, ``power_mw``, ``energy_uj``. The unit stands at the end of the name or
in brackets; without one, times are seconds, currents amperes, voltages volts and powers watts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from profiler.energy.trace import Trace
from profiler.errors import UserError

#: Factors to seconds, amperes, volts, watts and microjoules.
_UNITS = {
    "time": {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9},
    "current": {"": 1.0, "a": 1.0, "ma": 1e-3, "ua": 1e-6, "na": 1e-9},
    "voltage": {"": 1.0, "v": 1.0, "mv": 1e-3, "uv": 1e-6},
    "power": {"": 1.0, "w": 1.0, "mw": 1e-3, "uw": 1e-6, "nw": 1e-9},
    "energy": {"": 1e6, "j": 1e6, "mj": 1e3, "uj": 1.0, "nj": 1e-3},
}
_NAMES = {
    "time": ("time", "timestamp", "t"),
    "current": ("current", "i"),
    "voltage": ("voltage", "v"),
    "power": ("power", "p"),
    "energy": ("energy", "e"),
}
#: Steps of time may differ from their median by that share of it, for rounded time stamps.
_STEP_TOLERANCE = 0.3
#: So many times as many samples as there are rows may lie between the first and the last; a wrong time makes more.
_SAMPLES_A_ROW_MAX = 100


@dataclass(frozen=True)
class _Column:
    name: str
    factor: float


def read_trace(path: Path, *, supply_v: float | None = None) -> Trace:
    """Read a trace; the file stays as it is. Samples missing between two others become NaN. Windows of it are told by
    the clock of its column of times.

    Args:
        path: A file with a header, a row a sample, between the values commas, semicolons or tabs.
        supply_v: The supply's voltage, where the file has currents only.

    Raises:
        UserError: it cannot be read, columns are missing or hold no numbers, or the times are not evenly spaced.
    """
    table = _read(path)
    columns = _find(table)
    if "time" not in columns:
        raise UserError(
            f"{path} has no column of times, only {', '.join(map(str, table.columns))}",
            hint="name one time_s (or time_ms, time_us)",
        )
    times_s = _values(path, table, columns["time"])
    if np.isnan(times_s).any():
        raise UserError(f"{path}: line {int(np.isnan(times_s).argmax()) + 2} has no time", hint="every row needs one")
    rate_hz, places = _grid(path, times_s)
    scattered = _sample_energy_uj(path, table, columns, rate_hz, supply_v)
    energies = np.full(int(places[-1]) + 1, np.nan)
    energies[places] = scattered
    return Trace(rate_hz, energies, f"CSV {path.name}", start_s=float(times_s[0]))


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, skipinitialspace=True, **_dialect(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="check its name and permissions") from None
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{path} is no CSV ({reason})", hint="give a table with a header and commas") from None
    if len(table) < 2:
        raise UserError(f"{path} holds {len(table)} samples", hint="give the whole recording")
    return table


def _dialect(path: Path) -> dict[str, str]:
    """What stands between values and before decimals, by the header and the row below it."""
    with path.open(encoding="utf-8-sig") as stream:
        header, row = stream.readline(), stream.readline()
    separator = max(",;\t", key=header.count)
    return {"sep": separator, "decimal": "," if separator != "," and "," in row else ".", "encoding": "utf-8-sig"}


def _find(table: pd.DataFrame) -> dict[str, _Column]:
    """Column and factor of each quantity; the first that fits."""
    found: dict[str, _Column] = {}
    for name in table.columns:
        words = re.findall(r"[a-z]+", str(name).lower().replace("µ", "u").replace("μ", "u"))
        for quantity, spellings in _NAMES.items():
            place = next((i for i, word in enumerate(words) if word in spellings), None)
            if place is None or quantity in found:
                continue
            unit = words[-1] if len(words) > place + 1 else ""
            if unit in _UNITS[quantity]:
                found[quantity] = _Column(name, _UNITS[quantity][unit])
                break
    return found


def _values(path: Path, table: pd.DataFrame, column: _Column) -> np.ndarray:
    numbers = pd.to_numeric(table[column.name], errors="coerce").to_numpy(np.float64)
    wrong = ~np.isfinite(numbers) & table[column.name].notna().to_numpy()
    if wrong.any():
        line = int(wrong.argmax())
        raise UserError(
            f"{path}: line {line + 2}, {column.name}: {str(table[column.name].iloc[line])!r} is no number",
            hint="correct it, or leave it empty where a sample is missing",
        )
    return numbers * column.factor


def _sample_energy_uj(
    path: Path, table: pd.DataFrame, columns: dict[str, _Column], rate_hz: float, supply_v: float | None
) -> np.ndarray:
    if "energy" in columns:
        return _values(path, table, columns["energy"])
    if "power" in columns:
        return _values(path, table, columns["power"]) * 1e6 / rate_hz
    if "current" not in columns:
        raise UserError(
            f"{path} has no column of energy, power or current, only {', '.join(map(str, table.columns))}",
            hint="name one energy_uj, power_w or current_a",
        )
    if "voltage" in columns:
        voltage_v = _values(path, table, columns["voltage"])
    elif supply_v is not None:
        voltage_v = np.float64(supply_v)
    else:
        raise UserError(f"{path} has currents and no voltages", hint="give the supply's with --voltage VOLTS")
    return _values(path, table, columns["current"]) * voltage_v * 1e6 / rate_hz


def _grid(path: Path, times_s: np.ndarray) -> tuple[float, np.ndarray]:
    """(samples a second, place of each row among evenly spaced samples)."""
    steps_s = np.diff(times_s)
    if (steps_s <= 0).any():
        line = int((steps_s <= 0).argmax()) + 3
        raise UserError(f"{path}: line {line} is not after the line before it", hint="sort it by time")
    step_s = float(np.median(steps_s))
    # Over many samples a mean is far more exact than any one difference of rounded times; over a gap it is wrong.
    regular = np.abs(steps_s - step_s) <= _STEP_TOLERANCE * step_s
    if regular.any():
        step_s = float(steps_s[regular].mean())
    counts = np.rint(steps_s / step_s)
    uneven = (np.abs(steps_s - counts * step_s) > _STEP_TOLERANCE * step_s) | (counts < 1)
    if uneven.any():
        line = int(uneven.argmax()) + 3
        raise UserError(
            f"{path}: the samples are not evenly spaced (line {line} comes {steps_s[line - 3]:g} s after the one "
            f"before it, most come after {step_s:g} s)",
            hint="export the recording at a fixed rate",
        )
    if counts.sum() > _SAMPLES_A_ROW_MAX * (len(steps_s) + 1):
        line = int(steps_s.argmax()) + 3
        raise UserError(
            f"{path}: line {line} comes {steps_s[line - 3]:g} s after the one before it, where most come after "
            f"{step_s:g} s: nearly all samples are missing",
            hint="correct its time, or cut the recording there",
        )
    return 1.0 / step_s, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
