"""Selection as a problem, (gain, cost source, constraints), and solvers, which know nothing else.

    greedy     TinyTrain's: layers in falling order of their score s_i; of each the largest choice with which the whole
               step still keeps every limit, or nothing
    marginal   the choice with the most gain for what it adds to the step, again and again, once for each frontier;
               the best of these
    exact      :mod:`tinytrain.solvers_exact`

A greedy run is made on sums; then the steps along it are asked for whole, and where one breaks a limit the run is taken
back to there and goes on without that choice.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from costmodels.sources import StepCost
from profiler.workloads.plan import LayerPlan
from tinytrain.budget import Budget
from tinytrain.gain import Choice
from tinytrain.selection_costs import StepTable

#: A hair, so that the order of additions decides nothing.
_ROUNDING = 1e-9
#: What costs less of a limit costs this much, so that prices are no 0.
_LEAST_SHARE = 1e-15


@dataclass(frozen=True, eq=False)
class Problem:
    """Which choices to take, at most one a layer, so that their gains sum to the most under the budget.

    Attributes:
        choices: Those of each layer, cheapest first, in network order; as those of ``table``, channel for channel.
        table: Costs of the plans.
        budget: What they have to keep.
        flat: The choices, layer after layer.
        gains: Theirs, shape (choices,).
        limits: Of the quantities that the table sums, infinite where there is none.
        memory_limit: In bytes, infinite where there is none.
    """

    choices: Mapping[str, Sequence[Choice]]
    table: StepTable
    budget: Budget
    flat: tuple[Choice, ...] = field(init=False)
    gains: np.ndarray = field(init=False)
    limits: np.ndarray = field(init=False)
    memory_limit: float = field(init=False)
    _members: tuple[np.ndarray, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = [(name, len(c.plan.channels)) for name, choices in self.choices.items() for c in choices]
        layers = (self.table.layers[i] for i in self.table.layer_of)
        if sizes != [(name, len(p.channels)) for name, p in zip(layers, self.table.plans, strict=True)]:
            raise ValueError("the table is for other choices")
        if "energy_mj" in self.budget.limits and not self.table.energy:
            raise ValueError("the budget limits energy, and the table was made without energies")
        flat = tuple(choice for choices in self.choices.values() for choice in choices)
        object.__setattr__(self, "flat", flat)
        object.__setattr__(self, "gains", np.array([choice.gain for choice in flat]))
        limits = self.budget.limits
        object.__setattr__(self, "limits", np.array([limits.get(name, np.inf) for name in self.table.summed]))
        object.__setattr__(self, "memory_limit", limits.get("memory_bytes", np.inf))
        members = tuple(np.flatnonzero(self.table.layer_of == layer) for layer in range(len(self.table.layers)))
        object.__setattr__(self, "_members", members)

    def chosen(self, picked: Sequence[int]) -> dict[str, LayerPlan]:
        """Layer names to plans of these choices."""
        return {self.flat[i].layer: self.flat[i].plan for i in sorted(picked)}

    def cost(self, picked: Sequence[int]) -> StepCost:
        """What the source says of the whole step."""
        return self.table.step_cost(self.chosen(picked))

    def allows(self, picked: Sequence[int]) -> bool:
        """Whether the whole step keeps the budget, as the source says."""
        return not self.excess(picked)

    def excess(self, picked: Sequence[int]) -> dict[str, float]:
        """By how much the whole step passes each limit that it breaks, as a share of it; of memory, at least that.

        Memory is planned to the byte only where bounds of it do not tell.
        """
        layers, budget = self.chosen(picked), self.budget
        sums = self.table.step_sums(layers)
        limits = {name: limit for name, limit in budget.limits.items() if name != "memory_bytes"}
        shares = {name: budget.upper(sums, name) / limit - 1 for name, limit in limits.items()}
        if np.isfinite(self.memory_limit):
            fits = self.table.fits(layers, self.memory_limit)
            shares["memory_bytes"] = 0.0 if fits else self.table.step_memory(layers).low / self.memory_limit - 1
        return {name: share for name, share in shares.items() if share > 0}

    def gain(self, picked: Sequence[int]) -> float:
        return float(self.gains[list(picked)].sum())

    def seems_allowed(self, picked: Sequence[int]) -> bool:
        """Whether the sums keep the budget; they are no proof that the step does."""
        sums = self.table.sums(picked)
        upper = sums.upper(self.budget.deviations)
        return bool((upper <= self.limits * (1 + _ROUNDING)).all() and sums.memory_bytes <= self.memory_limit)

    def of_layer(self, layer: int) -> np.ndarray:
        """Numbers of a layer's choices, cheapest first."""
        return self._members[layer]


@dataclass(frozen=True)
class Solution:
    """What a solver settled on.

    Attributes:
        picked: Numbers of the choices, ascending; none where nothing keeps the budget.
        gain: Σ of their gains.
        bound: No plan has more gain; infinite where the solver does not know.
    """

    picked: tuple[int, ...]
    gain: float
    bound: float = float("inf")


def solve_greedy(problem: Problem, scores: Mapping[str, float]) -> Solution:
    """TinyTrain's greedy: layers in falling order of ``scores``, those that come first in the network on a tie."""
    order = sorted(range(len(problem.table.layers)), key=lambda i: -scores[problem.table.layers[i]])

    def extend(picked: list[int], banned: set[int]) -> list[list[int]]:
        states = []
        taken = {int(problem.table.layer_of[i]) for i in picked}
        for layer in order:
            if layer in taken:
                continue
            for i in problem.of_layer(layer)[::-1].tolist():
                if i not in banned and problem.seems_allowed([*picked, i]):
                    picked = [*picked, i]
                    states.append(picked)
                    break
        return states

    picked = _follow(problem, extend)
    return Solution(tuple(sorted(picked)), problem.gain(picked))


def solve_marginal(problem: Problem, *, frontier: bool = True) -> Solution:
    """Gain for what it adds, greedily: the largest share of a limit that a choice takes is its price.

    Args:
        problem: What to solve.
        frontier: Count what a deeper frontier adds to the step: each layer is the frontier once, and layers before it
            are left alone. Without, prices leave the longer chain out (the budget does not).
    """
    if not frontier:
        picked = _follow(problem, lambda start, banned: _climb_unaware(problem, start, banned))
        return Solution(tuple(sorted(picked)), problem.gain(picked))
    # Best first: a frontier stands at all gains behind it, then at those of its run by the sums, then at those of its
    # run with steps asked for whole. Each is at most the one before, so what stands first for good is the best.
    most = np.array([problem.gains[problem.of_layer(layer)].max() for layer in range(len(problem.table.layers))])
    waiting = [(-bound, layer, None) for layer, bound in enumerate(np.cumsum(most[::-1])[::-1].tolist())]
    heapq.heapify(waiting)
    while waiting:
        _, layer, picked = heapq.heappop(waiting)
        if picked is not None and problem.allows(picked):
            return Solution(tuple(sorted(picked)), problem.gain(picked))
        if picked is None:
            states = _climb(problem, layer, [], set())
            found = states[-1] if states else []
        else:
            found = _follow(problem, lambda start, banned, layer=layer: _climb(problem, layer, start, banned))
        if found:
            heapq.heappush(waiting, (-problem.gain(found), layer, found))
    return Solution((), 0.0)


def _follow(problem: Problem, extend: Callable[[list[int], set[int]], list[list[int]]]) -> list[int]:
    """The end of a greedy run all of whose states keep the budget, asked for whole."""
    picked: list[int] = []
    banned: set[int] = set()
    while True:
        states = [picked, *extend(picked, banned)]
        if len(states) == 1 or problem.allows(states[-1]):
            return states[-1]
        allowed, refused = 0, len(states) - 1
        while refused - allowed > 1:
            middle = (allowed + refused) // 2
            if problem.allows(states[middle]):
                allowed = middle
            else:
                refused = middle
        picked = states[allowed]
        banned |= set(states[refused]) - set(picked)


def _climb(problem: Problem, layer: int, picked: list[int], banned: set[int]) -> list[list[int]]:
    """States of one run behind a frontier, each a choice more or a larger one, by the sums."""
    table, deviations = problem.table, problem.budget.deviations
    open_ = table.layer_of >= layer
    open_[list(banned)] = False
    states = []
    if not picked:
        start = next((i for i in problem.of_layer(layer).tolist() if open_[i] and problem.seems_allowed([i])), None)
        if start is None:
            return []
        picked = [start]
        states.append(picked)
    front = next(i for i in picked if table.layer_of[i] == layer)
    own = problem.of_layer(layer)
    means, parts, memory = (getattr(table.added, name).copy() for name in ("means", "parts", "moments_bytes"))
    means[own] = table.first.means[own] - table.first.means[front]
    parts[own] = table.first.parts[own] - table.first.parts[front]
    memory[own] = table.first.moments_bytes[own] - table.first.moments_bytes[front]
    now = table.sums(picked)
    now_means, now_parts, now_memory = now.means, now.parts, now.moments_bytes
    gained = problem.gains.copy()
    limits = problem.limits * (1 + _ROUNDING)

    def take(i: int) -> None:
        """From here on the choices of its layer count for what they have beyond it."""
        members = problem.of_layer(int(table.layer_of[i]))
        open_[members[members <= i]] = False
        for values in (gained, means, parts, memory):
            values[members] -= values[i].copy()

    for i in picked:
        take(i)
    while True:
        upper = now_means + means + deviations * np.linalg.norm(now_parts + parts, axis=-1)
        fits = open_ & (gained > 0) & (upper <= limits).all(1)
        fits &= (now_memory + memory <= problem.memory_limit).all(1)
        if not fits.any():
            return states
        shares = np.maximum((means / problem.limits).max(1), memory.max(1) / problem.memory_limit)
        worth = np.where(fits, gained / np.maximum(shares, _LEAST_SHARE), -1.0)
        best = int(np.argmax(worth))
        now_means, now_parts, now_memory = now_means + means[best], now_parts + parts[best], now_memory + memory[best]
        take(best)
        picked = [i for i in picked if table.layer_of[i] != table.layer_of[best]] + [best]
        states.append(picked)


def _climb_unaware(problem: Problem, picked: list[int], banned: set[int]) -> list[list[int]]:
    """The same with any frontier, at prices that leave the longer chain out."""
    table, deviations = problem.table, problem.budget.deviations
    open_ = np.array([i not in banned for i in range(len(problem.gains))])
    current = np.full(len(table.layers), -1)
    for i in picked:
        current[table.layer_of[i]] = i
    states = []
    while True:
        held = current[table.layer_of]
        gained = problem.gains - np.where(held >= 0, problem.gains[held], 0.0)
        moves = np.flatnonzero(open_ & (np.arange(len(held)) > held) & (gained > 0))
        steps = table.after(current, moves)
        fits = (steps.upper(deviations) <= problem.limits * (1 + _ROUNDING)).all(1)
        moves = moves[fits & (steps.memory_bytes <= problem.memory_limit)]
        if not len(moves):
            return states
        added, old = table.added[moves], table.added[held[moves]]
        holds = held[moves] >= 0
        shares = (added.means - np.where(holds[:, None], old.means, 0.0)) / problem.limits
        memory = (added.moments_bytes - np.where(holds[:, None], old.moments_bytes, 0.0)).max(1) / problem.memory_limit
        worth = gained[moves] / np.maximum(np.maximum(shares.max(1), memory), _LEAST_SHARE)
        best = moves[np.argmax(worth)]
        current[table.layer_of[best]] = best
        states.append(current[current >= 0].tolist())
