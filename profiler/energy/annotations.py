"""Names of trials beside a recording: texts in FILE.anno.jls, which the Joulescope UI shows with FILE.jls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: A second as the JLS format writes time.
UTC_SECOND = 1 << 30


@dataclass(frozen=True)
class Signal:
    """A signal of the recording that the texts belong to.

    Attributes:
        name: As in the recording: ``power``, ``gpi[0]``.
        units: ``W``; nothing for a level.
        rate_hz: Samples a second.
        digital: Whether it is a level and no number.
    """

    name: str
    units: str
    rate_hz: int
    digital: bool = False


@dataclass(frozen=True)
class Moment:
    """A moment on both clocks.

    Attributes:
        time_s: On the instrument's.
        utc: As the JLS format writes time: units of 2**-30 s since 2018-01-01.
    """

    time_s: float
    utc: int


class Annotations:
    """Writes texts, in the order of time, to the file beside a recording.

    The UI places them by UTC: the file therefore holds, as the recording does, what UTC was at some samples.

    Args:
        recording: The recording's own file.
        source: Model and serial number of the instrument.
        signals: The recording's; texts go to the one called ``power``.
        start: Any moment of the recording.
    """

    def __init__(self, recording: Path, source: tuple[str, str], signals: list[Signal], start: Moment) -> None:
        import pyjls  # noqa: PLC0415 - an optional package

        model, serial_number = source
        self._text = pyjls.AnnotationType.TEXT
        self._signals = {signal.name: (number, signal) for number, signal in enumerate(signals, 1)}
        self._writer = pyjls.Writer(str(path_beside(recording)))
        self._writer.source_def(
            source_id=1,
            name=f"{model.upper()}-{serial_number}",
            vendor="Jetperch",
            model=model.upper(),
            version="",
            serial_number=serial_number,
        )
        for number, signal in self._signals.values():
            self._writer.signal_def(
                signal_id=number,
                source_id=1,
                signal_type=pyjls.SignalType.FSR,
                data_type=pyjls.DataType.U1 if signal.digital else pyjls.DataType.F32,
                sample_rate=signal.rate_hz,
                name=signal.name,
                units=signal.units,
            )
        self._last_utc = 0
        self._tell_utc(start)

    def add(self, time_s: float, text: str) -> None:
        """Put a text at a moment on the instrument's clock."""
        number, signal = self._signals["power"]
        self._writer.annotation(number, round(time_s * signal.rate_hz), None, self._text, 0, text)

    def close(self, stop: Moment) -> None:
        """Complete the file; ``stop`` is any later moment of the recording."""
        self._tell_utc(stop)
        self._writer.close()

    def _tell_utc(self, moment: Moment) -> None:
        if moment.utc <= self._last_utc:  # the format wants it to rise
            return
        self._last_utc = moment.utc
        for number, signal in self._signals.values():
            self._writer.utc(number, round(moment.time_s * signal.rate_hz), moment.utc)


def path_beside(recording: Path) -> Path:
    """Where the UI looks for the texts of ``recording``."""
    return recording.with_name(f"{recording.stem}.anno{recording.suffix}")
