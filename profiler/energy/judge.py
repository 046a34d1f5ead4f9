"""Whether the windows of a recording are those that the device says it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from profiler.energy.windows import EnergyWindow, Status

#: Repetitions from which on all parts of a window must look alike.
_REPETITIONS_ALIKE = 200
#: Energy of a window's parts that do not, over the whole.
_JUMP_SHARE_MAX = 2e-3
#: By how much an instrument's accumulator and the integral of its samples may differ.
_ACCUMULATOR_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Expected:
    """A window as the device tells of it.

    Attributes:
        duration_s: How long the trigger was high, by the device's clock.
        repetitions: How often the same thing ran in it.
        clock_tolerance: By how much the device's clock and the instrument's may differ, relative: energies are wrong by
            as much where it is the instrument's that is off. Crystals keep 1e-4; a board that fell back to its RC
            oscillator needs more.
    """

    duration_s: float
    repetitions: int = 1
    clock_tolerance: float = 0.004


def judge(
    windows: Sequence[EnergyWindow], expected: Expected, *, resolution_s: float, accumulated_uj: float | None = None
) -> EnergyWindow | str:
    """The one window that was to be found, refused where it is doubtful; a sentence where there is not one.

    Args:
        windows: All that were found since the device was asked.
        expected: What the device says.
        resolution_s: How exactly both ends of a window are known.
        accumulated_uj: The same energy by the instrument's own accumulator.
    """
    if len(windows) != 1:
        return f"{len(windows)} windows were recorded where the device made 1"
    window = windows[0]
    if window.status is not Status.OK:
        return window
    difference_s = window.span.duration_s - expected.duration_s
    if abs(difference_s) > expected.clock_tolerance * expected.duration_s + 2 * resolution_s:
        found_ms, said_ms = window.span.duration_s * 1e3, expected.duration_s * 1e3
        return _refused(window, f"it is {found_ms:.3f} ms long where the device says {said_ms:.3f} ms")
    if expected.repetitions >= _REPETITIONS_ALIKE and window.jump_share > _JUMP_SHARE_MAX:
        return _refused(window, f"power jumps in a part of it that holds {100 * window.jump_share:.2f} % of its energy")
    if accumulated_uj is not None:
        off = abs(accumulated_uj - window.energy_uj)
        if off > _ACCUMULATOR_TOLERANCE * abs(window.energy_uj) + 3 * window.energy_uncertainty_uj:
            return _refused(
                window,
                f"the instrument's accumulator says {accumulated_uj:.6g} uJ, the samples {window.energy_uj:.6g} uJ",
            )
    return window


def _refused(window: EnergyWindow, reason: str) -> EnergyWindow:
    return replace(window, status=Status.REFUSED, reason=reason)
