"""What to measure before anything is known: the ops that tell most of what others cost, by their work counts alone."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from profiler.measure.loops_entered import covering
from profiler.measure.space_filling import spread
from profiler.ops import Op
from profiler.workloads.op_space import Family, weight_of, work_units

#: So many a family on average are those that tell most; with the others every family has at least so many.
TELLING_EACH, LEAST_EACH = 3, 2
#: Larger ops are not among the first: some seconds each on a slow device, and smaller ones tell their loops as well.
MOST_UNITS_FIRST = 500_000
#: What a unit of work is taken to cost beforehand, a call and a byte moved beside one turn of a loop, ...
_CALL_TURNS, _BYTE_TURNS = 50.0, 0.05
#: ... and how little that is known: relative standard deviation of what a unit of each work count costs.
_UNIT_DOUBT = 0.5
#: How much of that families of one kernel share, as those for the two axes that train or the two optimisers.
_SHARED = 0.9
#: Relative deviation of costs from what the work counts tell.
_NOISE = 0.02
#: Families count by their ops' mean work to this power, in between all alike and by what they may take of a step.
_WORK_POWER = 0.75


def first_ops(pools: Mapping[Family, Sequence[Op]]) -> list[Op]:
    """What a design measures first: those that tell most, so that any number of them serves a design that ends early,
    then small ones with which every loop of every kernel is entered (:func:`~profiler.measure.loops_entered.covering`).

    Args:
        pools: Ops of each family that stand for all of it.
    """
    best = telling(pools, TELLING_EACH * len(pools))
    needed = []
    for family, pool in pools.items():
        own = [op for op in best if Family.of(op) == family]
        own += (covered := covering(pool, own))
        rest = [op for op in pool if op not in own]
        needed.append([*covered, *spread(rest, own, max(0, LEAST_EACH - len(own)))])
    return [*best, *in_turn(needed)]


def in_turn(of_families: Sequence[Sequence[Op]]) -> list[Op]:
    """The first of each family, then the second of each, and so on."""
    return [op for turn in itertools.zip_longest(*of_families) for op in turn if op is not None]


def telling(pools: Mapping[Family, Sequence[Op]], count: int) -> list[Op]:
    """The ops that lower the expected error in all of the pools most, one after the other: any first few do.

    An op's cost is taken to be a sum of work counts times unit costs, of which hardly more is known than their order.
    What measuring one op does to the variance of the others' relative costs is then known before anything is measured
    (Cohn, Ghahramani and Jordan, JAIR 4, 1996). Errors count by family: as :func:`weight_of` says, and the more the
    larger its ops are. So the first ones are of the kernels that take most of a step, middle-sized and large, and tell
    their inner loops; small ones follow, and kernels that take little.

    Args:
        pools: Ops of each family that stand for all of it.
        count: How many; fewer where there are no more.
    """
    kernels: dict[tuple[str, ...], list[Family]] = {}
    for family, pool in pools.items():
        if pool:
            kernels.setdefault((family.kind, family.pass_, family.dtype, family.variant), []).append(family)
    doubts = [_Doubt({family: pools[family] for family in families}) for families in kernels.values()]
    chosen: list[Op] = []

    def entry(number: int) -> Iterator[tuple[float, int, int]]:
        best = doubts[number].best()
        if best is not None:
            yield -best[0], number, best[1]

    heap = [item for number in range(len(doubts)) for item in entry(number)]
    heapq.heapify(heap)
    while heap and len(chosen) < count:
        _, number, index = heapq.heappop(heap)
        chosen.append(doubts[number].take(index))
        for item in entry(number):
            heapq.heappush(heap, item)
    return chosen


class _Doubt:
    """What is not known yet of the relative costs of one kernel's ops."""

    def __init__(self, pools: Mapping[Family, Sequence[Op]]) -> None:
        self._ops = [op for pool in pools.values() for op in pool]
        family = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools.values()])
        units = np.array([work_units(op) for op in self._ops], dtype=float)
        means = [units[family == i].mean() for i in range(len(pools))]
        medians = np.array([np.median(units[family == i]) for i in range(len(pools))])
        counts = [weight_of(f) * mean**_WORK_POWER / len(pools[f]) for f, mean in zip(pools, means, strict=True)]
        self._weights = np.array(counts)[family]
        shares = _shares(self._ops)
        together = np.where(family[:, None] == family, 1.0, _SHARED)
        self._covariance = _UNIT_DOUBT**2 * (shares @ shares.T) * together
        self._free = units <= np.maximum(MOST_UNITS_FIRST, medians[family])

    def best(self) -> tuple[float, int] | None:
        """How much the best op lowers the errors, and which it is; None where all are taken."""
        if not self._free.any():
            return None
        variance = np.maximum(np.diag(self._covariance), 0.0)
        before = self._weights @ variance
        drop = (self._weights @ self._covariance**2) / (variance + _NOISE**2)
        gain = np.sqrt(before) - np.sqrt(np.maximum(before - drop, 0.0))
        gain = np.where(self._free, np.sqrt(self._weights.sum()) * gain, -1.0)
        index = int(np.argmax(gain))
        return float(gain[index]), index

    def take(self, index: int) -> Op:
        """Take one of the ops to be measured."""
        column = self._covariance[:, index].copy()
        self._covariance -= np.outer(column, column) / (max(column[index], 0.0) + _NOISE**2)
        self._free[index] = False
        return self._ops[index]


def _shares(ops: Sequence[Op]) -> np.ndarray:
    """What each work count may make up of an op's cost: of shape (n_ops, n_counts), rows of sum 1."""
    from profiler.work_counts import work_counts  # noqa: PLC0415 - builds the kernels' library

    names, counts = work_counts(ops)
    turns = [_CALL_TURNS if name == "calls" else _BYTE_TURNS if name.startswith("bytes_") else 1.0 for name in names]
    costs = counts * np.array(turns)
    return costs / np.maximum(costs.sum(axis=1, keepdims=True), 1e-9)
