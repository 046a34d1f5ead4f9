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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from costmodels.sources import StepCost
from profiler.workloads.plan import LayerPlan
from tinytrain.budget import Budget
from tinytrain.gain import Choice
from tinytrain.selection_costs import StepTable

#: A hair, so that the order of additions decides nothing.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Problem:
    """Which choices to take, at most one a layer, so that their gains sum to the most under the budget.

    Attributes:
        choices: Those of each layer, cheapest first, in network order; as those of ``table``, channel for channel.
        table: Costs of the plans.
        budget: What they have to keep.
    """

    choices: Mapping[str, Sequence[Choice]]
    table: StepTable
    budget: Budget

    def __post_init__(self) -> None:
        sizes = [(name, len(c.plan.channels)) for name, choices in self.choices.items() for c in choices]
        layers = (self.table.layers[i] for i in self.table.layer_of)
        if sizes != [(name, len(p.channels)) for name, p in zip(layers, self.table.plans, strict=True)]:
            raise ValueError("the table is for other choices")
        flat = tuple(choice for choices in self.choices.values() for choice in choices)
        object.__setattr__(self, "flat", flat)
        object.__setattr__(self, "gains", np.array([choice.gain for choice in flat]))
        limits = self.budget.limits
        object.__setattr__(self, "limits", np.array([limits.get(name, np.inf) for name in self.table.summed]))
        object.__setattr__(self, "memory_limit", limits.get("memory_bytes", np.inf))

    flat: tuple[Choice, ...] = ()
    gains: np.ndarray = None  # type: ignore[assignment]
    limits: np.ndarray = None  # type: ignore[assignment]
    memory_limit: float = np.inf

    def chosen(self, picked: Sequence[int]) -> dict[str, LayerPlan]:
        """Layer names to plans of these choices."""
        return {self.flat[i].layer: self.flat[i].plan for i in sorted(picked)}

    def cost(self, picked: Sequence[int]) -> StepCost:
        """What the source says of the whole step."""
        return self.table.step_cost(self.chosen(picked))

    def allows(self, picked: Sequence[int]) -> bool:
        """Whether the whole step keeps the budget, as the source says."""
        return self.budget.allows(self.cost(picked))

    def gain(self, picked: Sequence[int]) -> float:
        return float(self.gains[list(picked)].sum())

    def seems_allowed(self, picked: Sequence[int]) -> bool:
        """Whether the sums keep the budget; they are no proof that the step does."""
        sums = self.table.sums(picked)
        upper = sums.upper(self.budget.deviations)
        return bool((upper <= self.limits * (1 + _ROUNDING)).all() and sums.memory_bytes <= self.memory_limit)

    def of_layer(self, layer: int) -> np.ndarray:
        """Numbers of a layer's choices, cheapest first."""
        return np.flatnonzero(self.table.layer_of == layer)


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
        picked = _follow(problem, lambda start, banned: _climb(problem, None, start, banned))
        return Solution(tuple(sorted(picked)), problem.gain(picked))
    runs = []
    for layer in range(len(problem.table.layers)):
        states = _climb(problem, layer, [], set())
        if states:
            runs.append((problem.gain(states[-1]), layer))
    best: list[int] = []
    for gain, layer in sorted(runs, reverse=True):
        if best and gain <= problem.gain(best):
            break  # steps asked for whole only take choices away
        picked = _follow(problem, lambda start, banned, layer=layer: _climb(problem, layer, start, banned))
        if problem.gain(picked) > problem.gain(best):
            best = picked
    return Solution(tuple(sorted(best)), problem.gain(best))


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


def _climb(problem: Problem, layer: int | None, picked: list[int], banned: set[int]) -> list[list[int]]:
    """States of one run, each a choice more or a larger one, by the sums."""
    table, deviations = problem.table, problem.budget.deviations
    open_ = np.array([i not in banned for i in range(len(problem.gains))])
    states = []
    if layer is not None:
        open_ &= table.layer_of >= layer
        if not picked:
            start = next((i for i in problem.of_layer(layer).tolist() if open_[i] and problem.seems_allowed([i])), None)
            if start is None:
                return []
            picked = [start]
            states.append(picked)
    current = np.full(len(table.layers), -1)
    for i in picked:
        current[table.layer_of[i]] = i
    limits = np.append(problem.limits, problem.memory_limit)
    while True:
        held = current[table.layer_of]
        gained = problem.gains - np.where(held >= 0, problem.gains[held], 0.0)
        moves = np.flatnonzero(open_ & (np.arange(len(held)) > held) & (gained > 0))
        if not len(moves):
            return states
        steps = table.after(current, moves)
        fits = (steps.upper(deviations) <= problem.limits * (1 + _ROUNDING)).all(1)
        fits &= steps.memory_bytes <= problem.memory_limit
        if not fits.any():
            return states
        moves, steps = moves[fits], steps[fits]
        if layer is None:
            more = table.added[moves]
            less = np.where(held[moves, None] >= 0, table.added.means[held[moves]], 0.0)
            memory = more.memory_bytes - np.where(held[moves] >= 0, table.added.memory_bytes[held[moves]], 0.0)
            price = np.column_stack([more.means - less, memory])
        else:
            now = table.sums(current[current >= 0].tolist())
            price = np.column_stack([steps.means - now.means, steps.memory_bytes - now.memory_bytes])
        shares = np.maximum((price / limits).max(1), 1e-15)
        best = moves[np.argmax(gained[moves] / shares)]
        current[table.layer_of[best]] = best
        states.append(current[current >= 0].tolist())
