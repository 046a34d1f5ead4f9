"""Instruments: what records while a device runs, and gives the windows of what it just did.

One class serves the real Joulescope and the emulated one: it talks to a driver with the vendor's interface, lets the
vendor's own ``Record`` write the file, and keeps the last seconds of power and trigger in memory for the windows.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from profiler.energy.annotations import UTC_SECOND, Annotations, Signal
from profiler.energy.arrivals import Means, Stream
from profiler.energy.controls import ANALOG, INPUTS, MODELS, STATISTICS, SUPPLY, controls
from profiler.energy.emulated import EmulatedDriver, Segment
from profiler.energy.recording import MemoryRecording
from profiler.errors import UserError

#: The first samples after the instrument starts are its filters settling.
SETTLING_S = 0.1
#: Samples of what a device has just done arrive within that.
LATE_S = 0.1
#: How long the last samples may take on their way to the host before they are missed.
_ARRIVAL_S = 2.0
#: A JS110's accumulator is read twice a second; looked for that long, every so often.
_READING_S, _POLL_S = 1.5, 0.05
#: A reading of an accumulator is placed that exactly among the samples where only the host's clock joins the two.
_HOST_CLOCK_S = 0.05
#: Signals that go into the file beside the trigger's input, by the vendor's names, and their units.
_RECORDED = {"current": "A", "voltage": "V", "power": "W"}
#: In the user's data of a file that an emulated instrument wrote.
SIMULATED_NOTE = "simulated: made up by the emulated instrument of tinytrain-hil, measured nowhere"


class Joulescope:
    """A Joulescope: open, so that the target has power, and recording after :meth:`start`.

    Use :func:`open_joulescope` or :func:`open_emulated`.

    Args:
        driver: The vendor's ``Driver``, or an :class:`EmulatedDriver`.
        path: Device path, ``u/js220/001122``.
        trigger_input: Number of the general-purpose input that the trigger pin is on.
        statistics_hz: Instead of samples, take the mean powers that the instrument computes itself, so many a second;
            only the trigger is streamed.

    Attributes:
        label: ``joulescope-js220`` and the like, or ``simulated``.
        model: ``js110``, ``js220`` or ``js320``.
        serial_number: The instrument's.
        samples_are_late: Whether they take a while to the host.
        statistics_hz: As above; None: all samples.

    Raises:
        UserError: the model is unknown, has no such input, or computes no such statistics.
    """

    def __init__(self, driver: Any, path: str, *, trigger_input: int = 0, statistics_hz: int | None = None) -> None:
        self._driver, self._path = driver, path
        _, self.model, self.serial_number = path.split("/")
        if self.model not in MODELS:
            raise UserError(f"{path} is a model that is not known here", hint=f"there are {', '.join(MODELS)}")
        if self.model == "js110" and statistics_hz is not None:
            raise UserError(
                "--energy-rate is nothing for a JS110: it computes its own statistics only twice a second",
                hint="leave --energy-rate away, or take a JS220 or JS320",
            )
        if trigger_input >= INPUTS[self.model]:
            raise UserError(
                f"{path} has no input {trigger_input}",
                hint=f"it has 0 to {INPUTS[self.model] - 1}: give the trigger pin's as --trigger-input",
                exit_status=2,
            )
        self.samples_are_late = not isinstance(driver, EmulatedDriver)
        self.label = "simulated" if isinstance(driver, EmulatedDriver) else f"joulescope-{self.model}"
        self.statistics_hz = statistics_hz
        self._trigger_input = trigger_input
        self._lock = threading.Lock()  # samples arrive in a thread of the driver's
        self._power: Stream | Means = Stream(1) if statistics_hz is None else Means(statistics_hz)
        self._trigger = Stream(8)
        self._accumulated: deque[tuple[float, float]] = deque(maxlen=100_000)
        self._record: Any = None
        self._file: Path | None = None
        self._annotations: Annotations | None = None
        self._callbacks: dict[str, Callable[[str, Any], None]] = {
            f"s/gpi/{trigger_input}/!data": self._on_trigger,
            STATISTICS[self.model]: self._on_statistics,
        }
        if statistics_hz is None:
            self._callbacks["s/p/!data"] = self._on_power

    def open(self) -> None:
        """Open the instrument with defaults and publish every control: the target has power from then on.

        Raises:
            UserError: it cannot be opened.
        """
        with self._refusals():
            self._driver.open(self._path, "defaults")
            for topic, value in controls(self.model, self.statistics_hz).items():
                self._driver.publish(f"{self._path}/{topic}", value)
        self.supply_target(True)

    def supply_target(self, on: bool) -> None:
        """Give the target its power or take it away.

        Raises:
            UserError: the instrument does not do it.
        """
        with self._refusals():
            self._driver.publish(f"{self._path}/{SUPPLY[self.model]}", "auto" if on else "off")

    def start(self, file: Path | None = None) -> None:
        """Record, to ``file`` too.

        Raises:
            UserError: the instrument does not do it.
        """
        with self._refusals():
            for topic, callback in self._callbacks.items():
                self._driver.subscribe(f"{self._path}/{topic}", "pub", callback)
            for topic in ANALOG:
                self._driver.publish(f"{self._path}/{topic}", int(self.statistics_hz is None))
            self._driver.publish(f"{self._path}/s/gpi/{self._trigger_input}/ctrl", 1)
            if file is not None:
                from pyjoulescope_driver.record import Record  # noqa: PLC0415 - an optional package

                signals = [*_RECORDED, f"gpi[{self._trigger_input}]"]
                self._record = Record(self._driver, self._path, signals=signals, auto=["signal_enable"])
                notes = [[0, SIMULATED_NOTE]] if self.label == "simulated" else None
                self._record.open(str(file), user_data=notes)
                self._file = file
        self.wait(SETTLING_S)

    def stop(self) -> None:
        """End the recording; its file is complete then. The target keeps its power."""
        with contextlib.suppress(RuntimeError, TimeoutError):
            for topic, callback in self._callbacks.items():
                self._driver.unsubscribe(f"{self._path}/{topic}", callback)
        if self._record is not None:
            self._record.close()
            self._record = None
        if self._annotations is not None and self._power.moment is not None:
            self._annotations.close(self._power.moment)
            self._annotations = None

    def close(self) -> None:
        """Close the instrument."""
        with contextlib.suppress(RuntimeError, TimeoutError):
            self._driver.close(self._path)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, TimeoutError) as error:
            raise UserError(
                f"the Joulescope {self._path} does not answer ({error})",
                hint="close the Joulescope UI, replug the instrument, and see `profile doctor`",
            ) from None

    def wait(self, seconds: float) -> None:
        """Let time pass; the device does nothing meanwhile."""
        time.sleep(seconds)

    @property
    def accumulator_slack_s(self) -> float:
        """How exactly readings of the accumulator are placed among the samples: a JS110's have a count of their own."""
        return _HOST_CLOCK_S if self.model == "js110" else 0.0

    def idle(self, seconds: float) -> float:
        """Let the device do nothing for so long, and on until the accumulator was read meanwhile, where that is rare.

        Returns:
            Where a recording must begin so that it holds that reading, on the samples' clock; infinity: anywhere.
        """
        self.wait(LATE_S)
        began_s = self.now_s
        self.wait(max(seconds - LATE_S, 0.0))
        slack_s = self.accumulator_slack_s
        for _ in range(round(_READING_S / _POLL_S) if slack_s else 0):
            inside = [at_s for at_s, _ in self.accumulated() if began_s + slack_s < at_s < self.now_s - slack_s]
            if inside:
                return inside[-1] - slack_s
            self.wait(_POLL_S)
        return math.inf

    @property
    def now_s(self) -> float:
        """Up to where, on the instrument's clock, all samples have arrived."""
        with self._lock:
            return min(self._power.until_s, self._trigger.until_s)

    def recording(self, since_s: float) -> MemoryRecording:
        """What was recorded from ``since_s`` on until now.

        Raises:
            UserError: no samples arrive.
        """
        reached_s, deadline_s = self.now_s, time.monotonic() + _ARRIVAL_S
        while not reached_s > since_s:
            if time.monotonic() > deadline_s:
                raise self._silence()
            time.sleep(0.01)
            reached_s = self.now_s
        with self._lock:
            power, watts = self._power.since(since_s, np.float32(np.nan))
            trigger, bits = self._trigger.since(since_s, np.uint8(0))
            gaps_s = self._trigger.gaps_s(since_s)
        return MemoryRecording(self.label, power, trigger, watts, bits, gaps_s)

    def _silence(self) -> UserError:
        other_hz = self._power.other_hz if isinstance(self._power, Means) else None
        if other_hz is not None:
            return UserError(
                f"{self._path} tells its statistics {other_hz:g} times a second, not {self.statistics_hz} times",
                hint="take another --energy-rate, or leave it away",
            )
        return UserError(
            f"no samples arrive from {self._path}", hint="replug the instrument and start again with --resume"
        )

    def annotate(self, time_s: float, text: str) -> None:
        """Put a text beside the recording, in the order of time; nothing happens where no file is written."""
        with self._lock:
            moment, rates_hz = self._power.moment, (self._power.rate_hz, self._trigger.rate_hz)
        if self._file is None or moment is None:
            return
        if self._annotations is None:
            signals = [Signal(name, units, rates_hz[0]) for name, units in _RECORDED.items()]
            signals.append(Signal(f"gpi[{self._trigger_input}]", "", rates_hz[1], digital=True))
            self._annotations = Annotations(self._file, (self.model, self.serial_number), signals, moment)
        self._annotations.add(time_s, text)

    def accumulated(self) -> list[tuple[float, float]]:
        """Readings of the instrument's own accumulator: (time on the samples' clock, energy in J so far)."""
        with self._lock:
            return list(self._accumulated)

    # ------------------------------------------------------------ called by the driver

    def _on_power(self, topic: str, value: dict[str, Any]) -> None:
        with self._lock:
            self._power.add(value)

    def _on_trigger(self, topic: str, value: dict[str, Any]) -> None:
        with self._lock:
            self._trigger.add(value)

    def _on_statistics(self, topic: str, value: dict[str, Any]) -> None:
        time_s = value["time"]["samples"]["value"][1] / value["time"]["sample_freq"]["value"]
        with self._lock:
            if self.model == "js110":
                # Its samples are counted by the driver, its statistics by itself: only UTC joins the two.
                if self._power.moment is None:
                    return
                later = value["time"]["utc"]["value"][1] - self._power.moment.utc
                time_s = self._power.moment.time_s + later / UTC_SECOND
            self._accumulated.append((time_s, value["accumulators"]["energy"]["value"]))
            if isinstance(self._power, Means):
                self._power.add(value)


@contextlib.contextmanager
def open_joulescope(
    serial: str | None = None, *, trigger_input: int = 0, statistics_hz: int | None = None
) -> Iterator[Joulescope]:
    """The Joulescope that is plugged in, open and not yet recording, for a ``with`` statement.

    Args:
        serial: Its serial number, or the end of it, where there are several.
        trigger_input: Number of the input that the trigger pin is on.
        statistics_hz: As of :class:`Joulescope`.

    Raises:
        UserError: the vendor's driver is missing, none or several are there, or it cannot be opened.
    """
    try:
        from pyjoulescope_driver import Driver  # noqa: PLC0415 - an optional package
    except ImportError:
        raise UserError(
            "measuring energy needs the vendor's driver", hint="pip install 'tinytrain-hil[joulescope]'"
        ) from None
    with Driver() as driver:
        path = choose(driver.device_paths(), serial)
        joulescope = Joulescope(driver, path, trigger_input=trigger_input, statistics_hz=statistics_hz)
        try:
            joulescope.open()
            yield joulescope
        finally:
            joulescope.close()


class EmulatedJoulescope(Joulescope):
    """An instrument that records what a model makes of a device's real trigger edges.

    Args:
        driver: The emulated driver.
        activity: Gives, at each call, what the device did since the last one.
        idle_power_w: Of the target while it does nothing.
        statistics_hz: As of :class:`Joulescope`.
    """

    def __init__(
        self,
        driver: EmulatedDriver,
        activity: Callable[[], Sequence[Segment]],
        *,
        idle_power_w: float,
        statistics_hz: int | None = None,
    ) -> None:
        super().__init__(driver, driver.device_paths()[0], statistics_hz=statistics_hz)
        self._activity = activity
        self._idle_power_w = idle_power_w
        #: Energy that flowed while the trigger was high, a value a window, in uJ: the truth that a test compares with.
        self.truths_uj: list[float] = []

    def wait(self, seconds: float) -> None:
        """Replay what the device did, then let it do nothing for so long, in the emulated instrument's time."""
        segments = list(self._activity())
        flowed_j = self._driver.advance([*segments, Segment(seconds, self._idle_power_w, trigger=False)])
        self.truths_uj += [1e6 * j for segment, j in zip(segments, flowed_j, strict=False) if segment.trigger]


@contextlib.contextmanager
def open_emulated(
    driver: EmulatedDriver,
    activity: Callable[[], Sequence[Segment]],
    *,
    idle_power_w: float,
    file: Path | None = None,
    statistics_hz: int | None = None,
) -> Iterator[EmulatedJoulescope]:
    """An emulated Joulescope, recording, for a ``with`` statement."""
    joulescope = EmulatedJoulescope(driver, activity, idle_power_w=idle_power_w, statistics_hz=statistics_hz)
    try:
        joulescope.open()
        joulescope.start(file)
        yield joulescope
    finally:
        joulescope.stop()
        joulescope.close()


def choose(paths: list[str], serial: str | None) -> str:
    """The one device path of a Joulescope, or the one with this serial number.

    Raises:
        UserError: there is none, or several.
    """
    known = [path for path in paths if path.split("/")[1] in MODELS]
    named = [path for path in known if serial is None or path.rpartition("/")[2].endswith(serial)]
    there = ", ".join(path.partition("/")[2] for path in known) or "none"
    if not named:
        wanted = f" with the serial number {serial}" if serial else ""
        raise UserError(
            f"no Joulescope{wanted} was found (there: {there})",
            hint="plug it in and see `profile doctor`; --energy emulated runs without one, labelled simulated",
        )
    if len(named) > 1:
        raise UserError(f"there are several Joulescopes: {there}", hint="name one: --energy joulescope:SERIAL")
    return named[0]
