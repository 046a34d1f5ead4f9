"""Traces and time stamps as MLPerf Tiny's energy runner writes them.

A trace is one byte 0xF1, the sample rate in hertz as little-endian float32, then energies in microjoules as
little-endian float32, a value a sample. Time stamps are a JSON list in seconds: the first is when the recording began
to be watched and no window, then come start, stop, start, stop; a start without a stop is one that was never finished.
The format is that of the results published at mlcommons/tiny_results_v0.7 and v1.1.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiler.energy.trace import Trace
from profiler.energy.windows import Span
from profiler.errors import UserError

_MARK = 0xF1
_HEADER_BYTES = 5
#: Rates beyond that are no rates but the wrong file.
_RATE_MAX_HZ = 20e6
#: Decimals of the runner's time stamps.
RESOLUTION_S = 1e-3
_HINT = "give a JSON list of seconds: the recording's first moment, then start, stop, start, stop ..."


def read_trace(path: Path) -> Trace:
    """Read a trace; the file stays as it is.

    Raises:
        UserError: it cannot be read, is no such trace, or breaks off within a sample.
    """
    with _opened(path) as stream:
        content = stream.read()
    if len(content) <= _HEADER_BYTES:
        raise UserError(f"{path} is empty ({len(content)} bytes)", hint="give the whole recording")
    if content[0] != _MARK:
        raise UserError(
            f"{path} is no energy trace: it begins with 0x{content[0]:02x} and not with 0x{_MARK:02x}",
            hint="give a trace of MLPerf Tiny's energy runner, a CSV or a JLS file",
        )
    rate_hz = float(np.frombuffer(content[1:_HEADER_BYTES], "<f4")[0])
    if not 0 < rate_hz <= _RATE_MAX_HZ:
        raise UserError(f"{path} states a sample rate of {rate_hz:g} Hz", hint="the file is damaged: copy it again")
    if (len(content) - _HEADER_BYTES) % 4:
        raise UserError(
            f"{path} breaks off within a sample ({len(content)} bytes)", hint="the file is truncated: copy it again"
        )
    energies = np.frombuffer(content[_HEADER_BYTES:], "<f4").astype(np.float64)
    if np.isinf(energies).any():
        raise UserError(f"{path} holds infinite energies", hint="the file is damaged: copy it again")
    return Trace(rate_hz, energies, f"MLPerf Tiny trace {path.name}")


def read_windows(path: Path) -> tuple[list[Span], list[str]]:
    """Read time stamps: the runner's list, or one of windows: pairs, or ``start_s`` and ``stop_s`` as ``profile energy
    --json`` prints them.

    Returns:
        (the windows, a sentence for everything that is odd about them).

    Raises:
        UserError: it cannot be read, is no such list of ascending times, or holds no window.
    """
    stamps = read_json(path, hint=_HINT)
    odd = []
    if isinstance(stamps, dict):
        stamps = stamps.get("windows")
    if isinstance(stamps, list) and stamps and all(map(_is_window, stamps)):
        times = [time_s for window in stamps for time_s in _ends(window)]
        _check_ascending(path, times, first=0)
    elif isinstance(stamps, list) and all(map(_is_time, stamps)):
        times = stamps[1 : len(stamps) - (len(stamps) + 1) % 2]
        if len(stamps) > 1 and len(stamps) % 2 == 0:
            odd.append(f"the last window, from {stamps[-1]:g} s on, was never finished and is left out")
        _check_ascending(path, stamps, first=1)
    else:
        raise UserError(f"{path} holds something else than a list of seconds", hint=_HINT)
    spans = [Span(float(start), float(stop)) for start, stop in zip(times[::2], times[1::2], strict=True)]
    if not spans:
        raise UserError(f"{path} holds no window, only {len(stamps)} time stamps", hint=_HINT)
    return spans, odd


def _check_ascending(path: Path, stamps: Sequence[float], *, first: int) -> None:
    """A window may begin where the one before it stops, but each lasts a while; the ``first`` begins there."""
    for index, (earlier, later) in enumerate(itertools.pairwise(stamps)):
        lasts = (index - first) % 2 == 0
        if later < earlier or (lasts and later == earlier):
            raise UserError(f"{path}: time stamp {index + 2} ({later:g} s) is not after {earlier:g} s", hint=_HINT)


def _is_time(value: Any) -> bool:
    # Compared, not converted: JSON's whole numbers may be larger than any float.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _is_window(value: Any) -> bool:
    ends = _ends(value)
    return len(ends) == 2 and all(map(_is_time, ends))


def _ends(window: Any) -> Sequence[Any]:
    if isinstance(window, dict):
        return [window.get("start_s"), window.get("stop_s")]
    return window if isinstance(window, list) else []


def read_json(path: Path, *, hint: str) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="check its name") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error})", hint=hint) from None


def _opened(path: Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="check its name and permissions") from None
