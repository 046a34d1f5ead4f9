"""Recordings at an instrument's full rate: power and the trigger line, read piece by piece.

Two signals of one recording need not have the same rate, nor begin with the same sample: what they share is the
instrument's clock. A place in either is therefore always turned into seconds since the clock's sample 0, as
``(sample_id_offset + index) / rate_hz``, and never used as an index into the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from profiler.errors import UserError

#: Power samples read at once: 16 MiB as float32, and four times that while they are summed.
PIECE_SAMPLES = 1 << 22
#: Trigger samples read at once; a multiple of 8, as a byte holds so many.
_TRIGGER_PIECE_SAMPLES = 1 << 26
#: Where a JLS file's header has the file's length.
_LENGTH_AT = 16
#: Rates that instruments of this kind have; the wrong file shows by its rate.
_RATE_MIN_HZ, _RATE_MAX_HZ = 100, 20_000_000


@dataclass(frozen=True)
class Timebase:
    """Where a signal's samples lie in time.

    Attributes:
        rate_hz: Samples a second.
        offset: The instrument's number of the signal's first sample, in samples of this signal; a fraction where
            samples do not begin at multiples of their length.
        length: How many samples there are.
    """

    rate_hz: int
    offset: float
    length: int

    def index(self, time_s: np.ndarray | float) -> np.ndarray | float:
        """Place of a moment among the samples, a fraction where it lies within one."""
        return time_s * self.rate_hz - self.offset

    def time_s(self, index: np.ndarray | float) -> np.ndarray | float:
        """When a sample begins."""
        return (index + self.offset) / self.rate_hz

    @property
    def start_s(self) -> float:
        return self.offset / self.rate_hz

    @property
    def stop_s(self) -> float:
        return (self.offset + self.length) / self.rate_hz


class Recording(Protocol):
    """Power and trigger, in memory or in a file.

    Attributes:
        label: What measured: ``joulescope-js220``, ``simulated``, ``replay``.
        power: Timebase of the power samples.
        trigger: Timebase of the trigger samples.
        trigger_gaps_s: Where trigger samples were lost, float64 [gaps, 2]. The level reads low there, and a JLS file
            does not tell: empty for those.
    """

    label: str
    power: Timebase
    trigger: Timebase
    trigger_gaps_s: np.ndarray

    def power_pieces(self) -> Iterator[np.ndarray]:
        """All power samples in W, float32, NaN where the instrument lost them, in pieces."""
        ...

    def trigger_pieces(self) -> Iterator[np.ndarray]:
        """All trigger samples, 8 to a byte (uint8), the first in the least significant bit, in pieces."""
        ...


@dataclass(frozen=True, eq=False)
class MemoryRecording:
    """A recording in memory: ``power_w`` float32 [samples], ``trigger_bits`` uint8 [samples / 8]."""

    label: str
    power: Timebase
    trigger: Timebase
    power_w: np.ndarray
    trigger_bits: np.ndarray
    trigger_gaps_s: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))

    def power_pieces(self) -> Iterator[np.ndarray]:
        for first in range(0, self.power.length, PIECE_SAMPLES):
            yield self.power_w[first : min(first + PIECE_SAMPLES, self.power.length)]

    def trigger_pieces(self) -> Iterator[np.ndarray]:
        yield self.trigger_bits


class JlsRecording:
    """A JLS file of a Joulescope. Use :func:`open_jls`.

    Args:
        reader: The vendor's, open.
        path: For messages.
        trigger_name: The signal with the trigger line.
        is_whole: Whether the file was closed.

    Raises:
        UserError: a signal is missing, empty or of an impossible rate; reading pieces: the file is damaged.
    """

    def __init__(self, reader: Any, path: Path, trigger_name: str, *, is_whole: bool) -> None:
        self._reader = reader
        self.is_whole = is_whole
        self._path = path
        signals = {signal.name: signal for signal in reader.signals.values() if signal.length}
        self._trigger_signal = self._signal(signals, trigger_name)
        self.trigger = _timebase(path, self._trigger_signal)
        self.trigger_gaps_s = np.empty((0, 2))
        if "power" in signals:
            self._power_signals = (signals["power"],)
        else:
            self._power_signals = (self._signal(signals, "current"), self._signal(signals, "voltage"))
        bases = [_timebase(path, signal) for signal in self._power_signals]
        if len({(base.rate_hz, base.offset) for base in bases}) > 1:
            raise UserError(
                f"{path}: current and voltage do not begin with the same sample or differ in rate",
                hint="record power too",
            )
        self.power = Timebase(bases[0].rate_hz, bases[0].offset, min(base.length for base in bases))
        models = {source.model for source in reader.sources.values() if source.vendor == "Jetperch"}
        notes = _notes(reader)
        self.label = "simulated" if "simulated" in notes else f"joulescope-{'-'.join(sorted(models)).lower()}"
        if not models:
            raise UserError(
                f"{path} was not recorded by a Joulescope ({', '.join(s.name for s in reader.sources.values())})",
                hint="give a JLS file of a JS110, JS220 or JS320",
            )

    def _signal(self, signals: dict[str, Any], name: str) -> Any:
        if name not in signals:
            raise UserError(
                f"{self._path} holds no signal {name!r}, only {', '.join(sorted(signals)) or 'empty ones'}",
                hint="record current, voltage, power and the trigger's input (--trigger-input)",
            )
        return signals[name]

    def power_pieces(self) -> Iterator[np.ndarray]:
        for first in range(0, self.power.length, PIECE_SAMPLES):
            count = min(PIECE_SAMPLES, self.power.length - first)
            factors = [self._samples(signal, first, count) for signal in self._power_signals]
            yield factors[0] if len(factors) == 1 else factors[0] * factors[1]

    def trigger_pieces(self) -> Iterator[np.ndarray]:
        for first in range(0, self.trigger.length, _TRIGGER_PIECE_SAMPLES):
            count = min(_TRIGGER_PIECE_SAMPLES, self.trigger.length - first)
            yield self._samples(self._trigger_signal, first, count)

    def _samples(self, signal: Any, first: int, count: int) -> np.ndarray:
        """Samples of a signal, as the file holds them.

        Raises:
            UserError: they do not fit their checksum.
        """
        try:
            with _quiet():
                return self._reader.fsr(signal.signal_id, first, count)
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(
                f"{self._path} is damaged within {signal.name} ({error})", hint="copy it again, or record again"
            ) from None


def _timebase(path: Path, signal: Any) -> Timebase:
    if not _RATE_MIN_HZ <= signal.sample_rate <= _RATE_MAX_HZ:
        raise UserError(
            f"{path}: {signal.name} has a sample rate of {signal.sample_rate} Hz",
            hint="give the recording as the instrument wrote it",
        )
    return Timebase(signal.sample_rate, signal.sample_id_offset, signal.length)


def _notes(reader: Any) -> str:
    """The user's data of the file, for people: says where an emulated instrument wrote it."""
    notes: list[str] = []

    def take(meta: int, data: Any) -> bool:
        if isinstance(data, str):
            notes.append(data)
        return False

    reader.user_data(take)
    return " ".join(notes)


@contextlib.contextmanager
def open_jls(path: Path, *, trigger_name: str = "gpi[0]") -> Iterator[JlsRecording]:
    """The recording in a JLS file, for a ``with`` statement.

    The vendor's reader repairs a truncated file where it lies; it therefore gets a copy of one, and the original is
    never changed.

    Raises:
        UserError: the vendor's package is missing, or the file is no JLS file or lacks a signal.
    """
    try:
        import pyjls  # noqa: PLC0415 - an optional package
    except ImportError:
        raise UserError(
            "reading JLS files needs the vendor's package pyjls", hint="pip install 'tinytrain-hil[joulescope]'"
        ) from None
    path = Path(path)
    try:
        with path.open("rb") as stream:
            begins = stream.read(8)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", hint="check its name and permissions") from None
    if not begins:
        raise UserError(f"{path} is empty", hint="give the whole recording")
    if not begins.startswith(b"jlsfmt"):
        raise UserError(f"{path} is no JLS file", hint="give a recording of the Joulescope (version 2 of the format)")
    with tempfile.TemporaryDirectory(prefix="jls-") as folder:
        copy = Path(folder) / path.name
        _link_or_copy(path, copy)
        try:
            with _quiet():
                reader = pyjls.Reader(str(copy))
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error})", hint="the file is damaged beyond repair: record again"
            ) from None
        try:
            yield JlsRecording(reader, path, trigger_name, is_whole=_is_closed(path))
        finally:
            reader.close()


def _link_or_copy(path: Path, copy: Path) -> None:
    """A finished file is read where it lies, through a link; one that was never closed is copied."""
    if _is_closed(path):
        copy.symlink_to(path.resolve())
        return
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        raise UserError(
            f"{path} was never closed, and there is no room in {copy.parent.parent} for the copy to be repaired "
            f"({error.strerror})",
            hint="set TMPDIR to a folder with room",
        ) from None


def _is_closed(path: Path) -> bool:
    """Whether the length that the file's header states is the file's: it is written last."""
    with path.open("rb") as stream:
        header = stream.read(_LENGTH_AT + 8)
    return int.from_bytes(header[_LENGTH_AT:], "little") == path.stat().st_size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Whatever the vendor's library writes to stderr while it repairs a file is no message of ours."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
