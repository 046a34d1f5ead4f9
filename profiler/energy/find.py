"""Windows of a recording: the energy between a rise of the trigger and its fall, with what makes it doubtful."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from profiler.energy.recording import Recording
from profiler.energy.scan import Gaps, Sums, find_edges, integrate
from profiler.energy.trace import NAN_SHARE_LIMIT
from profiler.energy.windows import EnergyWindow, Span, Status

#: An edge so near to a gap is none: the trigger reads low where samples are lost.
GAP_MARGIN_S = 1e-3
#: After an edge the supply settles; so much of the idle stretches beside it is left out of the baseline.
SETTLING_S = 5e-3
#: No more than that of an idle stretch is looked at: what was long ago says nothing of now.
BASELINE_S = 0.5
#: So many parts of a window are compared with each other.
_PARTS = 32
#: In standard deviations, by the parts' own scatter.
_STANDS_OUT = 6.0
#: Less than that of an idle stretch says nothing.
_BASELINE_MIN_S = 1e-3


def find_windows(recording: Recording) -> list[EnergyWindow]:
    """Every whole window of a recording, in order, with its energy, baseline and their uncertainties.

    Times are on the instrument's clock. A window's gross energy is the integral of power from edge to edge; its
    standard uncertainty has two parts: where within a sample of trigger and power each edge was, uniformly, and the
    scatter of power. The baseline is the mean power of the idle stretches before and after it, at most
    :data:`BASELINE_S` of each; half of what they differ by, the drift, counts as uncertainty.

    Raises:
        UserError: the trigger never changes, or changes all the time.
    """
    edges = find_edges(recording)
    windows_s = edges.spans_s()
    if not len(windows_s):
        return []
    before_s, after_s = _idle_stretches(edges.times_s, windows_s, recording.power.start_s, recording.power.stop_s)
    count = len(windows_s)
    parts_s = _parts(windows_s)
    sums, gaps = integrate(recording, np.concatenate([windows_s, before_s, after_s, parts_s]))
    jump_shares = _jump_shares(sums.power_w[3 * count :].reshape(count, _PARTS))
    lost = (gaps, Gaps(recording.trigger_gaps_s))
    near_gap = np.logical_or(*(each.near(windows_s.ravel(), GAP_MARGIN_S) for each in lost)).reshape(-1, 2)
    width_s = math.hypot(edges.resolution_s, 1 / recording.power.rate_hz)
    found = []
    for index, (start_s, stop_s) in enumerate(windows_s):
        window = _window(Span(float(start_s), float(stop_s)), sums, index, width_s)
        baseline_uw, uncertainty_uw = _baseline(sums, (index + count, index + 2 * count))
        reason = _doubt(window.span, recording, near_gap[index], float(sums.samples[index]), int(sums.missing[index]))
        found.append(
            replace(
                window,
                baseline_power_uw=baseline_uw,
                baseline_uncertainty_uw=uncertainty_uw,
                jump_share=float(jump_shares[index]),
                status=Status.REFUSED if reason else Status.OK,
                reason=reason,
            )
        )
    return found


def _parts(windows_s: np.ndarray) -> np.ndarray:
    """Each window in equal parts, float64 [windows * parts, 2]."""
    borders = windows_s[:, :1] + np.diff(windows_s, axis=1) * np.linspace(0, 1, _PARTS + 1)
    return np.stack([borders[:, :-1], borders[:, 1:]], axis=2).reshape(-1, 2)


def _jump_shares(parts_w: np.ndarray) -> np.ndarray:
    """Of each window's parts [windows, parts] those that stand out: what they are off by over the sum of all.

    By the median absolute deviation, which a few wrong parts do not move; a drift widens it and does not stand out.
    """
    shares = np.zeros(len(parts_w))
    told = np.abs(np.nansum(parts_w, axis=1)) > 0  # neither lost altogether nor without any power
    parts_w = parts_w[told]
    off = np.abs(parts_w - np.nanmedian(parts_w, axis=1, keepdims=True))
    scatter = 1.4826 * np.nanmedian(off, axis=1, keepdims=True)
    stands_out = off > _STANDS_OUT * scatter
    shares[told] = np.nansum(np.where(stands_out, off, 0), axis=1) / np.abs(np.nansum(parts_w, axis=1))
    return shares


def _idle_stretches(
    edges_s: np.ndarray, windows_s: np.ndarray, start_s: float, stop_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Stretches before and after each window that belong to the baseline; empty where there is no room."""
    ends_s = np.concatenate([[start_s - SETTLING_S], edges_s, [stop_s + SETTLING_S]])
    rises, falls = windows_s[:, 0], windows_s[:, 1]
    previous = ends_s[np.searchsorted(ends_s, rises, side="left") - 1]
    following = ends_s[np.minimum(np.searchsorted(ends_s, falls, side="right"), len(ends_s) - 1)]
    before = np.stack([np.maximum(previous + SETTLING_S, rises - SETTLING_S - BASELINE_S), rises - SETTLING_S], axis=1)
    after = np.stack([falls + SETTLING_S, np.minimum(following - SETTLING_S, falls + SETTLING_S + BASELINE_S)], axis=1)
    for stretch in (before, after):
        short = stretch[:, 1] - stretch[:, 0] < _BASELINE_MIN_S
        stretch[short, 1] = stretch[short, 0]
    return before, after


def _window(span: Span, sums: Sums, row: int, width_s: float) -> EnergyWindow:
    """Gross energy; an edge lies anywhere within ``width_s``."""
    samples, missing = float(sums.samples[row]), int(sums.missing[row])
    power_uw = float(sums.power_w[row]) * 1e6
    edge_uj = abs(power_uw) * width_s / math.sqrt(12)
    scatter_uj = float(sums.scatter_w[row]) * 1e6 * span.duration_s / math.sqrt(max(samples, 1.0))
    return EnergyWindow(
        span=span,
        energy_uj=power_uw * span.duration_s,
        energy_uncertainty_uj=math.hypot(edge_uj, edge_uj, scatter_uj),
        nan_share=missing / samples if samples else 0.0,
    )


def _doubt(span: Span, recording: Recording, near_gap: np.ndarray, samples: float, missing: int) -> str:
    """Why a window must not be used; nothing where it may."""
    if span.start_s < recording.power.start_s or span.stop_s > recording.power.stop_s:
        return "power was not recorded all through it"
    if near_gap.any():
        edge = "rise" if near_gap[0] else "fall"
        return f"its {edge} lies beside samples that the instrument lost: it may be none"
    if samples - missing < 1:
        return "it holds no sample"
    if missing > NAN_SHARE_LIMIT * samples:
        return f"{missing} of {samples:.0f} samples are missing"
    return ""


def _baseline(sums: Sums, rows: tuple[int, int]) -> tuple[float, float]:
    means_uw, errors_uw = [], []
    for row in rows:
        there = float(sums.samples[row] - sums.missing[row])
        if there > 1:
            means_uw.append(float(sums.power_w[row]) * 1e6)
            errors_uw.append(float(sums.scatter_w[row]) * 1e6 / math.sqrt(there))
    if not means_uw:
        return math.nan, math.nan
    drift_uw = (max(means_uw) - min(means_uw)) / 2
    return sum(means_uw) / len(means_uw), math.hypot(drift_uw, *(error / len(errors_uw) for error in errors_uw))
