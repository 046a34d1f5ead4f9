"""Selection of what to train for a task: layers and channels of most Fisher information under a budget for one step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from torch import Tensor

from costmodels.sources import CostSource, StepCost
from profiler.errors import UserError
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain.budget import Budget
from tinytrain.criterion import Denominator, Score, scores_of
from tinytrain.gain import RATIOS, layer_choices
from tinytrain.selection_costs import StepTable
from tinytrain.solvers import Problem, Solution, solve_greedy, solve_marginal
from tinytrain.solvers_exact import solve_exact

#: Share of the layers with weights that is inspected, counted from the last.
INSPECTED_SHARE = 0.44

Solver = Literal["greedy", "marginal", "exact", "biases"]


@dataclass(frozen=True)
class Taken:
    """One inspected layer.

    Attributes:
        score: Its standing.
        channels: Output channels taken; 0 where none.
        all_channels: Of the layer.
        fisher: Σ Δ_o over the channels taken.
    """

    score: Score
    channels: int
    all_channels: int
    fisher: float


@dataclass(frozen=True)
class Selection:
    """A plan and how it came about.

    Attributes:
        plan: The step plan.
        budget: What it had to keep.
        solver: Who chose.
        order: The inspected layers, best score first.
        gain: Σ Δ_o of the plan's channels.
        bound: No plan under the budget has more gain; infinite where the solver does not know.
        fisher_share: ``gain`` over that of all inspected channels.
        problem: What was solved.
        seconds: What solving took, costs asked for meanwhile among it; the problem's table was there before.
    """

    plan: StepPlan
    budget: Budget
    solver: Solver
    order: tuple[Taken, ...]
    gain: float
    bound: float
    fisher_share: float
    problem: Problem
    seconds: float

    @cached_property
    def cost(self) -> StepCost:
        """What the cost source predicts for the plan. Asked for when it is first looked at: planning memory to the byte
        may take seconds, and that the plan keeps its budget is known without."""
        return self.problem.table.step_cost(self.plan.layers)


def inspected_layers(network: Network, share: float = INSPECTED_SHARE) -> tuple[str, ...]:
    """The last ``share`` of the layers with weights, in network order; at least one.

    Raises:
        UserError: ``share`` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise UserError(
            f"the share of layers to inspect is {share}", hint="give one above 0 and at most 1", exit_status=2
        )
    names = [layer.name for layer in network.trainable]
    return tuple(names[-max(1, math.ceil(share * len(names) - 1e-9)) :])


def last_biases(network: Network, count: int) -> dict[str, LayerPlan]:
    """Plans that train the biases of the last ``count`` layers with weights, and nothing else of them.

    Raises:
        UserError: fewer layers than that, or one without a bias.
    """
    trainable = network.trainable
    if not 0 <= count <= len(trainable):
        raise UserError(
            f"the biases of the last {count} layers cannot train: {network.name} has {len(trainable)} with weights",
            hint=f"give --last-biases 0 to {len(trainable)}",
            exit_status=2,
        )
    layers = trainable[len(trainable) - count :]
    for layer in layers:
        if not layer.geometry.bias_elements:  # type: ignore[attr-defined]
            raise UserError(
                f"the bias of layer {layer.name} is to train, which has none", hint="give a smaller --last-biases"
            )
    return {layer.name: LayerPlan() for layer in layers}


def step_table(
    network: Network,
    inspected: Sequence[str],
    source: CostSource,
    *,
    ratios: Sequence[float] = RATIOS,
    energy: bool = False,
    **settings,
) -> StepTable:
    """Costs for selections from these layers: of one device, network and kind of step, for any number of tasks.

    Args:
        network: What is trained.
        inspected: Layers to choose from.
        source: Where costs come from.
        ratios: Shares of a layer's output channels that may be taken, each above 0 and at most 1.
        energy: Whether budgets will limit energy.
        settings: Of the plan: ``layers`` (that train in any case), ``head``, ``images``, ``optimizer``,
            ``learning_rate``, ``dtype``, ``savings``.
    """
    template = StepPlan.for_network(network, settings.pop("layers", {}), **settings)
    # The last channels where single ones may train: those are named in the program, which takes a few bytes.
    made_up = {name: _rising(network[name].geometry.channels("out")) for name in inspected}  # type: ignore[attr-defined]
    choices = layer_choices(network, made_up, ratios, template.dtype)
    plans = {name: [choice.plan for choice in ways] for name, ways in choices.items()}
    table = StepTable(network, source, template, plans, energy=energy)
    table.terms(source, None, frontier=False)  # no task is to wait for what is the same for all
    return table


def _rising(count: int) -> Tensor:
    import torch  # noqa: PLC0415

    return torch.arange(count, dtype=torch.float64)


def select(
    information: Mapping[str, Tensor],
    table: StepTable,
    budget: Budget,
    *,
    ratios: Sequence[float] = RATIOS,
    solver: Solver = "exact",
    denominator: Denominator | None = None,
    frontier: bool | None = None,
    criterion_source: CostSource | None = None,
    time_limit_s: float = 60.0,
) -> Selection:
    """Choose layers and channels for one training step.

    Args:
        information: Δ_o of the layers to choose from, as :func:`tinytrain.fisher.fisher_information` gives it; those
            of the table.
        table: What steps cost, of :func:`step_table` with the same ratios.
        budget: Limits of the step.
        ratios: See :func:`step_table`.
        solver: ``greedy`` by the scores, ``marginal`` by gain for what it adds, ``exact``.
        denominator: Of the scores, see :func:`tinytrain.criterion.scores`.
        frontier: Whether scores (by default not, as published) and prices of the marginal greedy (by default so)
            count the gradients of later layers.
        criterion_source: Where the scores' costs come from, if not from the table's source.
        time_limit_s: Of the exact solver.

    Returns:
        The plan, without notes, and how it came about.

    Raises:
        UserError: no choice keeps the budget.
        ValueError: no such solver, or information for other layers than the table's.
    """
    network, template = table.network, table.template
    choices = layer_choices(network, information, ratios, template.dtype)
    if tuple(choices) != table.layers:
        raise ValueError("the information is not of the layers of the table")
    problem = Problem(choices, table, budget)
    begin = time.monotonic()
    terms = table.terms(criterion_source or table.source, denominator, bool(frontier))
    standing = scores_of(information, terms)
    aware = frontier is None or frontier
    solution = _solve(problem, solver, standing, frontier=aware, time_limit_s=time_limit_s)
    if not solution.picked:
        raise nothing_fits(problem)
    plan = table.plan(problem.chosen(solution.picked))
    seconds = time.monotonic() - begin
    return Selection(
        plan=plan,
        budget=budget,
        solver=solver,
        order=_order(problem, solution, standing),
        gain=solution.gain,
        bound=solution.bound,
        fisher_share=solution.gain / total if (total := sum(float(d.sum()) for d in information.values())) else 0.0,
        problem=problem,
        seconds=seconds,
    )


def select_biases(
    information: Mapping[str, Tensor],
    table: StepTable,
    budget: Budget,
    *,
    ratios: Sequence[float] = RATIOS,
    denominator: Denominator | None = None,
) -> Selection:
    """The biases of as many last layers as the budget allows, and no weights: gain is none.

    Arguments as for :func:`select`; the scores stand in the order that comes back, and decide nothing.

    Raises:
        UserError: not even the last layer's bias keeps the budget, or it has none.
    """
    network = table.network
    problem = Problem(layer_choices(network, information, ratios, table.template.dtype), table, budget)
    begin = time.monotonic()
    has_bias = [bool(layer.geometry.bias_elements) for layer in reversed(network.trainable)]  # type: ignore[attr-defined]
    fewest, most = 0, has_bias.index(False) if False in has_bias else len(has_bias)
    while fewest < most:  # costs only grow with the frontier's depth
        middle = (fewest + most + 1) // 2
        if budget.allows(table.step_cost(last_biases(network, middle))):
            fewest = middle
        else:
            most = middle - 1
    if fewest == 0:
        raise UserError(
            "not even the bias of the last layer can train under the budget", hint="raise the budget, or fewer --images"
        )
    layers = last_biases(network, fewest)
    standing = scores_of(information, table.terms(table.source, denominator, frontier=False))
    nothing = Solution((), 0.0)
    seconds = time.monotonic() - begin
    return Selection(
        table.plan(layers), budget, "biases", _order(problem, nothing, standing), 0.0, 0.0, 0.0, problem, seconds
    )


def _solve(
    problem: Problem, solver: Solver, standing: Mapping[str, Score], *, frontier: bool, time_limit_s: float
) -> Solution:
    if solver == "greedy":
        return solve_greedy(problem, {name: score.score for name, score in standing.items()})
    if solver == "marginal":
        return solve_marginal(problem, frontier=frontier)
    if solver != "exact":
        raise ValueError(f"the solver is greedy, marginal or exact, got {solver!r}")
    starts = (
        solve_marginal(problem),
        solve_greedy(problem, {name: score.score for name, score in standing.items()}),
    )
    return solve_exact(problem, max(starts, key=lambda s: s.gain), time_limit_s=time_limit_s)


def _order(problem: Problem, solution: Solution, standing: Mapping[str, Score]) -> tuple[Taken, ...]:
    picked = {problem.flat[i].layer: problem.flat[i] for i in solution.picked}
    taken = []
    for score in sorted(standing.values(), key=lambda s: s.score, reverse=True):
        choice = picked.get(score.layer)
        channels = problem.table.network[score.layer].geometry.channels("out")  # type: ignore[attr-defined]
        taken.append(
            Taken(score, len(choice.plan.channels), channels, choice.gain) if choice else Taken(score, 0, channels, 0.0)
        )
    return tuple(taken)


def nothing_fits(problem: Problem) -> UserError:
    """That no choice keeps the budget, with the least that there is for each limit."""
    table, budget = problem.table, problem.budget
    costs = [(problem.cost([i]), problem.flat[i]) for i in range(len(problem.flat))]
    units = {"latency_ms": "ms", "energy_mj": "mJ", "memory_bytes": "bytes"}

    def figure(name: str, value: float) -> str:
        return f"{value:,.0f} bytes" if name == "memory_bytes" else f"{value:,.6g} {units[name]}"

    parts = []
    for name in budget.limits:
        cost, choice = min(costs, key=lambda pair: budget.upper(pair[0], name))
        named = dict.fromkeys([*budget.limits, "latency_ms", "memory_bytes"])
        least = [figure(each, budget.upper(cost, each)) for each in sorted(named, key=list(units).index)]
        parts.append(f"the least is {' and '.join(least)} for {len(choice.plan.channels)} channels of {choice.layer}")
    limits = [figure(name, limit) for name, limit in budget.limits.items()]
    images = table.template.images
    return UserError(
        f"no plan fits a training step of {' and '.join(limits)}: {', or '.join(dict.fromkeys(parts))} "
        f"({table.source.label}, {images} image{'s' if images > 1 else ''})",
        hint="raise the budget, or take a smaller --input or fewer --images",
    )
