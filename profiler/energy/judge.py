"""Whether the windows of a recording are those that the device says it made."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.energy.recording import Recording
from profiler.energy.scan import integrate
from profiler.energy.windows import EnergyWindow, Status
from profiler.measure.statistics import mad, median

#: Loops from which on all parts of a window must look alike.
_LOOPS_ALIKE = 200
#: Energy of a window's parts that do not, over the whole.
_JUMP_SHARE_MAX = 2e-3
#: By how much the instrument's accumulator and the integral of its samples may differ.
_ACCUMULATOR_TOLERANCE = 2e-3
#: The two clocks' ratio is known from that many windows on, by the last of them.
_RATIOS_MIN, _RATIOS_KEPT = 8, 24
#: By how much a window's own ratio may differ, at least, and in median absolute deviations of the others'.
_RATIO_TOLERANCE = 2e-4
_STANDS_OUT = 9.0


@dataclass(frozen=True)
class Expected:
    """What the device tells of its windows.

    Attributes:
        count: How often the trigger was high.
        duration_s: How long, all together, by the device's clock.
        loops: How often each window repeats the same thing.
        clock_tolerance: By how much the device's clock and the instrument's may differ, relative: energies are wrong by
            as much where it is the instrument's that is off. Crystals keep 1e-4; a board that fell back to its RC
            oscillator needs more.
    """

    count: int
    duration_s: float
    loops: int = 1
    clock_tolerance: float = 0.004


def doubt(windows: Sequence[EnergyWindow], expected: Expected, *, resolution_s: float) -> str:
    """Why windows must not be taken for those that a device made; nothing where they may.

    Args:
        windows: All that were found since the device was asked.
        expected: What the device says.
        resolution_s: How exactly an edge is known.
    """
    if len(windows) != expected.count:
        return f"{len(windows)} windows were recorded where the device made {expected.count}"
    for window in windows:
        if window.status is not Status.OK:
            return window.reason
        if expected.loops >= _LOOPS_ALIKE and window.jump_share > _JUMP_SHARE_MAX:
            return f"power jumps in a part of the window that holds {100 * window.jump_share:.2f} % of its energy"
    duration_s = sum(window.span.duration_s for window in windows)
    tolerance_s = expected.clock_tolerance * expected.duration_s + 2 * len(windows) * resolution_s
    if abs(duration_s - expected.duration_s) > tolerance_s:
        return f"the trigger was high for {duration_s * 1e3:.3f} ms, the device says {expected.duration_s * 1e3:.3f} ms"
    return ""


class ClockRatio:
    """How much longer windows are by the instrument's clock than by the device's: the same for all of a recording.

    A window's own ratio that stands out tells of an edge in the wrong place, or of samples that were lost without a
    hole in their numbers, long before the duration itself looks wrong.
    """

    def __init__(self) -> None:
        self._ratios: deque[float] = deque(maxlen=_RATIOS_KEPT)

    def doubt(self, duration_s: float, expected: Expected, *, resolution_s: float) -> str:
        """Why windows of ``duration_s`` in all are not as long as others were; nothing where they are.

        Every one is remembered, so that a device's oscillator may drift; until some are, nothing is said.
        """
        known = list(self._ratios)
        ratio = duration_s / expected.duration_s
        self._ratios.append(ratio)
        if len(known) < _RATIOS_MIN:
            return ""
        usual = median(known)
        tolerance = max(_RATIO_TOLERANCE, _STANDS_OUT * mad(known)) + 2 * expected.count * resolution_s / duration_s
        if abs(ratio - usual) <= tolerance:
            return ""
        return (
            f"the trigger was high for {1e6 * (ratio / usual - 1):+.0f} ppm more than other windows make expect "
            f"({1e6 * tolerance:.0f} ppm may be): samples were lost beside an edge or without a hole in their numbers"
        )


def accumulator_doubt(recording: Recording, readings: Sequence[tuple[float, float]], *, slack_s: float = 0.0) -> str:
    """Whether an instrument's own accumulator agrees with the samples that arrived; why not.

    Args:
        recording: The samples.
        readings: (time on the instrument's clock, accumulated energy in J); compared between the first and the last
            that lie within the recording, so that nothing is interpolated.
        slack_s: By how much their times may be off.
    """
    inside = [r for r in readings if recording.power.start_s <= r[0] <= recording.power.stop_s]
    if len(inside) < 2:
        return ""
    (start_s, start_j), (stop_s, stop_j) = inside[0], inside[-1]
    # Readings that are all too late by the same make no difference where power is the same at both.
    beside = [[at_s - slack_s, at_s + slack_s] for at_s in (start_s, stop_s)]
    sums, _ = integrate(recording, np.array([[start_s, stop_s], *beside]))
    slack_j = slack_s * abs(float(sums.power_w[1] - sums.power_w[2])) if slack_s else 0.0
    samples_j = float(sums.power_w[0]) * (stop_s - start_s)
    noise_j = 5 * float(sums.scatter_w[0]) * (stop_s - start_s) / max(float(sums.samples[0]), 1.0) ** 0.5
    if abs(samples_j - (stop_j - start_j)) <= _ACCUMULATOR_TOLERANCE * abs(stop_j - start_j) + noise_j + slack_j:
        return ""
    return f"the instrument's accumulator says {stop_j - start_j:.6g} J where its samples make {samples_j:.6g} J"
