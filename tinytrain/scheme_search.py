"""MCUNetV3's offline search for an update scheme (arXiv 2206.15472), with budgets from a cost source.

    max over k, layers i, ratios r of   Δacc(biases of the last k) + Σ_i Δacc(W_i, r_i)

Published is a budget of memory alone; here the whole step keeps limits of memory, latency and energy as a cost source
foresees them. The scheme is static: it is found once for a network and device, and trains the same channels for every
task. Contributions are taken as if they added up, as published; negative ones are left out.

With k given this is the selection problem of :mod:`tinytrain.solvers` with other gains, and its exact solver's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from costmodels.sources import CostSource, StepCost
from profiler.errors import UserError
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain.budget import Budget
from tinytrain.contributions import Contributions, Part
from tinytrain.gain import Choice, can_train
from tinytrain.selection import last_biases
from tinytrain.selection_costs import StepTable
from tinytrain.solvers import Problem, solve_marginal
from tinytrain.solvers_exact import solve_exact


@dataclass(frozen=True)
class Searched:
    """An update scheme and how it came about.

    Attributes:
        plan: The scheme.
        cost: What the cost source foresees of a step.
        last_biases: k.
        points: Σ of the contributions, in points of accuracy.
        bound: No scheme under the budget has more; infinite where time ran out or costs do not add up.
        seconds: What the search took.
    """

    plan: StepPlan
    cost: StepCost
    last_biases: int
    points: float
    bound: float
    seconds: float


def search(
    contributions: Contributions,
    network: Network,
    source: CostSource,
    budget: Budget,
    *,
    time_limit_s: float = 60.0,
    **settings,
) -> Searched:
    """The scheme of the most contribution under a budget.

    Args:
        contributions: Of this network's parts.
        network: What is trained.
        source: Where costs come from.
        budget: Limits of one training step.
        time_limit_s: Of the solver for one k.
        settings: Of the plan: ``head``, ``images``, ``optimizer``, ``learning_rate``, ``dtype``, ``savings``.

    Raises:
        UserError: the contributions are of another network, or no scheme keeps the budget.
    """
    begin = time.monotonic()
    contributions.check(network)
    if not contributions.tasks:
        raise UserError("there are no contributions on any task yet", hint="measure them with `tinytrain search`")
    problems = _Problems(contributions, network, source, budget, time_limit_s=time_limit_s, **settings)
    of_parts = {part.last_biases: contributions.points(part) for part in contributions.parts if not part.layer}
    biases = {k: points for k, points in of_parts.items() if points > 0}
    best: Searched | None = None
    bound = 0.0
    for k, of_biases in sorted((biases | {0: 0.0}).items(), key=lambda item: -item[1]):
        if best is not None and of_biases + problems.most <= best.points:
            break  # no scheme with these biases is better, nor with those that come
        found = problems.solve(k, of_biases)
        if found is None:
            continue
        bound = max(bound, found.bound)
        if best is None or found.points > best.points:
            best = found
    if best is None:
        raise UserError(
            f"no update scheme of positive contribution keeps the budget ({source.label})",
            hint="raise the budget, or take a smaller --input or fewer --images",
        )
    return replace(best, bound=max(bound, best.points), seconds=time.monotonic() - begin)


class _Problems:
    """A selection problem for each k: which weights train beside the biases of the last k layers."""

    def __init__(
        self,
        contributions: Contributions,
        network: Network,
        source: CostSource,
        budget: Budget,
        *,
        time_limit_s: float,
        **settings,
    ) -> None:
        self.network, self.source, self.budget = network, source, budget
        self.settings, self.time_limit_s = settings, time_limit_s
        #: Of each layer the parts with a contribution above 0 that kernels can train, fewest channels first.
        self.weights: dict[str, list[tuple[Part, float]]] = {}
        for part in contributions.parts:
            trains = part.layer and can_train(network[part.layer], settings.get("dtype", "f32"))
            if trains and (points := contributions.points(part)) > 0:
                self.weights.setdefault(part.layer, []).append((part, points))

    @property
    def most(self) -> float:
        """What weights contribute at most, all together."""
        return sum(max(points for _, points in found) for found in self.weights.values())

    def solve(self, k: int, of_biases: float) -> Searched | None:
        """The best scheme that trains the biases of the last k layers, which contribute ``of_biases``; None where none
        keeps the budget."""
        in_any_case = last_biases(self.network, k)
        template = StepPlan.for_network(self.network, in_any_case, **self.settings)
        best: Searched | None = None
        if k:
            cost = self.source.step(self.network, template)
            if not self.budget.allows(cost):
                return None  # weights only add to it
            best = Searched(template, cost, k, of_biases, of_biases, 0.0)
        choices = {
            layer.name: tuple(
                Choice(layer.name, LayerPlan(tuple(range(part.channels)), part.axis, layer.name in in_any_case), points)
                for part, points in self.weights[layer.name]
            )
            for layer in self.network.trainable
            if layer.name in self.weights
        }
        if not choices:
            return best
        plans = {name: [choice.plan for choice in ways] for name, ways in choices.items()}
        table = StepTable(self.network, self.source, template, plans, energy="energy_mj" in self.budget.limits)
        problem = Problem(choices, table, self.budget)
        solution = solve_exact(problem, solve_marginal(problem), time_limit_s=self.time_limit_s)
        if not solution.picked:
            return best
        plan = table.plan(problem.chosen(solution.picked))
        cost = problem.cost(solution.picked)
        return Searched(plan, cost, k, of_biases + solution.gain, of_biases + solution.bound, 0.0)
