"""Trials of the rows of somebody else's table: which repetitions stand together, and how their times are written."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.errors import UserError
from profiler.measure.schedule import EMPTY, Caches
from profiler.ops import Op
from profiler.store_import_files import BadRowError, Row, Table, bad_cell
from profiler.store_import_ops import op_of, whole

#: Ticks a second where the table has times, or means of ticks: picoseconds.
PICOSECONDS_HZ = 10**12
#: The largest number that a run holds.
MOST_TICKS = 2**63 - 1
#: Columns of a time, and of an energy, and what their unit is.
LATENCIES_US = {"latency_us": 1.0, "latency_ms": 1e3, "latency_s": 1e6, "latency_ns": 1e-3}
ENERGIES_UJ = {"energy_uj": 1.0, "energy_mj": 1e3}
PEAKS = ("arena_peak_bytes", "scratch_peak_bytes", "stack_peak_bytes", "memory_peak_bytes")

_TYPES = ("op", "reference", "empty")
_YES = ("true", "1", "yes")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Repetition:
    """One row.

    Attributes:
        time: In the clock's unit.
        warm_up: Whether it is one, which does not count.
        energy_uj: None: not measured.
        peaks: Bytes, as :data:`PEAKS`; None: not measured.
        cells: The row's text by column.
    """

    time: float
    warm_up: bool
    energy_uj: float | None
    peaks: tuple[int | None, ...]
    cells: Mapping[str, str]


@dataclass
class TrialRows:
    """The repetitions of an op that stand together: of one round and trial, where the table says so."""

    type: str
    op: Op
    caches: str
    rows: list[Repetition] = field(default_factory=list)


@dataclass
class RowsRead:
    """What the rows of a table are.

    Attributes:
        trials: In the order of their first rows.
        overhead_ticks: What the table says that timing nothing takes, by caches.
        left_out: Why rows that are no op's were left out, and how many.
        bad: (line, what is wrong) of each row that is no measurement of an op.
    """

    trials: list[TrialRows] = field(default_factory=list)
    overhead_ticks: dict[str, float] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Clock:
    """What a table's times are.

    Attributes:
        column: ``ticks``, or one of :data:`LATENCIES_US`.
        unit_us: Microseconds that one of its units is.
        hz: Ticks a second, for ``ticks``.
    """

    column: str
    unit_us: float
    hz: int | None = None

    @classmethod
    def of(cls, path: Path, table: Table, timer_hz: int | None) -> Clock:
        """Ticks where the table has them and their rate is known, else its latencies.

        Raises:
            UserError: it has neither, or says two things at once.
        """
        latencies = [name for name in LATENCIES_US if name in table.columns]
        if "ticks" in table.columns:
            stated = table.only("timer_hz")
            try:
                hz = whole("timer_hz", stated, 1) if stated else timer_hz
            except BadRowError as error:
                raise UserError(f"{path}: {error}", hint="give ticks a second") from None
            if timer_hz is not None and hz != timer_hz:
                hint = "leave --timer-hz away"
                raise UserError(f"--timer-hz is {timer_hz:,}, and {path} says {hz:,}", hint=hint, exit_status=2)
            if hz:
                return cls("ticks", 1e6 / hz, hz)
            if not latencies:
                raise UserError(
                    f"{path} has ticks and does not say how many a second are", hint="give --timer-hz TICKS_A_SECOND"
                )
        if len(latencies) > 1:
            hint = f"--rename {latencies[1]}=OTHER_NAME keeps the first for the latency"
            raise UserError(f"{path} has both {latencies[0]} and {latencies[1]}", hint=hint)
        if not latencies:
            raise UserError(
                f"{path} has no column latency_us, latency_ms or ticks",
                hint=f"name it: --rename THEIRS=latency_us (there are {', '.join(table.columns)})",
            )
        return cls(latencies[0], LATENCIES_US[latencies[0]])

    def timer_hz(self, trials: Sequence[TrialRows]) -> int:
        """Ticks a second as they are written down: the table's own where all of them are whole, else picoseconds."""
        if self.hz and all(row.time == int(row.time) for trial in trials for row in trial.rows):
            return self.hz
        return PICOSECONDS_HZ

    def ticks(self, time: float, timer_hz: int) -> int:
        """A time in ticks of ``timer_hz``."""
        return int(time) if timer_hz == self.hz else round(time * self.unit_us * timer_hz / 1e6)


#: Lets items by, and shows how many of how many have passed.
Watched = Callable[[Iterable[Any], float, str], Iterable[Any]]


def unwatched(items: Iterable[Any], total: float, description: str) -> Iterable[Any]:
    """Lets items by and shows nothing."""
    return items


def read_rows(table: Table, clock: Clock, watched: Watched = unwatched) -> RowsRead:
    """Trials of a table's rows; what is no op is counted, what cannot be one is told."""
    read = RowsRead()
    trials: dict[tuple, TrialRows] = {}
    for row in watched(table.rows, len(table.rows), "reading rows"):
        try:
            reason = _not_wanted(row, clock)
            if reason:
                read.left_out[reason] += 1
                continue
            op = op_of(row.cells)
            type_ = _type(row.cells)
            caches = _one_of("caches", row.cells.get("caches") or str(Caches.WARM), list(Caches))
            overhead = read.overhead_ticks.setdefault(caches, _overhead(row.cells))
            repetition = _repetition(row.cells, clock, overhead)
        except BadRowError as error:
            read.bad.append((row.line, str(error)))
            continue
        key = (type_, op, caches, row.cells.get("round"), row.cells.get("trial"))
        trials.setdefault(key, TrialRows(type_, op, caches)).rows.append(repetition)
    read.trials = list(trials.values())
    if clock.hz and all(trial.type != "empty" for trial in read.trials):
        read.trials = [*_overhead_trials(read.overhead_ticks), *read.trials]
    return read


def _not_wanted(row: Row, clock: Clock) -> str:
    """Why a row is left out although nothing is wrong with it."""
    if row.fault:
        raise BadRowError(row.fault)
    cells = row.cells
    if cells.get("type") == "step":
        return "ops inside a training step"
    status = cells.get("status") or "ok"
    if status not in ("ok", "accepted"):
        return f"status {status}"
    if clock.hz is None and _type(cells) == "empty":
        return "the empty op, which latencies have left out already"
    return ""


def _type(cells: Mapping[str, str]) -> str:
    type_ = "empty" if cells.get("kind") == EMPTY.kind else cells.get("type") or "op"
    return _one_of("type", type_, _TYPES)


def _one_of(column: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise bad_cell(column, text, f"there are {', '.join(known)}")
    return text


def _repetition(cells: Mapping[str, str], clock: Clock, overhead_ticks: float) -> Repetition:
    time = _figure(clock.column, cells.get(clock.column, ""))
    if clock.hz is None and time == 0:
        raise bad_cell(clock.column, cells[clock.column], "nothing takes no time")
    if max(time, time * clock.unit_us * PICOSECONDS_HZ / 1e6) > MOST_TICKS:
        raise bad_cell(clock.column, cells[clock.column], "no op takes months")
    if clock.hz is not None:
        if _overhead(cells) != overhead_ticks:
            raise bad_cell("overhead_ticks", cells["overhead_ticks"], f"it is {overhead_ticks:g} in rows before")
        _check_latencies(cells, max(time - overhead_ticks, 0.0) * clock.unit_us, clock.unit_us)
    energies = [_figure(name, cells[name]) * uj for name, uj in ENERGIES_UJ.items() if cells.get(name, "")]
    if len(energies) > 1:
        raise BadRowError("it has both energy_uj and energy_mj")
    peaks = tuple(whole(name, cells[name]) if cells.get(name, "") else None for name in PEAKS)
    warm_up = cells.get("warm_up", "").lower() in _YES
    return Repetition(time, warm_up, energies[0] if energies else None, peaks, cells)


def _check_latencies(cells: Mapping[str, str], latency_us: float, tick_us: float) -> None:
    """Raise BadRowError where a row's latency is not what its ticks say."""
    for name, us in LATENCIES_US.items():
        stated = cells.get(name, "")
        if stated and abs(_figure(name, stated) * us - latency_us) > 1e-6 * latency_us + tick_us:
            raise bad_cell(name, stated, f"{latency_us / us:g} follows from ticks")


def _overhead(cells: Mapping[str, str]) -> float:
    text = cells.get("overhead_ticks", "")
    return _figure("overhead_ticks", text) if text else 0.0


def _figure(column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise bad_cell(column, text, "missing" if text == "" else "it is no number")
    if value < 0:
        raise bad_cell(column, text, "it is less than 0")
    return value


def _overhead_trials(overhead_ticks: Mapping[str, float]) -> Iterator[TrialRows]:
    """What timing nothing takes by the table's column, as a trial of the empty op."""
    for caches, ticks in overhead_ticks.items():
        if ticks:
            # A median of whole ticks is whole or half: two readings around it have it for theirs.
            around = (math.floor(ticks), math.ceil(ticks))
            yield TrialRows("empty", EMPTY, caches, [Repetition(t, False, None, (None,) * 4, {}) for t in around])


def records(
    trials: Sequence[TrialRows], clock: Clock, timer_hz: int, build_hash: str, extra: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Trials as a run holds them, warm-ups first.

    Args:
        trials: Of :func:`read_rows`.
        clock: Theirs.
        timer_hz: Ticks a second to write them in.
        build_hash: The run's.
        extra: Columns to keep: the name they get to the one they have in the table.
    """
    typed = {
        name: iter(_typed([row.cells.get(theirs, "") for trial in trials for row in trial.rows]))
        for name, theirs in extra.items()
    }
    rounds: Counter[tuple] = Counter()
    for trial in trials:
        columns = {name: [next(values) for _ in trial.rows] for name, values in typed.items()}
        order = sorted(range(len(trial.rows)), key=lambda i, rows=trial.rows: not rows[i].warm_up)
        rows = [trial.rows[i] for i in order]
        place = (trial.type, trial.op, trial.caches)
        cold = "|cold" if trial.caches == Caches.COLD else ""
        record = {
            "type": trial.type,
            "slot": f"{trial.type}|{trial.op.key}|{rounds[place]}{cold}",
            "op_key": trial.op.key,
            "op": trial.op.to_dict(),
            "macs": trial.op.macs,
            "round": rounds[place],
            "build_hash": build_hash,
            "region": "",
            "caches": trial.caches,
            "status": "ok",
            "ticks": [clock.ticks(row.time, timer_hz) for row in rows],
            "warm_ups": sum(row.warm_up for row in rows),
            "rejected": [],
            "relative_error": None,
        } | _peaks(rows)
        rounds[place] += 1
        if any(row.energy_uj is not None for row in rows):
            record["energy_uj"] = [row.energy_uj for row in rows]
        kept = {name: [values[i] for i in order] for name, values in columns.items()}
        kept = {name: values for name, values in kept.items() if any(v is not None for v in values)}
        yield record | ({"extra": kept} if kept else {})


def _peaks(rows: Sequence[Repetition]) -> dict[str, int | None]:
    found = (max((peak for peak in column if peak is not None), default=None) for column in _columns(rows))
    peaks = dict(zip(PEAKS, found, strict=True))
    arena, stack = peaks["arena_peak_bytes"], peaks["stack_peak_bytes"]
    if peaks["memory_peak_bytes"] is None and arena is not None and stack is not None:
        peaks["memory_peak_bytes"] = arena + stack
    return peaks


def _columns(rows: Sequence[Repetition]) -> Iterator[tuple[int | None, ...]]:
    return zip(*(row.peaks for row in rows), strict=True)


def _typed(values: Sequence[str]) -> list[Any]:
    """Text as numbers where all of it is; None for nothing."""
    filled = [value for value in values if value]
    if not all(len(value) < 25 and _NUMBER.fullmatch(value) and math.isfinite(float(value)) for value in filled):
        return [value or None for value in values]
    whole = all(value.lstrip("-").isdecimal() and abs(int(value)) <= MOST_TICKS for value in filled)
    number = int if whole else float
    return [number(value) if value else None for value in values]
