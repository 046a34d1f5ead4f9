"""Results of MLPerf Tiny's later energy runner, which keeps samples and windows in one file, ``results.json``.

It is a JSON list, an entry a measurement. In each, ``power`` holds ``samples``, energies in joules at 1,000 a second,
and ``timestamps``, a list of [running number, samples before it]: falling edges of the device's time-stamp pin. The
window lies between the last two; earlier ones are the pin at start-up. Numbers count through all entries of a file, so
that one that is missing shows. The format is that of the runner in mlcommons/tiny (``benchmark/runner``) and of the
results published at mlcommons/tiny_results_v1.3.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from profiler.energy.mlperf import read_json
from profiler.energy.trace import Trace, windows_of
from profiler.energy.windows import EnergyWindow, Span, Status
from profiler.errors import UserError

#: Samples a second: the runner sets its power monitor to that, and the file does not say it.
RATE_HZ = 1000.0
_HINT = "give the results.json of a session in energy mode"


@dataclass(frozen=True, eq=False)
class Measurement:
    """One entry.

    Attributes:
        name: The input's file.
        inferences: How many ran in the window.
        trace: All samples of this entry; times begin at 0 in each.
        span: The window.
        lost: What shows that a time stamp is missing; empty: none is.
    """

    name: str
    inferences: int
    trace: Trace
    span: Span
    lost: str = ""

    def window(self) -> EnergyWindow:
        """The window's energy, refused where a time stamp is missing."""
        (window,) = windows_of(self.trace, [self.span])
        return replace(window, status=Status.REFUSED, reason=self.lost) if self.lost else window


def read_session(path: Path) -> list[Measurement]:
    """Read a session; the file stays as it is.

    Raises:
        UserError: it cannot be read, or is no session in energy mode.
    """
    entries = read_json(path, hint=_HINT)
    entries = entries if isinstance(entries, list) else [entries]
    found = [_measurement(path, number, entry) for number, entry in enumerate(entries, start=1)]
    if not found:
        raise UserError(f"{path} holds no measurement", hint=_HINT)
    return found


def _measurement(path: Path, number: int, entry: Any) -> Measurement:
    where = f"{path}: entry {number}"
    power = entry.get("power") if isinstance(entry, dict) else None
    if not isinstance(power, dict):
        raise UserError(f"{where} has no power samples", hint=_HINT)
    try:
        energies_uj = np.asarray(power["samples"], dtype=np.float64) * 1e6
        # Through floats: JSON's whole numbers may be larger than what can be computed with.
        stamps = [(int(float(counter)), int(float(place))) for counter, place in power["timestamps"]]
        inferences = int(float(entry["infer"]["iterations"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where} is not as the runner writes it",
            hint="it wants power.samples, power.timestamps as [number, sample] and infer.iterations",
        ) from None
    if energies_uj.ndim != 1 or not len(energies_uj) or np.isinf(energies_uj).any():
        raise UserError(f"{where} holds no energies, a number a sample", hint=_HINT)
    if len(stamps) < 2:
        raise UserError(f"{where} has {len(stamps)} time stamps: no window", hint="see the wire of the time-stamp pin")
    (_, start), (_, stop) = stamps[-2:]
    if not 0 <= start < stop:
        raise UserError(f"{where}: the window goes from sample {start} to {stop}", hint="the file is damaged")
    trace = Trace(RATE_HZ, energies_uj, f"MLPerf Tiny session {path.name}, entry {number}", adds_periods=False)
    lost = any(later != earlier + 1 for (earlier, _), (later, _) in itertools.pairwise(stamps))
    reason = f"time stamps are missing: there are {', '.join(str(counter) for counter, _ in stamps)}" if lost else ""
    return Measurement(str(entry.get("file", f"entry {number}")), inferences, trace, _span(start, stop), reason)


def _span(start: int, stop: int) -> Span:
    return Span(start / RATE_HZ, stop / RATE_HZ)


def to_dict(measurement: Measurement, window: EnergyWindow) -> dict[str, Any]:
    """JSON-ready record: the window's with ``input``, ``inferences`` and, where it may be used, the energy of one."""
    record = {"input": measurement.name, "inferences": measurement.inferences} | window.to_dict()
    if window.status is Status.OK and measurement.inferences > 0:
        record["inference_energy_uj"] = window.energy_uj / measurement.inferences
    return record


def joined(measurements: list[Measurement]) -> tuple[Trace, list[EnergyWindow]]:
    """All measurements one after the other, for a picture."""
    energies = np.concatenate([m.trace.sample_energy_uj for m in measurements])
    starts = itertools.accumulate((len(m.trace.sample_energy_uj) for m in measurements[:-1]), initial=0)
    windows = []
    for measurement, first in zip(measurements, starts, strict=True):
        window, offset_s = measurement.window(), first / RATE_HZ
        span = Span(offset_s + window.span.start_s, offset_s + window.span.stop_s)
        windows.append(replace(window, span=span))
    name = measurements[0].trace.source.partition(",")[0]
    return Trace(RATE_HZ, energies, name, adds_periods=False), windows
