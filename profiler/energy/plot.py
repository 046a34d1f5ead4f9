"""Power over time with the windows, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiler.energy.trace import Trace
from profiler.energy.windows import EnergyWindow, Status
from profiler.errors import UserError

#: Points across the picture; each shows least and most of its samples, so that no spike is lost.
_POINTS = 2000


def plot_trace(trace: Trace, windows: Sequence[EnergyWindow], path: Path) -> None:
    """Draw a trace and its windows, refused ones hatched in red, to a PNG.

    Raises:
        UserError: the file cannot be written, or its name says another format.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - no global state, no display

    if path.suffix.lower() != ".png":
        raise UserError(f"--plot {path} is no PNG", hint="give a name that ends in .png", exit_status=2)
    times_s, low_mw, high_mw, mean_mw = _envelope(trace)
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(times_s, low_mw, high_mw, step="post", color="0.75", linewidth=0, label="least to most")
    axes.step(times_s, mean_mw, where="post", color="0.15", linewidth=0.8, label="mean power")
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
        middle_s = (window.span.start_s + window.span.stop_s) / 2
        axes.annotate(str(number), (middle_s, 0.98), xycoords=("data", "axes fraction"), ha="center", va="top")
    axes.set_xlim(0, trace.duration_s)
    axes.set_ylim(bottom=min(0.0, float(np.nanmin(low_mw))))
    axes.set_xlabel("time / s")
    axes.set_ylabel("power / mW")
    axes.set_title(trace.source)
    axes.legend(loc="lower right", fontsize="small")
    try:
        figure.savefig(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="give --plot a file you can write") from None


def _envelope(trace: Trace) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(time, least, most, mean power) of about :data:`_POINTS` stretches."""
    power_mw = trace.sample_energy_uj * trace.rate_hz * 1e-3
    each = max(1, len(power_mw) // _POINTS)
    count = len(power_mw) // each
    pieces = power_mw[: count * each].reshape(count, each)
    known = ~np.isnan(pieces).all(axis=1)
    low, high, mean = (np.full(count, np.nan) for _ in range(3))
    low[known] = np.nanmin(pieces[known], axis=1)
    high[known] = np.nanmax(pieces[known], axis=1)
    mean[known] = np.nanmean(pieces[known], axis=1)
    return np.arange(count) * each / trace.rate_hz, low, high, mean
