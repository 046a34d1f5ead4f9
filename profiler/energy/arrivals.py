"""What arrives from an instrument, kept for a while: samples piece by piece, or mean powers one by one."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from profiler.energy.annotations import Moment
from profiler.energy.recording import Timebase

#: Samples kept in memory: that long a window, with the idle stretches around it, can be measured.
KEPT_S = 60.0


@dataclass
class Stream:
    """The last pieces of one signal.

    Attributes:
        per_item: Samples an array item.
        rate_hz: Samples a second; 0 before the first piece.
        moment: The first sample of the last piece.
    """

    per_item: int
    rate_hz: int = 0
    moment: Moment | None = None
    _pieces: deque[tuple[int, np.ndarray]] = field(default_factory=deque)

    def add(self, value: dict[str, Any]) -> None:
        """Keep a piece as the driver tells it."""
        self.rate_hz = value["sample_rate"] // value["decimate_factor"]
        first = value["sample_id"] // value["decimate_factor"]
        self.moment = Moment(first / self.rate_hz, value["utc"])
        self._pieces.append((first, value["data"]))
        while first - self._pieces[0][0] > KEPT_S * self.rate_hz:
            self._pieces.popleft()

    @property
    def until_s(self) -> float:
        """Up to where samples have arrived."""
        return self._stop(self._pieces[-1]) / self.rate_hz if self._pieces else float("-inf")

    def since(self, start_s: float, lost: Any) -> tuple[Timebase, np.ndarray]:
        """Samples from about ``start_s`` on as one array, with ``lost`` where none arrived."""
        wanted = [piece for piece in self._pieces if self._stop(piece) > start_s * self.rate_hz]
        if not wanted:
            return Timebase(max(self.rate_hz, 1), 0, 0), np.array([], type(lost))
        offset = wanted[0][0]
        length = self._stop(wanted[-1]) - offset
        samples = np.full(length // self.per_item, lost)
        for first, data in wanted:
            place = (first - offset) // self.per_item
            samples[place : place + len(data)] = data
        return Timebase(self.rate_hz, offset, length), samples

    def gaps_s(self, start_s: float) -> np.ndarray:
        """Stretches after ``start_s`` of which nothing arrived, float64 [gaps, 2]."""
        pieces = [piece for piece in self._pieces if self._stop(piece) > start_s * self.rate_hz]
        borders = [(self._stop(earlier), later[0]) for earlier, later in itertools.pairwise(pieces)]
        return np.array([pair for pair in borders if pair[0] != pair[1]], np.float64).reshape(-1, 2) / self.rate_hz

    def _stop(self, piece: tuple[int, np.ndarray]) -> int:
        return piece[0] + len(piece[1]) * self.per_item


@dataclass
class Means:
    """The last mean powers, one an interval, of the statistics that an instrument computes itself.

    Attributes:
        rate_hz: Intervals a second.
        other_hz: What came instead; None: nothing else did.
        moment: The beginning of the last interval.
    """

    rate_hz: int
    other_hz: float | None = None
    moment: Moment | None = None
    _kept: deque[tuple[int, float]] = field(default_factory=deque)  # (first sample_id, W)
    _ids: int = 1  # sample_ids an interval

    def add(self, value: dict[str, Any]) -> None:
        """Keep the statistics of an interval as the driver tells them; others than those asked for are left out."""
        first, stop = value["time"]["samples"]["value"]
        clock_hz = value["time"]["sample_freq"]["value"]
        if (stop - first) * self.rate_hz != clock_hz:
            self.other_hz = clock_hz / max(stop - first, 1)
            return
        self._ids = stop - first
        self.moment = Moment(first / clock_hz, value["time"]["utc"]["value"][0])
        self._kept.append((first, value["signals"]["power"]["avg"]["value"]))
        while len(self._kept) > KEPT_S * self.rate_hz:
            self._kept.popleft()

    @property
    def until_s(self) -> float:
        """Up to where intervals have arrived."""
        return (self._kept[-1][0] / self._ids + 1) / self.rate_hz if self._kept else float("-inf")

    def since(self, start_s: float, lost: np.float32) -> tuple[Timebase, np.ndarray]:
        """Means from about ``start_s`` on as one array, with ``lost`` where none arrived."""
        wanted: list[tuple[int, float]] = []
        for first, power_w in reversed(self._kept):
            if first / self._ids + 1 <= start_s * self.rate_hz:
                break
            wanted.append((first, power_w))
        if not wanted:
            return Timebase(self.rate_hz, 0, 0), np.array([], np.float32)
        offset, last = wanted[-1][0], wanted[0][0]
        samples = np.full((last - offset) // self._ids + 1, lost)
        for first, power_w in wanted:
            samples[(first - offset) // self._ids] = power_w
        return Timebase(self.rate_hz, offset / self._ids, len(samples)), samples
