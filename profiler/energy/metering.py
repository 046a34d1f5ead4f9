"""Which instrument measures energy, as ``--energy`` names it, and how it is set up around a device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.devices import boards
from profiler.devices.identity import Identity
from profiler.energy.activity import PowerModel, emulated_board, native_agent
from profiler.energy.emulated import MODELS, EmulatedDriver, Segment
from profiler.energy.instruments import Joulescope, open_emulated, open_joulescope
from profiler.energy.meter import EnergyMeter, WindowMaker
from profiler.errors import UserError
from profiler.measure.schedule import is_linux

#: How long a window is at least: on a microcontroller 0.3 s scatter by 0.06 %; a Linux machine does not average down.
WINDOW_S = 0.3
LINUX_WINDOW_S = 1.0
#: Each emulated second takes several of its host's.
EMULATED_WINDOW_S = 0.02
#: Statistics a second that --energy-rate may ask for. Of fewer, one is longer than the settling time around a window.
STATISTICS_MIN_HZ, STATISTICS_MAX_HZ = 200, 1000
#: A window holds at least so many of them: one at each edge belongs to it in part, and its power is known as a whole.
STATISTICS_A_WINDOW = 300
#: Pins that the emulated instrument can see.
_EMULATED_PORTS = "qemu://BOARD and native://"


@dataclass(frozen=True)
class Source:
    """An instrument by name.

    Attributes:
        kind: ``joulescope``, ``emulated``, or ``recording``: an instrument records by itself.
        which: Serial number, or the emulated model; None: the only one, js220.
        trigger_input: Number of the input that the trigger pin is on.
        window_s: How long a window is at least; None: by the device.
        recorded: Whether all samples are kept in a file; None: of a real instrument.
        statistics_hz: Take the instrument's own statistics instead of samples, so many a second; None: samples.
    """

    kind: str
    which: str | None
    trigger_input: int = 0
    window_s: float | None = None
    recorded: bool | None = None
    statistics_hz: int | None = None

    @property
    def keeps_samples(self) -> bool:
        if self.statistics_hz is not None:
            return False
        return self.kind == "joulescope" if self.recorded is None else self.recorded

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        trigger_input: int = 0,
        window_s: float | None = None,
        recorded: bool | None = None,
        statistics_hz: int | None = None,
    ) -> Source:
        """``joulescope``, ``joulescope:SERIAL``, ``emulated``, ``emulated:MODEL`` or ``recording``.

        Raises:
            UserError: anything else.
        """
        kind, _, which = text.partition(":")
        if kind not in ("joulescope", "emulated", "recording"):
            raise UserError(
                f"--energy {text!r} is unknown",
                hint="there are joulescope, joulescope:SERIAL, recording (an instrument records by itself), and "
                "emulated (made up, labelled simulated)",
                exit_status=2,
            )
        if kind == "emulated" and which and which not in MODELS:
            raise UserError(
                f"there is no emulated instrument {which!r}", hint=f"there are {', '.join(MODELS)}", exit_status=2
            )
        if kind == "recording" and which:
            raise UserError(
                f"--energy {text!r} names something that is not there yet: the instrument records by itself",
                hint="give --energy recording, and the file afterwards: profile energy FILE.jls --run RUN --out DIR",
                exit_status=2,
            )
        if kind == "recording" and statistics_hz is not None:
            raise UserError(
                "--energy-rate is for an instrument that this command opens", hint="leave it away", exit_status=2
            )
        if statistics_hz is not None:
            _check_statistics(statistics_hz, window_s, recorded)
        return cls(kind, which or None, trigger_input, window_s, recorded, statistics_hz)

    @contextlib.contextmanager
    def around(self, port: str) -> Iterator[Metering]:
        """What must be there before a device is opened at ``port``: an emulated instrument sees what the emulator or
        the agent tells it.

        Raises:
            UserError: there is no such thing at this port.
        """
        if self.kind == "recording":
            yield Metering(self)
            return
        if self.kind == "joulescope":
            check_wirable(port)
            opened = open_joulescope(self.which, trigger_input=self.trigger_input, statistics_hz=self.statistics_hz)
            with opened as instrument:
                yield Metering(self, instrument=instrument)
            return
        scheme, _, name = port.partition("://")
        name = name.strip("/")
        if scheme == "qemu" and name in boards.EMULATED:
            activity = emulated_board(name, _MODEL)
        elif scheme == "native" and not name:
            activity = native_agent(_MODEL)
        else:
            raise UserError(
                f"the emulated instrument cannot see the trigger pin of {port}",
                hint=f"it is for {_EMULATED_PORTS}; a board wants --energy joulescope",
                exit_status=2,
            )
        with activity as edges:
            yield Metering(self, activity=edges)


def check_wirable(port: str) -> None:
    """UserError where nothing at this port could be wired to an instrument."""
    if port.startswith(("qemu://", "native://")):
        raise UserError(
            f"there is nothing at {port} that a Joulescope could be wired to",
            hint="take the board's port, or --energy emulated",
            exit_status=2,
        )


def _check_statistics(rate_hz: int, window_s: float | None, recorded: bool | None) -> None:
    if not STATISTICS_MIN_HZ <= rate_hz <= STATISTICS_MAX_HZ or 1_000_000 % rate_hz:
        raise UserError(
            f"--energy-rate {rate_hz} is none that an instrument tells exactly",
            hint="give 200, 250, 400, 500, 625, 800 or 1000",
            exit_status=2,
        )
    if window_s is not None and window_s * rate_hz < STATISTICS_A_WINDOW:
        raise UserError(
            f"--energy-window {window_s:g} holds only {window_s * rate_hz:g} statistics of --energy-rate {rate_hz}",
            hint=f"give at least {STATISTICS_A_WINDOW / rate_hz:g} s",
            exit_status=2,
        )
    if recorded:
        raise UserError(
            "--recording and --energy-rate exclude each other: there are no samples to keep",
            hint="leave one of them away",
            exit_status=2,
        )


_MODEL = PowerModel()


@dataclass(frozen=True)
class Metering:
    """An instrument that can record once the device is known.

    Attributes:
        source: What was asked for.
        instrument: A real one: open already, as the device has its power through it.
        activity: What an emulated one sees.
    """

    source: Source
    instrument: Joulescope | None = None
    activity: Callable[[], Sequence[Segment]] | None = None

    @contextlib.contextmanager
    def recording(self, identity: Identity, file: Path | None) -> Iterator[EnergyMeter | WindowMaker]:
        """The meter, recording to ``file`` (JLS).

        Raises:
            UserError: the instrument does not record.
        """
        window_s = self.window_s(identity)
        if self.source.kind == "recording":
            yield WindowMaker(window_s)
            return
        if self.instrument is not None:
            try:
                self.instrument.start(file)
                yield EnergyMeter(self.instrument, window_s)
            finally:
                self.instrument.stop()
            return
        assert self.activity is not None
        driver = EmulatedDriver(self.source.which or "js220")
        with open_emulated(
            driver, self.activity, idle_power_w=_MODEL.idle_w, file=file, statistics_hz=self.source.statistics_hz
        ) as instrument:
            yield EnergyMeter(instrument, window_s)

    def window_s(self, identity: Identity) -> float:
        """How long a window is at least."""
        if self.source.window_s is not None:
            return self.source.window_s
        if identity.counts_instructions:
            window_s = EMULATED_WINDOW_S
        else:
            window_s = LINUX_WINDOW_S if is_linux(identity) and self.activity is None else WINDOW_S
        rate_hz = self.source.statistics_hz
        return window_s if rate_hz is None else max(window_s, STATISTICS_A_WINDOW / rate_hz)


def instrument_record(meter: EnergyMeter | WindowMaker, file: Path | None) -> dict[str, object]:
    """What the manifest says of the instrument."""
    if isinstance(meter, WindowMaker):
        return {"label": meter.label, "window_s": meter.window_s}
    instrument = meter.instrument
    return {
        "label": instrument.label,
        "model": instrument.model,
        "serial_number": instrument.serial_number,
        "window_s": meter.window_s,
        "statistics_hz": instrument.statistics_hz,
        "clock_tolerance": meter.clock_tolerance,
        "recording": file and file.name,
    }
