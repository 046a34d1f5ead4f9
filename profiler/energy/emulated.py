"""An emulated Joulescope: a class with the vendor driver's interface, and power made up by a model written down here.

Nothing it says is a measurement. Device path, source name, the user's note in every file and the label of every figure
say ``simulated``. What it is for: the whole way from samples to joules (the vendor's own ``Record``, files, edges,
gaps, windows) runs as with an instrument, and the truth is known.

The model: power is piecewise constant as it is told (:meth:`EmulatedDriver.advance`), with a slow sinusoidal drift; the
instrument adds white noise to current and voltage, and, on request, what real ones do: samples lost on the way to the
host, a clock that runs fast or slow, and a current range that changes late, during which readings are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from profiler.energy.controls import STATISTICS, SUPPLY

#: The JS format's time: seconds since 2018-01-01 as a fixed-point number with 30 bits behind the point.
_TIME64_SECOND = 1 << 30
#: Instruments send samples in pieces of about so long.
PIECE_S = 0.02
SUPPLY_V = 3.3
#: Where an instrument whose samples are counted on the host stands in its own count when the recording begins.
_OWN_COUNT = 123_456_789


@dataclass(frozen=True)
class Model:
    """How an instrument samples.

    Attributes:
        name: As in device paths.
        clock_hz: Rate of ``sample_id``.
        analog_decimation: Clock ticks a sample of current, voltage and power.
        digital_decimation: Clock ticks a sample of the general-purpose inputs.
        statistics_s: How often it tells its own statistics, where nobody can ask for another rate.
        counts_arrivals: Whether ``sample_id`` is counted on the host, of what arrived: a loss then is no hole in the
            numbers but makes time shorter, and the instrument's own statistics count by a clock of their own.
    """

    name: str
    clock_hz: int
    analog_decimation: int
    digital_decimation: int
    statistics_s: float | None = None
    counts_arrivals: bool = False


#: Rates, and what a JS110 does otherwise, are those of the vendor's driver (2.2), not of its data sheets.
MODELS = {
    "js110": Model("js110", 2_000_000, 1, 1, statistics_s=0.5, counts_arrivals=True),
    "js220": Model("js220", 2_000_000, 2, 1),
    "js320": Model("js320", 16_000_000, 16, 16),
}


@dataclass(frozen=True)
class Segment:
    """What the target did for a while.

    Attributes:
        duration_s: How long, by the target's clock.
        power_w: Its mean power.
        trigger: Level of the trigger pin.
    """

    duration_s: float
    power_w: float
    trigger: bool


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Times are seconds since the recording began, on the instrument's clock.

    Attributes:
        dropouts: (start, duration) of stretches whose samples are lost.
        trigger_dropouts: The same of the general-purpose inputs alone; a JS110 sends them with its samples, so all.
        glitches: (start, duration, factor) of stretches in which the current range is wrong: readings are off by that.
        skew: How much faster the instrument's clock runs than the target's, relative.
    """

    dropouts: tuple[tuple[float, float], ...] = ()
    trigger_dropouts: tuple[tuple[float, float], ...] = ()
    glitches: tuple[tuple[float, float, float], ...] = ()
    skew: float = 0.0


@dataclass
class _Subscription:
    topic: str
    fn: Callable[[str, Any], None]


@dataclass
class EmulatedDriver:
    """Stands for the vendor's ``Driver``: device_paths, open, close, publish, query, subscribe, unsubscribe.

    Args:
        model: ``js110``, ``js220`` or ``js320``.
        seed: Of the noise.
        noise_w: Standard deviation of power from sample to sample.
        drift: Amplitude of the drift of the target's power, relative.
        drift_period_s: Its period.
        faults: What goes wrong.
        start_s: Where the instrument's clock stands.
        on_supply: Called where the target is given power (true) or loses it.
    """

    model: str = "js220"
    seed: int = 1
    noise_w: float = 2e-4
    drift: float = 0.0
    drift_period_s: float = 60.0
    faults: Faults = field(default_factory=Faults)
    start_s: float = 1.0
    on_supply: Callable[[bool], None] = lambda on: None

    def __post_init__(self) -> None:
        self._model = MODELS[self.model]
        self._random = np.random.default_rng(self.seed)
        self._subscriptions: list[_Subscription] = []
        self._retained: dict[str, Any] = {}
        self._next = {name: self._samples_at(self.start_s, name) for name in ("analog", "digital")}
        self._uncounted = dict.fromkeys(self._next, 0)  # samples that the host does not know of
        self._now_s = self.start_s
        self._pending: list[tuple[float, float, Segment]] = []
        self._energy_j = 0.0
        self._block: tuple[np.ndarray, np.ndarray] = (np.array([]), np.array([]))
        self.supplied = True

    # ------------------------------------------------------------ the vendor's interface

    def device_paths(self, timeout: float | None = None) -> list[str]:
        return [f"u/{self.model}/simulated"]

    def open(self, device_prefix: str, mode: str | None = None, timeout: float | None = None) -> None:
        if device_prefix not in self.device_paths():
            raise RuntimeError(f"open {device_prefix} failed: not found")

    def close(self, device_prefix: str, timeout: float | None = None) -> None:
        """Nothing is held."""

    def publish(self, topic: str, value: Any, timeout: float | None = None) -> None:
        self._retained[topic] = value
        if topic.endswith(SUPPLY[self.model]) and self.supplied != (value != "off"):
            self.supplied = value != "off"
            self.on_supply(self.supplied)

    def query(self, topic: str, timeout: float | None = None) -> Any:
        if topic not in self._retained:
            raise RuntimeError(f"query {topic} failed: not found")
        return self._retained[topic]

    def subscribe(self, topic: str, flags: Any, fn: Callable[[str, Any], None], timeout: float | None = None) -> None:
        self._subscriptions.append(_Subscription(topic, fn))

    def unsubscribe(self, topic: str, fn: Callable[[str, Any], None], timeout: float | None = None) -> None:
        self._subscriptions = [s for s in self._subscriptions if (s.topic, s.fn) != (topic, fn)]

    # ------------------------------------------------------------ the emulated world

    @property
    def now_s(self) -> float:
        """Where the instrument's clock stands."""
        return self._now_s

    def advance(self, segments: Sequence[Segment]) -> list[float]:
        """Let the target do something, one segment after the other, and send the samples of it.

        Returns:
            The energy that flowed in each segment, in J by the target's clock: the truth.
        """
        truths = []
        for wanted in segments:
            segment = wanted if self.supplied else replace(wanted, power_w=0.0, trigger=False)
            duration_s = segment.duration_s * (1 + self.faults.skew)
            truths.append(self._flowed_j(self._now_s, duration_s, segment.power_w) / (1 + self.faults.skew))
            self._pending.append((self._now_s, self._now_s + duration_s, segment))
            self._now_s += duration_s
        self._send()
        return truths

    def _flowed_j(self, start_s: float, duration_s: float, power_w: float) -> float:
        """Integral of power and its drift."""
        pulsation = 2 * math.pi / self.drift_period_s
        swing_s = (math.cos(pulsation * start_s) - math.cos(pulsation * (start_s + duration_s))) / pulsation
        return power_w * (duration_s + self.drift * swing_s)

    def _samples_at(self, time_s: float, kind: str) -> int:
        return math.floor(time_s * self._rate_hz(kind))

    def _rate_hz(self, kind: str) -> int:
        analog = kind == "analog"
        return self._model.clock_hz // (self._model.analog_decimation if analog else self._model.digital_decimation)

    def _send(self) -> None:
        """Send all samples whose time has come, in pieces as an instrument does."""
        per_piece = {kind: round(PIECE_S * self._rate_hz(kind)) // 8 * 8 for kind in self._next}
        while all((self._next[kind] + per_piece[kind]) / self._rate_hz(kind) <= self._now_s for kind in self._next):
            start_s = self._next["analog"] / self._rate_hz("analog")
            lost = self._is_lost(start_s, self.faults.dropouts)
            trigger_lost = lost or self._is_lost(start_s, self.faults.trigger_dropouts)
            self._send_analog(per_piece["analog"], trigger_lost if self._model.counts_arrivals else lost)
            self._send_digital(per_piece["digital"], trigger_lost)
        oldest_s = min(self._next[kind] / self._rate_hz(kind) for kind in self._next)
        self._pending = [item for item in self._pending if item[1] > oldest_s]

    def _is_lost(self, start_s: float, dropouts: Sequence[tuple[float, float]]) -> bool:
        """What is lost on the way is lost in whole pieces: all that overlap a dropout."""
        at_s = start_s - self.start_s
        return any(first - PIECE_S <= at_s < first + length for first, length in dropouts)

    def _levels(self, kind: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(times, mean power over each sample, trigger at its beginning) of the next ``count`` samples."""
        rate_hz = self._rate_hz(kind)
        edges_s = (self._next[kind] + np.arange(count + 1)) / rate_hz
        stops_s = np.array([stop for _, stop, _ in self._pending])
        powers_w = np.array([segment.power_w for *_, segment in self._pending])
        starts_s = np.array([start for start, *_ in self._pending])
        # The integral of a piecewise constant function, sample by sample: a sample that holds an edge is in between.
        energy_j = np.concatenate([[0.0], np.cumsum(powers_w * (stops_s - starts_s))])
        at = np.clip(np.searchsorted(stops_s, edges_s, side="right"), 0, len(stops_s) - 1)
        upto_j = energy_j[at] + powers_w[at] * (np.clip(edges_s, starts_s[0], stops_s[-1]) - starts_s[at])
        trigger = np.array([segment.trigger for *_, segment in self._pending])[at[:-1]]
        return edges_s[:-1], np.diff(upto_j) * rate_hz, trigger

    def _send_analog(self, count: int, lost: bool) -> None:
        times_s, power_w, _ = self._levels("analog", count)
        power_w = power_w * (1 + self.drift * np.sin(2 * math.pi * times_s / self.drift_period_s))
        read_w = power_w + self._random.normal(0, self.noise_w, count)
        for first, length, factor in self.faults.glitches:
            within = (times_s >= self.start_s + first) & (times_s < self.start_s + first + length)
            read_w[within] *= factor
        if not lost:
            voltage_v = np.full(count, SUPPLY_V, np.float32)
            for signal, values in (("i", read_w / SUPPLY_V), ("v", voltage_v), ("p", read_w)):
                self._emit(f"s/{signal}/!data", "analog", values.astype(np.float32))
        self._pass("analog", count, lost)
        self._emit_statistics(power_w, read_w, lost)

    def _send_digital(self, count: int, lost: bool) -> None:
        *_, trigger = self._levels("digital", count)
        if not lost:
            bits = np.packbits(trigger, bitorder="little")
            for line in range(4):
                self._emit(f"s/gpi/{line}/!data", "digital", bits if line == 0 else np.zeros_like(bits))
        self._pass("digital", count, lost)

    def _pass(self, kind: str, count: int, lost: bool) -> None:
        """Go on to the next samples."""
        self._next[kind] += count
        if lost and self._model.counts_arrivals:
            self._uncounted[kind] += count

    def _emit(self, topic: str, kind: str, data: np.ndarray) -> None:
        path = f"{self.device_paths()[0]}/{topic}"
        if not self._retained.get(path.replace("!data", "ctrl")):
            return
        decimation = self._model.analog_decimation if kind == "analog" else self._model.digital_decimation
        value = {
            "sample_id": (self._next[kind] - self._uncounted[kind]) * decimation,
            "utc": round(self._next[kind] / self._rate_hz(kind) * _TIME64_SECOND),
            "field_id": 0,
            "index": 0,
            "sample_rate": self._model.clock_hz,
            "decimate_factor": decimation,
            "time_map": {"offset_time": 0, "offset_counter": 0, "counter_rate": float(self._model.clock_hz)},
            "data": data,
        }
        self._deliver(path, value)

    def _emit_statistics(self, power_w: np.ndarray, read_w: np.ndarray, lost: bool) -> None:
        """Statistics of every interval that these samples complete: means of what was read, and an accumulator in which
        is what was lost on the way to the host too."""
        path = self.device_paths()[0]
        length = round((self._model.statistics_s or PIECE_S) * self._rate_hz("analog"))
        if self._model.statistics_s is None:
            length = self._retained.get(f"{path}/s/stats/scnt", length)
        flowed_w, means_w = (np.concatenate(pair) for pair in zip(self._block, (power_w, read_w), strict=True))
        first = self._next["analog"] - len(means_w)
        for start in range(0, len(means_w) - length + 1, length):
            self._energy_j += float(flowed_w[start : start + length].sum()) / self._rate_hz("analog")
            if not lost:
                mean_w = float(means_w[start : start + length].mean())
                self._deliver(f"{path}/{STATISTICS[self.model]}", self._statistics(first + start, length, mean_w))
        done = len(means_w) // length * length
        self._block = (flowed_w[done:], means_w[done:])

    def _statistics(self, first: int, length: int, power_w: float) -> dict[str, Any]:
        at = [place * self._model.analog_decimation for place in (first, first + length)]
        ids = [place + _OWN_COUNT for place in at] if self._model.counts_arrivals else at
        utc = [round(tick / self._model.clock_hz * _TIME64_SECOND) for tick in at]
        return {
            "time": {
                "samples": {"value": ids, "units": "samples"},
                "utc": {"value": utc, "units": "time64"},
                "sample_freq": {"value": self._model.clock_hz, "units": "Hz"},
            },
            "signals": {"power": {"avg": {"value": power_w, "units": "W"}}},
            "accumulators": {"energy": {"value": self._energy_j, "units": "J"}},
            "source": "sensor",
        }

    def _deliver(self, path: str, value: Any) -> None:
        for subscription in list(self._subscriptions):
            if subscription.topic == path:
                subscription.fn(path, value)
