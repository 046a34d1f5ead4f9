"""The exact solver: a mixed-integer program for each frontier.

With the frontier given, costs add up, and what is left is a multiple-choice knapsack: of the frontier one choice, of
each later layer at most one, so that the gains sum to the most. What does not add up comes in as cuts, found as they
are needed: a solution's whole step is asked for, and where it breaks a limit the program learns of it and is solved
again.

* The upper end of an interval, mean + z · √Σ parts², is convex in the choices: its tangent at the solution, which lies
  nowhere above it.
* Memory is a peak. Every plan needs the sums of what its choices take at the moments of a step, or of what they keep
  all the time; beyond it, what the solution's layers keep from the forward pass. That is charged to each plan that
  trains at least as many channels of all of those layers.
* What is left (a rounding, an uncertainty that is other than the sums', int8 layers that share what they save): that
  this very solution is none, and after :data:`_MOST_SINGLE` of these, that all plans lie as far above their sums.

The first and, for memory that grows with what trains, the second cut off no plan that keeps the budget; neither does a
single solution. Where the last was needed, no bound is known.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from tinytrain.selection_costs import Sums
from tinytrain.solvers import Problem, Solution

#: The program's largest coefficients: HiGHS takes rows as kept within 1e-6.
_SCALE = 1e3
#: By how much a solution must be better than the best known one, relative to all gains.
_BETTER = 1e-9
#: Solutions of one frontier that are cut off one by one.
_MOST_SINGLE = 20
#: Most cuts of one frontier; after so many its bound is kept and the search goes on with the next one.
_MOST_CUTS = 200


def solve_exact(problem: Problem, start: Solution, *, time_limit_s: float = 60.0) -> Solution:
    """The plan of the most gain.

    Args:
        problem: What to solve.
        start: A plan that keeps the budget, or none: the result has never less gain.
        time_limit_s: After which the best plan so far is returned, with the bound that is known by then.

    Returns:
        ``bound`` is above ``gain`` only where time or cuts ran out, or where costs do not add up (layers that do not
        feed all later ones).
    """
    deadline = time.monotonic() + time_limit_s
    total = problem.gains.sum()
    if not total > 0:
        return start
    best, bound = start, start.gain
    programs = sorted(
        ((_Program(problem, layer)) for layer in range(len(problem.table.layers))), key=lambda p: -p.relaxed_gain
    )
    for program in programs:
        if program.relaxed_gain <= best.gain * (1 + _BETTER):
            continue
        left = program.improve(best, deadline)
        if left.gain > best.gain:
            best = left
        bound = max(bound, left.bound)
    bound = max(bound, best.gain)
    known = problem.table.chain and all(program.proven for program in programs)
    return Solution(best.picked, best.gain, bound if known else float("inf"))


class _Program:
    """The mixed-integer program of one frontier."""

    def __init__(self, problem: Problem, frontier: int) -> None:
        self.problem, self.frontier = problem, frontier
        table = problem.table
        self.own = problem.of_layer(frontier)
        later = np.flatnonzero(table.layer_of > frontier)
        #: Numbers of the choices that are variables, in order.
        self.variables = np.concatenate([self.own, later])
        self.sums = _joined(table.first[self.own], table.added[later])
        self.total = problem.gains.sum()
        layers = table.layer_of[self.variables]
        self.rows: list[np.ndarray] = [(layers == layer).astype(float) for layer in np.unique(layers)]
        self.limits: list[float] = [1.0] * len(self.rows)
        self.lowest: list[float] = [1.0] + [-np.inf] * (len(self.rows) - 1)
        self._deviations = problem.budget.deviations
        self._charged: dict[frozenset[int], float] = {}
        self._single = 0
        #: By how much steps lie above their sums, as a share of the limit.
        self._above = np.zeros(len(problem.limits))
        for q, limit in enumerate(problem.limits):
            if np.isfinite(limit):
                self._cut_tangent(q, self._parts(self.own[:1]))
        if np.isfinite(problem.memory_limit):
            for row in self._memory_rows():
                self._add(row, 1.0)

    def _memory_rows(self) -> list[np.ndarray]:
        """A row a moment that may be over the limit, as shares of it, without those that another implies."""
        rows = np.unique(self.sums.moments_bytes.T, axis=0) / self.problem.memory_limit
        layers = self.problem.table.layer_of[self.variables]
        most = sum(rows[:, layers == layer].max(1).clip(0) for layer in np.unique(layers))
        kept: list[np.ndarray] = []
        for row in rows[most > 1][np.argsort(-most[most > 1])]:
            if not any((other >= row).all() for other in kept):
                kept.append(row)
        return kept

    @cached_property
    def relaxed_gain(self) -> float:
        """Gain of the linear relaxation; -1 where not even that keeps the limits."""
        found = self._solve(np.zeros(len(self.variables)), 10.0)
        return -1.0 if found.x is None else -found.fun * self.total / _SCALE

    def improve(self, best: Solution, deadline: float) -> Solution:
        """The frontier's best plan if it is better than ``best``, which comes back else; ``bound`` holds for the
        frontier's plans."""
        problem = self.problem
        bound = problem.gain(self.variables)
        gains = problem.gains[self.variables] / self.total
        for _ in range(_MOST_CUTS):
            left = deadline - time.monotonic()
            if left <= 0:
                return Solution(best.picked, best.gain, bound)
            found = self._solve(np.ones(len(self.variables)), left, best.gain / self.total + _BETTER)
            if found.status == 2:  # nothing better
                return Solution(best.picked, best.gain, best.gain)
            if found.x is None or found.status != 0:
                return Solution(best.picked, best.gain, bound)
            taken = np.flatnonzero(found.x > 0.5)
            picked = tuple(sorted(self.variables[taken].tolist()))
            gain = float(gains[taken].sum() * self.total)
            bound = min(bound, gain)
            excess = problem.excess(picked)
            if not excess:
                return Solution(picked, problem.gain(picked), bound)
            self._cut(taken, excess)
        return Solution(best.picked, best.gain, bound)

    def _solve(self, integral: np.ndarray, time_limit_s: float, least: float | None = None):
        gains = self.problem.gains[self.variables] / self.total
        rows, lowest, limits = list(self.rows), list(self.lowest), list(self.limits)
        if least is not None:
            rows.append(gains)
            lowest.append(least)
            limits.append(np.inf)
        matrix = np.array(rows) * _SCALE
        options = {"time_limit": max(time_limit_s, 0.01), "mip_rel_gap": 0.0}
        constraints = LinearConstraint(matrix, np.array(lowest) * _SCALE, np.array(limits) * _SCALE)
        program = {"constraints": constraints, "integrality": integral, "bounds": Bounds(0, 1)}
        with _without_stdout():
            found = milp(-gains * _SCALE, **program, options=options)
            if found.status == 4:  # HiGHS stumbles over some programs that its presolve made smaller
                found = milp(-gains * _SCALE, **program, options=options | {"presolve": False})
        return found

    def _add(self, row: np.ndarray, limit: float) -> None:
        self.rows.append(row)
        self.limits.append(limit)
        self.lowest.append(-np.inf)

    def _cut(self, taken: np.ndarray, excess: dict[str, float]) -> None:
        """Learn that a solution breaks limits."""
        picked = self.variables[taken]
        cut = False
        for q, name in enumerate(self.problem.table.summed):
            if name in excess and self._sum_breaks(picked, q):
                self._cut_tangent(q, self._parts(picked))
                cut = True
        if "memory_bytes" in excess:
            cut |= self._cut_memory(taken)
        if cut:
            return
        self._single += 1
        if self._single > _MOST_SINGLE and "memory_bytes" not in excess:
            for q, name in enumerate(self.problem.table.summed):
                if name in excess:
                    sums = self.problem.table.sums(picked.tolist()).upper(self._deviations)[q]
                    self._above[q] = max(self._above[q], 1 + excess[name] - sums / self.problem.limits[q])
                    self._cut_tangent(q, self._parts(picked))
            return
        row = np.zeros(len(self.variables))
        row[taken] = 1.0
        self._add(row, len(taken) - 1.0)

    @property
    def proven(self) -> bool:
        """Whether the cuts were such that a bound is known."""
        return not self._above.any()

    def _parts(self, picked: np.ndarray) -> np.ndarray:
        return self.problem.table.sums(picked.tolist()).parts

    def _sum_breaks(self, picked: np.ndarray, q: int) -> bool:
        """Whether the sums show it too, so that the tangent cuts this solution off."""
        upper = self.problem.table.sums(picked.tolist()).upper(self._deviations)[q]
        return bool(upper > self.problem.limits[q] * (1 - self._above[q] + 1e-8))

    def _cut_tangent(self, q: int, parts: np.ndarray) -> None:
        norm = np.linalg.norm(parts[q])
        direction = parts[q] / norm if norm else np.zeros_like(parts[q])
        upper = self.sums.means[:, q] + self._deviations * self.sums.parts[:, q] @ direction
        self._add(upper / self.problem.limits[q], 1.0 + 1e-10 - self._above[q])

    def _cut_memory(self, taken: np.ndarray) -> bool:
        """Charge what a solution's layers keep beyond the sums to all that train at least as much of them."""
        problem = self.problem
        picked = self.variables[taken].tolist()
        beyond, at = self._beyond(picked)
        if problem.table.sums(picked).moments_bytes[at] + beyond <= problem.memory_limit:
            return False  # it is for how it is placed that it does not fit
        for i in picked[::-1]:  # layers without which as much is kept belong to no reason
            fewer = [j for j in picked if j != i]
            if problem.table.layer_of[i] != self.frontier and self._beyond(fewer, at)[0] >= beyond:
                picked = fewer
        key = frozenset(picked)
        if beyond <= self._charged.get(key, 0.0):
            return False
        self._charged[key] = beyond
        layer_of = problem.table.layer_of
        charged = np.zeros(len(self.variables))
        for i in picked:
            charged += (layer_of[self.variables] == layer_of[i]) & (self.variables >= i)
        charge = beyond / problem.memory_limit
        row = self.sums.moments_bytes[:, at] / problem.memory_limit
        self._add(row + charge * charged, 1.0 + charge * (len(picked) - 1))
        return True

    def _beyond(self, picked: list[int], at: int | None = None) -> tuple[float, int]:
        """Bytes that a step takes at least above its sum at a moment, by default the fullest; and the moment."""
        table = self.problem.table
        sums = table.sums(picked).moments_bytes
        at = int(np.argmax(sums)) if at is None else at
        return table.step_memory(table.chosen(picked)).low - float(sums[at]), at


def _joined(first: Sums, added: Sums) -> Sums:
    names = ("means", "parts", "moments_bytes")
    return Sums(*(np.concatenate([getattr(first, name), getattr(added, name)]) for name in names))


@contextlib.contextmanager
def _without_stdout() -> Iterator[None]:
    """HiGHS writes lines for its own developers to standard output, whatever it is told; they are not for ours."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    sys.stdout.flush()
    _flush_c()
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
        _flush_c()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _flush_c() -> None:
    """Empty the buffers of C's own streams, which know nothing of Python's."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
