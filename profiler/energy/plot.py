"""Power over time with the windows, as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profiler.energy.recording import Recording
from profiler.energy.trace import Trace
from profiler.energy.windows import EnergyWindow, Status
from profiler.errors import UserError

#: Points across the picture; each shows least and most of its samples, so that no spike is lost.
_POINTS = 2000
#: With more windows than that their numbers would lie on each other.
_NUMBERED_MAX = 40


@dataclass(frozen=True, eq=False)
class _Envelope:
    """Power of stretches of equal length: float64 [stretches] each, NaN where nothing was recorded."""

    times_s: np.ndarray
    low_mw: np.ndarray
    high_mw: np.ndarray
    mean_mw: np.ndarray


def plot_trace(trace: Trace, windows: Sequence[EnergyWindow], path: Path) -> None:
    """Draw a trace and its windows, refused ones hatched in red, to a PNG.

    Raises:
        UserError: the file cannot be written, or its name says another format.
    """
    power_mw = trace.sample_energy_uj * trace.rate_hz * 1e-3
    _draw(_envelope([power_mw], len(power_mw), trace.rate_hz, trace.start_s), windows, trace.source, path)


def plot_recording(recording: Recording, windows: Sequence[EnergyWindow], path: Path, *, name: str) -> None:
    """The same of a recording at the instrument's full rate, read piece by piece; ``name`` is what it is called.

    Raises:
        UserError: as :func:`plot_trace`.
    """
    base = recording.power
    pieces = (piece.astype(np.float64) * 1e3 for piece in recording.power_pieces())
    _draw(_envelope(pieces, base.length, base.rate_hz, base.start_s), windows, f"{recording.label}: {name}", path)


def _envelope(pieces: Iterable[np.ndarray], length: int, rate_hz: float, start_s: float) -> _Envelope:
    """About :data:`_POINTS` stretches of samples in mW."""
    each = max(1, length // _POINTS)
    count = length // each
    low, high, mean = (np.full(count, np.nan) for _ in range(3))
    rest = np.array([], np.float64)
    done = 0
    for piece in pieces:
        samples = np.concatenate([rest, piece])
        whole = min(len(samples) // each, count - done)
        rows = samples[: whole * each].reshape(whole, each)
        known = ~np.isnan(rows).all(axis=1)
        at = done + np.flatnonzero(known)
        low[at], high[at] = np.nanmin(rows[known], axis=1), np.nanmax(rows[known], axis=1)
        mean[at] = np.nanmean(rows[known], axis=1)
        rest = samples[whole * each :]
        done += whole
    return _Envelope(start_s + np.arange(count) * each / rate_hz, low, high, mean)


def _draw(envelope: _Envelope, windows: Sequence[EnergyWindow], title: str, path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - no global state, no display

    if path.suffix.lower() != ".png":
        raise UserError(f"--plot {path} is no PNG", hint="give a name that ends in .png", exit_status=2)
    times_s = envelope.times_s
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(
        times_s, envelope.low_mw, envelope.high_mw, step="post", color="0.75", linewidth=0, label="least to most"
    )
    axes.step(times_s, envelope.mean_mw, where="post", color="0.15", linewidth=0.8, label="mean power")
    labels = set()
    for number, window in enumerate(windows, start=1):
        good = window.status is Status.OK
        label = "window" if good else "refused window"
        axes.axvspan(
            window.span.start_s,
            window.span.stop_s,
            facecolor="tab:green" if good else "none",
            edgecolor="tab:green" if good else "tab:red",
            hatch=None if good else "//",
            alpha=0.25 if good else 0.8,
            label=label if label not in labels else None,
        )
        labels.add(label)
        if len(windows) <= _NUMBERED_MAX:
            middle_s = (window.span.start_s + window.span.stop_s) / 2
            axes.annotate(str(number), (middle_s, 0.98), xycoords=("data", "axes fraction"), ha="center", va="top")
    axes.set_xlim(times_s[0], times_s[-1])
    known = ~np.isnan(envelope.mean_mw)
    bottom = float(envelope.low_mw[known].min(initial=0.0))
    top = float(envelope.high_mw[known].max(initial=bottom))
    axes.set_ylim(bottom, top + 0.12 * (top - bottom or 1.0))  # room for the numbers
    axes.set_xlabel("time / s")
    axes.set_ylabel("power / mW")
    axes.set_title(title, loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize="small")
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="give --plot a file you can write") from None
