"""From a recording to windows: where the trigger rose and fell, what is missing, and the energy in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiler.energy.recording import Recording, Timebase
from profiler.errors import UserError

#: A trigger that changes more often than that is no trigger but an open input.
_EDGES_MAX = 2_000_000


@dataclass(frozen=True, eq=False)
class Edges:
    """Where the trigger changed.

    Attributes:
        times_s: float64 [edges], on the instrument's clock: the beginning of the first sample with the new level.
        rises_first: Whether the first of them is a rise.
        resolution_s: An edge lies up to that much before its time.
    """

    times_s: np.ndarray
    rises_first: bool
    resolution_s: float

    def spans_s(self) -> np.ndarray:
        """Whole windows, float64 [windows, 2]: from each rise to the next fall. One that was running when the
        recording began or ended is none."""
        times_s = self.times_s[0 if self.rises_first else 1 :]
        return times_s[: len(times_s) // 2 * 2].reshape(-1, 2)


def find_edges(recording: Recording) -> Edges:
    """All edges of the trigger; what they mean is for others to judge.

    Raises:
        UserError: the trigger never changes, or changes all the time.
    """
    level: int | None = None
    places: list[np.ndarray] = []
    rises_first, first, count = True, 0, 0
    for piece in recording.trigger_pieces():
        if level is None:
            level = int(piece[0]) & 1
            rises_first = not level
        found = _changes(piece, level) + first
        found = found[found < recording.trigger.length]  # the last byte may be a part
        places.append(found)
        count += len(found)
        if count > _EDGES_MAX:
            raise UserError(
                f"the trigger changed more than {_EDGES_MAX:,} times: that is no trigger but an open input",
                hint="connect the board's trigger pin and ground, and name the input with --trigger-input",
            )
        level = int(piece[-1]) >> 7
        first += 8 * len(piece)
    edges = np.concatenate(places) if places else np.array([], np.int64)
    if not len(edges):
        stays = "low: it never rises" if rises_first else "high: it never falls"
        raise UserError(
            f"the trigger stays {stays}",
            hint="check the wire from the board's trigger pin to the instrument's input, the input's supply reference, "
            "and --trigger-input",
        )
    return Edges(recording.trigger.time_s(edges.astype(np.float64)), rises_first, 1 / recording.trigger.rate_hz)


def _changes(packed: np.ndarray, level: int) -> np.ndarray:
    """Places of all samples that differ from the one before, ``level`` before the first; most bytes hold none."""
    before = np.empty_like(packed)
    before[0] = level
    np.right_shift(packed[:-1], 7, out=before[1:])
    changed = packed ^ ((packed << 1) | before)
    bytes_ = np.flatnonzero(changed)
    byte, bit = np.nonzero(np.unpackbits(changed[bytes_], bitorder="little").reshape(-1, 8))
    return bytes_[byte] * 8 + bit


@dataclass(frozen=True, eq=False)
class Sums:
    """What flowed in each of a list of spans, and how sure that is.

    Attributes:
        total_w: float64 [spans]: sum of power over the samples that are there, a part of one counting as that part.
        samples: float64 [spans]: how many there should be; an edge may lie within one.
        missing: int64 [spans]: how many are not.
        square_w2: float64 [spans]: sum of the squares of power.
    """

    total_w: np.ndarray
    samples: np.ndarray
    missing: np.ndarray
    square_w2: np.ndarray

    @property
    def power_w(self) -> np.ndarray:
        """Mean power [spans]; NaN where nothing is there."""
        there = self.samples - self.missing
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(there > 0, self.total_w / there, np.nan)

    @property
    def scatter_w(self) -> np.ndarray:
        """Standard deviation of power from sample to sample [spans]."""
        there = self.samples - self.missing
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = self.square_w2 / there - (self.total_w / there) ** 2
        return np.sqrt(np.maximum(np.where(there > 1, variance, np.nan), 0))


@dataclass(frozen=True, eq=False)
class Gaps:
    """Stretches without samples, float64 [gaps, 2] in seconds, in order."""

    spans_s: np.ndarray

    def near(self, times_s: np.ndarray, margin_s: float) -> np.ndarray:
        """Whether each moment lies within ``margin_s`` of a gap, or in one: bool [times]."""
        if not len(self.spans_s):
            return np.zeros(len(times_s), bool)
        starts, stops = self.spans_s[:, 0] - margin_s, self.spans_s[:, 1] + margin_s
        # Gaps are apart, but with their margins they may overlap: the furthest stop so far counts.
        stops = np.maximum.accumulate(stops)
        place = np.searchsorted(starts, times_s, side="right") - 1
        return (place >= 0) & (times_s <= stops[np.maximum(place, 0)])


def integrate(recording: Recording, spans_s: np.ndarray) -> tuple[Sums, Gaps]:
    """Read all of the power once and sum it over spans, which may overlap and lie in any order.

    A sample that lies partly in a span counts with that part.

    Args:
        recording: What was recorded.
        spans_s: float64 [spans, 2] on the instrument's clock; clipped to what was recorded.

    Returns:
        (sums, all gaps of the power signal).
    """
    base: Timebase = recording.power
    places = np.clip(base.index(spans_s), 0, base.length).ravel()
    order = np.argsort(places, kind="stable")
    ascending = places[order]
    totals = np.zeros((3, len(places)))  # up to each place: power, its square, missing samples
    before = np.zeros(3)
    gap_places: list[np.ndarray] = []
    was_missing = False
    first = done = 0
    for piece in recording.power_pieces():
        until = int(np.searchsorted(ascending, first + len(piece), side="right"))
        inside = ascending[done:until] - first
        upto, whole = _totals_up_to(piece, inside)
        if math.isnan(whole[0]):
            lost = np.isnan(piece)
            changes = np.diff(np.concatenate([[was_missing], lost]).astype(np.int8))
            gap_places.append(np.flatnonzero(changes) + first)
            was_missing = bool(lost[-1])
            upto, whole = _totals_up_to(np.where(lost, np.float32(0), piece), inside)
            counts = np.concatenate([[0], np.cumsum(lost)])
            upto[2], whole[2] = counts[np.minimum(inside.astype(np.int64), len(piece))], counts[-1]
        elif was_missing:
            gap_places.append(np.array([first]))
            was_missing = False
        totals[:, done:until] = before[:, None] + upto
        before += whole
        first += len(piece)
        done = until
    totals[:, done:] = before[:, None]
    per_end = np.empty_like(totals)
    per_end[:, order] = totals
    total_w, square_w2, missing = per_end[:, 1::2] - per_end[:, 0::2]
    sums = Sums(total_w, places[1::2] - places[0::2], missing.astype(np.int64), square_w2)
    return sums, Gaps(_gap_spans_s(base, gap_places, was_missing))


def _totals_up_to(piece: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over a piece, float64: (up to each of ascending ``places`` [3, places], over all of it [3]), a row each of
    power, its square, and zeros. NaN samples make them NaN."""
    whole = np.minimum(places.astype(np.int64), len(piece))
    # Segments between the places; where two are the same reduceat() would give a sample instead of nothing.
    borders = np.unique(np.concatenate([[0], whole[whole < len(piece)]]))
    sums = np.zeros((3, len(borders) + 1))
    np.cumsum(np.add.reduceat(piece, borders, dtype=np.float64), out=sums[0, 1:])
    np.cumsum(np.add.reduceat(piece * piece, borders, dtype=np.float64), out=sums[1, 1:])
    upto = sums[:, np.searchsorted(borders, whole)]
    part = places - whole
    last = piece[np.minimum(whole, len(piece) - 1)].astype(np.float64)
    upto[0] += part * last
    upto[1] += part * last * last
    return upto, sums[:, -1]


def _gap_spans_s(base: Timebase, changes: Sequence[np.ndarray], open_at_end: bool) -> np.ndarray:
    places = np.concatenate(changes) if changes else np.array([], np.int64)
    if open_at_end:
        places = np.concatenate([places, [base.length]])
    return base.time_s(places.astype(np.float64)).reshape(-1, 2)
