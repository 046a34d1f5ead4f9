"""The words of a design: its name, goal and outcome, what chooses, how it is judged, and what the manifest keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from profiler.measure.chosen import Known
from profiler.ops import Op
from profiler.workloads.op_space import Family


class DesignName(StrEnum):
    """How ops are chosen."""

    NETWORK = "network"
    SPACE_FILLING = "space-filling"
    ACTIVE = "active"


class Outcome(StrEnum):
    """Why a design ended."""

    TARGET = "target reached"
    TIME = "time spent"
    COUNT = "number of ops reached"
    EXHAUSTED = "every op of the space measured"


@dataclass(frozen=True)
class Goal:
    """When a design ends: whichever comes first.

    Attributes:
        time_s: Time for all of it; infinite for none.
        target_error: Mean relative error on held-out ops, at the upper end of its 90 % interval, that every kind, pass
            and dtype has to reach; None: no model is judged.
        most_ops: Ops chosen, held-out ones not counted; None: as many as there is time for.
    """

    time_s: float = math.inf
    target_error: float | None = None
    most_ops: int | None = None


class Chooser(Protocol):
    """A cost model that says which op it wants to see next. Found by the entry point group ``profiler.choosers``."""

    def observe(self, known: Known) -> None:
        """Take note of everything chosen and measured so far; quick, after every batch."""

    def learn(self) -> None:
        """Fit to everything that was observed; may take its time."""

    def predict(self, ops: Sequence[Op]) -> np.ndarray:
        """Latencies in microseconds."""

    def choose(
        self,
        candidates: Mapping[Family, Sequence[Op]],
        errors: Mapping[Family, Sequence[float]],
        *,
        weights: Mapping[Family, float],
        seconds: Callable[[np.ndarray], np.ndarray],
        budget_s: float,
    ) -> list[Op]:
        """The candidates that lower the error most for their time.

        Args:
            candidates: Of each family, none of them measured.
            errors: Relative errors on the held-out ops of each family, as far as there are any.
            weights: What each family's errors count.
            seconds: What measuring takes, by latency in microseconds.
            budget_s: What all of them together may take.
        """


#: Held-out ops of a kind, pass and dtype from which on they tell how well it is foretold.
LEAST_JUDGED = 5


@dataclass(frozen=True)
class Judgement:
    """How well ops of one kind, pass and dtype are foretold.

    Attributes:
        n: Held-out ops.
        error: Mean absolute relative error.
        upper: Upper end of the 90 % interval of that mean, by its standard error.
    """

    n: int
    error: float
    upper: float

    @classmethod
    def of(cls, errors: Sequence[float]) -> Judgement:
        size = np.abs(errors)
        spread_ = float(size.std(ddof=1)) / math.sqrt(len(size)) if len(size) > 1 else math.inf
        return cls(len(size), float(size.mean()), float(size.mean()) + 1.645 * spread_)


@dataclass
class Record:
    """What the manifest says of a design.

    Attributes:
        name: A :class:`DesignName`.
        outcome: An :class:`Outcome`; None while it goes on.
        spent_s: Time until the batch in flight began, or in all.
        batch_began_at: When that was, ISO 8601.
        reference: The op that shows drift, as a record.
        pending: Ops of the batch in flight, as records; the held-out ones are named again in ``pending_held_out``.
        batches: Of every batch that is done: ``chosen`` and ``held_out`` ops so far, ``spent_s``, and where a model was
            judged ``error`` (mean absolute relative error on held-out ops) and ``worst`` (kind/pass/dtype to the upper
            end of its interval, the worst five).
    """

    name: str
    outcome: str | None = None
    spent_s: float = 0.0
    batch_began_at: str | None = None
    reference: dict[str, Any] | None = None
    pending: list[dict[str, Any]] = field(default_factory=list)
    pending_held_out: list[str] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)


class Drawn:
    """What came of an iterator so far, and more when asked."""

    def __init__(self, ops: Iterator[Op]) -> None:
        self._ops = ops
        self._seen: list[Op] = []

    def without(self, keys: Collection[str], count: int) -> list[Op]:
        """The first so many ops whose keys are not among these; fewer where there are no more."""
        found = []
        for op in itertools.chain(self._seen.copy(), self._more()):
            if op.key not in keys:
                found.append(op)
                if len(found) == count:
                    break
        return found

    def _more(self) -> Iterator[Op]:
        for op in self._ops:
            self._seen.append(op)
            yield op


def group_name(family: Family) -> str:
    """What held-out errors are judged by: kind, pass and dtype."""
    return f"{family.kind}/{family.pass_}/{family.dtype}"


def judgements(errors: Mapping[Family, Sequence[float]]) -> dict[str, Judgement]:
    """By kind, pass and dtype."""
    by_name: dict[str, list[float]] = {}
    for family, values in errors.items():
        by_name.setdefault(group_name(family), []).extend(values)
    return {name: Judgement.of(values) for name, values in by_name.items()}
