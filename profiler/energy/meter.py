"""Energy of a program: an instrument records while a device repeats it, and doubtful windows are measured again."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from profiler.energy.find import find_windows
from profiler.energy.instruments import LATE_S, Joulescope
from profiler.energy.judge import ClockRatio, Expected, accumulator_doubt, doubt
from profiler.energy.recording import MemoryRecording
from profiler.energy.windows import EnergyWindow
from profiler.errors import UserError
from profiler.measure.trials import overrun

#: Idle time before and after a window, for its baseline.
IDLE_S = 0.2
#: How often a window that is refused is measured again.
_ATTEMPTS = 4
#: How long samples may take on their way to the host.
_ARRIVAL_S = 2.0
#: What the interpreter takes between two executions, about.
_HARNESS_CYCLES = 450
#: Loops that `run` can ask for.
_LOOPS_MAX = 2**32 - 1


@dataclass(frozen=True)
class EnergyMeter:
    """Measures the energy of programs on a device.

    Attributes:
        instrument: Recording.
        window_s: How long a window is to be at least.
        clock_tolerance: By how much the device's clock and the instrument's may differ, relative.
        clocks: By how much they do.
    """

    instrument: Joulescope
    window_s: float
    clock_tolerance: float = Expected.clock_tolerance
    clocks: ClockRatio = field(default_factory=ClockRatio)

    def measure(
        self, device: Any, program: Any, *, execution_s: float, seed: int, cold: bool = False, name: str = ""
    ) -> dict[str, Any]:
        """Repeat a program until its window is long enough, again where the window is doubtful.

        Args:
            device: An open device.
            program: What to run.
            execution_s: How long one execution takes, in the device's time.
            seed: Of the inputs.
            cold: Whether caches are emptied before each timed op; the trigger is low meanwhile.
            name: What the recording's annotations call this.

        Returns:
            What a trial says of its energy (JSON-ready): ``source``, ``loops``; ``windows``: all that were found, each
            with its ``attempt``, refused ones without their energies; ``status`` and ``reason``; and, where the status
            is ``ok``, of one execution with what lies between two: ``energy_uj``, ``energy_uncertainty_uj``,
            ``duration_s``, ``baseline_power_uw`` and ``baseline_uncertainty_uw`` (null: unknown). By the device itself
            ``window_count``, and of one execution ``device_duration_s`` and the share that the ops take of it,
            ``op_duration_s``.

        Raises:
            UserError: the instrument fell silent, or the trigger never moves.
        """
        loops = loops_for(device, execution_s, self.window_s)
        record: dict[str, Any] = {"source": self.instrument.label, "loops": loops, "windows": []}
        reason, told = "", {}
        for attempt in range(_ATTEMPTS):
            windows, reason, told = self._attempt(device, program, loops, seed, cold=cold, name=name)
            record["windows"] += [window.to_dict() | {"attempt": attempt} for window in windows]
            if not reason:
                return record | {"status": "ok", "reason": ""} | of_one(windows, loops) | told
        return record | {"status": "refused", "reason": reason} | told

    def _attempt(
        self, device: Any, program: Any, loops: int, seed: int, *, cold: bool, name: str
    ) -> tuple[list[EnergyWindow], str, dict[str, float]]:
        """(the windows that were found, why they must not be used, what the device says of one execution)."""
        since_s = min(self.instrument.idle(IDLE_S), self.instrument.now_s - LATE_S)
        result = run_window(device, program, loops, seed, cold=cold)
        self.instrument.idle(IDLE_S)
        if result.stop is not None:
            return [], overrun(result, 1), {}
        told = told_by_device(device, result, loops)
        duration_s = told["device_duration_s"] * loops
        expected = Expected(result.windows.count, duration_s, loops, self.clock_tolerance)
        recording, windows = self._windows(since_s, expected.count)
        resolution_s = 1 / min(recording.power.rate_hz, recording.trigger.rate_hz)
        reason = doubt(windows, expected, resolution_s=resolution_s)
        if not reason:
            high_s = sum(window.span.duration_s for window in windows)
            reason = self.clocks.doubt(high_s, expected, resolution_s=resolution_s)
        reason = reason or accumulator_doubt(
            recording, self.instrument.accumulated(), slack_s=self.instrument.accumulator_slack_s
        )
        for window in windows:
            self.instrument.annotate(window.span.start_s, _caption(name, window, loops, reason))
        if not windows:
            self.instrument.annotate(since_s, f"{name}: {reason}")
        return windows, reason, told

    def _windows(self, since_s: float, count: int) -> tuple[MemoryRecording, list[EnergyWindow]]:
        """What was recorded since then, as soon as so many windows have arrived, or no more are to be expected."""
        deadline_s = time.monotonic() + (_ARRIVAL_S if self.instrument.samples_are_late else 0.0)
        while True:
            recording = self.instrument.recording(since_s)
            late = time.monotonic() >= deadline_s
            try:
                windows = find_windows(recording)
            except UserError:  # no edge at all
                if late:
                    raise
                windows = []
            if len(windows) >= count or late:
                return recording, windows
            time.sleep(0.02)


@dataclass(frozen=True)
class WindowMaker:
    """Makes the windows of an :class:`EnergyMeter` for an instrument that records by itself; the two are joined later.

    Attributes:
        window_s: How long a window is to be at least.
        label: Of the energies until then.
    """

    window_s: float
    label: str = "recording"

    def measure(
        self, device: Any, program: Any, *, execution_s: float, seed: int, cold: bool = False, name: str = ""
    ) -> dict[str, Any]:
        """As :meth:`EnergyMeter.measure`; the status is ``pending``, with the windows' number and no energies."""
        loops = loops_for(device, execution_s, self.window_s)
        time.sleep(IDLE_S)
        result = run_window(device, program, loops, seed, cold=cold)
        time.sleep(IDLE_S)
        record = {"source": self.label, "loops": loops, "windows": []}
        if result.stop is not None:
            return record | {"status": "refused", "reason": overrun(result, 1)}
        reason = "to be joined with its recording: profile energy FILE.jls --run RUN --out DIR"
        return record | {"status": "pending", "reason": reason} | told_by_device(device, result, loops)


def loops_for(device: Any, execution_s: float, window_s: float) -> int:
    """How often to repeat what takes ``execution_s`` by itself."""
    harness_s = _HARNESS_CYCLES / device.identity.clock_hz
    return min(max(1, math.ceil(window_s / (execution_s + harness_s))), _LOOPS_MAX)


def run_window(device: Any, program: Any, loops: int, seed: int, *, cold: bool) -> Any:
    """One run in loops.

    Raises:
        UserError: the device does not tell of its trigger.
    """
    result = device.run(program, repetitions=1, seed=seed, loops=loops, cold=cold)
    if result.windows is None:
        raise UserError(f"{device.identity.board} does not tell of its trigger", hint="build and load its firmware")
    return result


def told_by_device(device: Any, result: Any, loops: int) -> dict[str, Any]:
    """How often the trigger was high; by the device's clock, of one execution: how long, and how long the ops took."""
    timer_hz = device.identity.timer_hz
    return {
        "window_count": result.windows.count,
        "device_duration_s": result.windows.ticks / timer_hz / loops,
        "op_duration_s": float(result.ticks.sum()) / timer_hz / loops,
    }


def _caption(name: str, window: EnergyWindow, loops: int, reason: str) -> str:
    """What an annotation says of a window: its trial, and the energy of one execution or why there is none."""
    if reason:
        return f"{name}: refused: {reason}"
    energy_uj, uncertainty_uj = window.energy_uj / loops, window.energy_uncertainty_uj / loops
    return f"{name}: {energy_uj:.6g} uJ (standard uncertainty {uncertainty_uj:.2g} uJ) an execution, {loops} in a row"


def of_one(windows: Sequence[EnergyWindow], loops: int) -> dict[str, Any]:
    """Energy, duration and baseline of one execution, which takes one window of each image."""
    durations_s = sum(window.span.duration_s for window in windows)
    baselines = [w for w in windows if not math.isnan(w.baseline_power_uw)]
    known = bool(baselines)
    mean_uw = sum(w.baseline_power_uw for w in baselines) / len(baselines) if known else None
    error_uw = math.hypot(*(w.baseline_uncertainty_uw for w in baselines)) / len(baselines) if known else None
    return {
        "energy_uj": sum(w.energy_uj for w in windows) / loops,
        "energy_uncertainty_uj": math.hypot(*(w.energy_uncertainty_uj for w in windows)) / loops,
        "duration_s": durations_s / loops,
        "baseline_power_uw": mean_uw,
        "baseline_uncertainty_uw": error_uw,
    }
