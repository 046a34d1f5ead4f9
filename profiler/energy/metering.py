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
from profiler.energy.instruments import open_emulated, open_joulescope
from profiler.energy.meter import EnergyMeter, WindowMaker
from profiler.errors import UserError
from profiler.measure.schedule import is_linux

#: How long a window is at least: on a microcontroller 0.3 s scatter by 0.06 %; a Linux machine does not average down.
WINDOW_S = 0.3
LINUX_WINDOW_S = 1.0
#: Each emulated second takes several of its host's.
EMULATED_WINDOW_S = 0.02
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
    """

    kind: str
    which: str | None
    trigger_input: int = 0
    window_s: float | None = None
    recorded: bool | None = None

    @property
    def keeps_samples(self) -> bool:
        return self.kind == "joulescope" if self.recorded is None else self.recorded

    @classmethod
    def parse(
        cls, text: str, *, trigger_input: int = 0, window_s: float | None = None, recorded: bool | None = None
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
        return cls(kind, which or None, trigger_input, window_s, recorded)

    @contextlib.contextmanager
    def around(self, port: str) -> Iterator[Metering]:
        """What must be there before a device is opened at ``port``: an emulated instrument sees what the emulator or
        the agent tells it.

        Raises:
            UserError: there is no such thing at this port.
        """
        if self.kind == "recording":
            yield Metering(self, None)
            return
        if self.kind == "joulescope":
            if port.startswith(("qemu://", "native://")):
                raise UserError(
                    f"there is nothing at {port} that a Joulescope could be wired to",
                    hint="take the board's port, or --energy emulated",
                    exit_status=2,
                )
            yield Metering(self, None)
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
            yield Metering(self, edges)


_MODEL = PowerModel()


@dataclass(frozen=True)
class Metering:
    """An instrument that can be opened once the device is known."""

    source: Source
    activity: Callable[[], Sequence[Segment]] | None

    @contextlib.contextmanager
    def recording(self, identity: Identity, file: Path | None) -> Iterator[EnergyMeter | WindowMaker]:
        """The meter, recording to ``file`` (JLS).

        Raises:
            UserError: there is no instrument, or it cannot be opened.
        """
        if self.source.kind == "recording":
            yield WindowMaker(self.window_s(identity))
            return
        if self.activity is None:
            opened = open_joulescope(self.source.which, file=file, trigger_input=self.source.trigger_input)
        else:
            driver = EmulatedDriver(self.source.which or "js220")
            opened = open_emulated(driver, self.activity, idle_power_w=_MODEL.idle_w, file=file)
        with opened as instrument:
            yield EnergyMeter(instrument, self.window_s(identity))

    def window_s(self, identity: Identity) -> float:
        """How long a window is at least."""
        if self.source.window_s is not None:
            return self.source.window_s
        if identity.counts_instructions:
            return EMULATED_WINDOW_S
        return LINUX_WINDOW_S if is_linux(identity) and self.activity is None else WINDOW_S


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
        "clock_tolerance": meter.clock_tolerance,
        "recording": file and file.name,
    }
