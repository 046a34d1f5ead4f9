"""Traces: energy sampled at a fixed rate, and what lies between two moments of one.

A trace is small (a thousand samples a second) and lies in memory whole; recordings at the instrument's full rate are
read piece by piece, see :mod:`profiler.energy.recording`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from profiler.energy.windows import EnergyWindow, Span, Status

#: Share of samples missing from a window above which it is refused.
NAN_SHARE_LIMIT = 1e-3
#: Of the stretch between two windows, how much at either end is left out of the baseline: the device settles.
_SETTLING_SHARE = 0.1
#: Fewer samples tell nothing of a baseline.
_BASELINE_SAMPLES_MIN = 10


@dataclass(frozen=True, eq=False)
class Trace:
    """Energy, a value a sample.

    Attributes:
        rate_hz: Samples a second.
        sample_energy_uj: float64 [samples]; NaN where the instrument lost a sample.
        source: What it was read from, in words: goes into tables.
        start_s: When its first sample begins, on the clock that its windows are told by.
        adds_periods: Whether times are told by adding periods up, as the benchmark's first runner does: the rounding of
            that sum decides on which side of a boundary a time stamp of three decimals falls, and with it a sample at
            either end. Otherwise sample n begins at n / rate.
    """

    rate_hz: float
    sample_energy_uj: np.ndarray
    source: str
    start_s: float = 0.0
    adds_periods: bool = True

    @property
    def duration_s(self) -> float:
        return len(self.sample_energy_uj) / self.rate_hz

    @property
    def stop_s(self) -> float:
        return self.start_s + self.duration_s

    @cached_property
    def sample_times_s(self) -> np.ndarray:
        """When each sample begins, float64 [samples + 1]."""
        count = len(self.sample_energy_uj)
        if not self.adds_periods:
            return self.start_s + np.arange(count + 1) / self.rate_hz
        return self.start_s + np.concatenate([[0.0], np.cumsum(np.full(count, 1.0 / self.rate_hz))])

    def first_at(self, time_s: float) -> int:
        """Index of the first sample that begins at ``time_s`` or later."""
        return int(np.searchsorted(self.sample_times_s, time_s, side="left"))

    def window(self, span: Span, before: Span, after: Span, *, resolution_s: float = 0.0) -> EnergyWindow:
        """Energy within ``span``: the sum over the samples that begin in it.

        Args:
            span: The window.
            before: The stretch up to it in which nothing of interest ran; may be empty.
            after: The stretch behind it.
            resolution_s: Of the time stamps; half of it either way is what a stamp may be off.

        Returns:
            Gross energy with its standard uncertainty, the baseline of the stretches around it and the net energy. The
            gross energy's uncertainty is that of its edges: each lies anywhere within a sample, and within the time
            stamps' resolution. What the instrument's own gain is off by is not in it.
        """
        first, end = self.first_at(span.start_s), self.first_at(span.stop_s)
        samples = self.sample_energy_uj[first:end]
        missing = int(np.isnan(samples).sum())
        energy_uj = float(np.nansum(samples))
        if missing and missing < len(samples):
            energy_uj *= len(samples) / (len(samples) - missing)
        width_s = math.hypot(1.0 / self.rate_hz, resolution_s)
        edges_uw = [self._mean_power_uw(max(0, at - 1), at + 1) for at in (first, end)]
        uncertainty_uj = math.hypot(*(power * width_s / math.sqrt(12) for power in edges_uw))
        baseline_uw, baseline_uncertainty_uw = self._baseline(before, after)
        status, reason = Status.OK, ""
        if not len(samples) and self.start_s <= span.start_s < self.stop_s:
            status, reason = Status.REFUSED, "it holds no sample"
        elif span.stop_s > self.stop_s + 0.5 / self.rate_hz:
            status, reason = Status.REFUSED, f"the recording ends before it, at {self.stop_s:g} s"
        elif span.start_s < self.start_s - 0.5 / self.rate_hz:
            status, reason = Status.REFUSED, f"the recording begins after it did, at {self.start_s:g} s"
        elif missing > NAN_SHARE_LIMIT * len(samples):
            status, reason = Status.REFUSED, f"{missing} of {len(samples)} samples are missing"
        return EnergyWindow(
            span=span,
            energy_uj=energy_uj,
            energy_uncertainty_uj=uncertainty_uj,
            baseline_power_uw=baseline_uw,
            baseline_uncertainty_uw=baseline_uncertainty_uw,
            nan_share=missing / len(samples) if len(samples) else 0.0,
            status=status,
            reason=reason,
        )

    def _mean_power_uw(self, first: int, end: int) -> float:
        samples = self.sample_energy_uj[first:end]
        samples = samples[~np.isnan(samples)]
        return float(samples.mean()) * self.rate_hz if len(samples) else 0.0

    def _baseline(self, before: Span, after: Span) -> tuple[float, float]:
        """(mean power of the stretches around a window, its standard uncertainty), both NaN where there are none.

        What differs between the two stretches is drift: half of it counts as uncertainty.
        """
        means_uw, errors_uw = [], []
        for span in (before, after):
            margin_s = _SETTLING_SHARE * span.duration_s
            first, end = self.first_at(span.start_s + margin_s), self.first_at(span.stop_s - margin_s)
            samples = self.sample_energy_uj[first:end]
            samples = samples[~np.isnan(samples)]
            if len(samples) >= _BASELINE_SAMPLES_MIN:
                means_uw.append(float(samples.mean()) * self.rate_hz)
                errors_uw.append(float(samples.std(ddof=1)) * self.rate_hz / math.sqrt(len(samples)))
        if not means_uw:
            return math.nan, math.nan
        drift_uw = (max(means_uw) - min(means_uw)) / 2
        return sum(means_uw) / len(means_uw), math.hypot(drift_uw, *(e / len(errors_uw) for e in errors_uw))


def windows_of(trace: Trace, spans: list[Span], *, resolution_s: float = 0.0) -> list[EnergyWindow]:
    """Energy of every window, each with the stretches up to its neighbours as its baseline.

    Args:
        trace: What was recorded.
        spans: The windows, in order and apart from each other.
        resolution_s: Of the spans' ends.
    """
    stops = [trace.start_s] + [span.stop_s for span in spans]
    starts = [span.start_s for span in spans[1:]] + [trace.stop_s]
    found = []
    for span, stop_before_s, start_after_s in zip(spans, stops, starts, strict=False):
        before = Span(stop_before_s, span.start_s)
        after = Span(span.stop_s, max(span.stop_s, start_after_s))
        found.append(trace.window(span, before, after, resolution_s=resolution_s))
    return found
