"""Greedy selection of what to train: layers by score, channels by Fisher information, whole steps under a budget.

Layers are taken in falling order of their score s_i. Of each, the largest of the given ratios of output channels is
taken with which the *whole* training step still keeps every limit, or nothing. What a step costs is the cost source's
to say: forward pass, the ``grad_input`` chain down to the frontier, gradients and updates of what was taken so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import ndtri
from torch import Tensor

from costmodels.sources import CostSource, StepCost
from profiler.errors import UserError
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain.criterion import Score, scores

#: Ratios of a layer's output channels that a plan may train: those of MCUNetV3's search (arXiv 2206.15472).
RATIOS = (1 / 8, 1 / 4, 1 / 2, 1.0)
#: Share of the layers with weights that is inspected, counted from the last.
INSPECTED_SHARE = 0.44


@dataclass(frozen=True)
class Budget:
    """Limits of one training step.

    Attributes:
        latency_ms: Forward and backward of the batch and the update.
        memory_bytes: Peak; None for no limit.
        confidence: Probability with which the latency is to stay below its limit, by the cost source's own standard
            deviation (taken as normal): from 0.5 to below 1. A source without one is believed as it is.

    Raises:
        ValueError: another confidence.
    """

    latency_ms: float = math.inf
    memory_bytes: int | None = None
    confidence: float = 0.5

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence must be from 0.5 to below 1, got {self.confidence}")

    def upper_latency_ms(self, cost: StepCost) -> float:
        """What the latency stays below with the asked confidence."""
        std_ms = cost.latency_std_ms
        return cost.latency_ms + (0.0 if math.isnan(std_ms) else float(ndtri(self.confidence)) * std_ms)

    def allows(self, cost: StepCost) -> bool:
        return self.upper_latency_ms(cost) <= self.latency_ms and (
            self.memory_bytes is None or cost.memory_bytes <= self.memory_bytes
        )


@dataclass(frozen=True)
class Taken:
    """One layer of the order in which layers were looked at.

    Attributes:
        score: Its standing.
        channels: Output channels taken; 0 where nothing fitted.
        all_channels: Of the layer.
        fisher: Σ Δ_o over the channels taken.
        latency_ms: What taking it added to the step, the longer chain included.
    """

    score: Score
    channels: int
    all_channels: int
    fisher: float
    latency_ms: float


@dataclass(frozen=True)
class Selection:
    """A plan and how it came about.

    Attributes:
        plan: The step plan.
        cost: What the cost source predicts for it.
        budget: What it had to keep.
        order: The inspected layers, best score first.
        fisher_share: Σ Δ_o of the plan's channels over that of all inspected channels.
    """

    plan: StepPlan
    cost: StepCost
    budget: Budget
    order: tuple[Taken, ...]
    fisher_share: float


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


def select(
    network: Network,
    information: Mapping[str, Tensor],
    source: CostSource,
    budget: Budget,
    *,
    ratios: Sequence[float] = RATIOS,
    **settings,
) -> Selection:
    """Choose layers and channels for one training step.

    Args:
        network: What is trained.
        information: Δ_o of the layers to choose from, as :func:`tinytrain.fisher.fisher_information` gives it.
        source: Where costs come from, those of the scores and those of the budget.
        budget: Limits of the step.
        ratios: Shares of a layer's output channels that may be taken, each above 0 and at most 1.
        settings: Of the plan: ``head``, ``images``, ``optimizer``, ``learning_rate``.

    Returns:
        The plan, without notes, and how it came about.

    Raises:
        UserError: not even the cheapest layer at the smallest ratio keeps the budget.
    """
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise UserError(f"the ratios {list(ratios)} are not all above 0 and at most 1", hint="give --ratios 1/8,1/4,1")
    template = StepPlan.for_network(network, {}, **settings)
    standing = scores(network, information, source, images=template.images, optimizer=template.optimizer)
    search = _Search(network, source, template, information, sorted(set(ratios), reverse=True))

    layers: dict[str, LayerPlan] = {}
    cost: StepCost | None = None
    order = []
    for score in sorted(standing.values(), key=lambda s: s.score, reverse=True):
        name = score.layer
        added, fisher = 0.0, 0.0
        for choice in search.choices[name]:
            candidate = search.step_if_allowed(layers | {name: choice}, budget)
            if candidate is not None:
                added = candidate.latency_ms - (cost.latency_ms if cost else search.forward_ms())
                fisher = float(information[name][list(choice.channels)].sum())
                layers[name], cost = choice, candidate
                break
        count = len(layers[name].channels) if name in layers else 0
        order.append(Taken(score, count, network[name].geometry.channels("out"), fisher, added))
    if cost is None:
        raise search.nothing_fits(budget)
    everything = sum(float(delta.sum()) for delta in information.values())
    share = sum(taken.fisher for taken in order) / everything if everything else 0.0
    return Selection(search.plan(layers), cost, budget, tuple(order), share)


class _Search:
    """Candidate plans: each is judged by its latency alone first, and only those that pass are placed in memory."""

    def __init__(
        self,
        network: Network,
        source: CostSource,
        template: StepPlan,
        information: Mapping[str, Tensor],
        ratios: Sequence[float],
    ) -> None:
        self.network, self.source, self.template = network, source, template
        self.choices = {name: self._choices(name, delta, ratios) for name, delta in information.items()}

    def _choices(self, name: str, delta: Tensor, ratios: Sequence[float]) -> list[LayerPlan]:
        geometry = self.network[name].geometry
        ranked = delta.argsort(descending=True, stable=True).tolist()
        counts = dict.fromkeys(max(1, round(ratio * len(ranked))) for ratio in ratios)
        return [LayerPlan(tuple(sorted(ranked[:count])), "out", bool(geometry.bias_elements)) for count in counts]

    def plan(self, layers: Mapping[str, LayerPlan]) -> StepPlan:
        ordered = {layer.name: layers[layer.name] for layer in self.network.trainable if layer.name in layers}
        return replace(self.template, layers=ordered)

    def step_if_allowed(self, layers: Mapping[str, LayerPlan], budget: Budget) -> StepCost | None:
        plan = self.plan(layers)
        # A hair above the limit, so that the order of additions decides nothing here.
        if self.source.step_latency_ms(self.network, plan) > budget.latency_ms * (1 + 1e-9):
            return None
        cost = self.source.step(self.network, plan)
        return cost if budget.allows(cost) else None

    def forward_ms(self) -> float:
        """A step that trains nothing: what the first layer's own share is counted against."""
        return self.source.step_latency_ms(self.network, self.plan({}))

    def nothing_fits(self, budget: Budget) -> UserError:
        smallest = [self.plan({name: choices[-1]}) for name, choices in self.choices.items()]
        costs = [(self.source.step(self.network, plan), *plan.layers.items()) for plan in smallest]
        limits, parts = [], []
        for unit, limit, key in (
            ("ms", budget.latency_ms, lambda c: budget.upper_latency_ms(c[0])),
            ("bytes", budget.memory_bytes, lambda c: c[0].memory_bytes),
        ):
            if limit is None or limit == math.inf:
                continue
            cost, (name, layer) = min(costs, key=key)
            limits.append(f"{limit:,g} {unit}" if unit == "ms" else f"{limit:,} {unit}")
            parts.append(
                f"the least is {budget.upper_latency_ms(cost):,.6g} ms and {cost.memory_bytes:,} bytes for "
                f"{len(layer.channels)} channels of {name}"
            )
        return UserError(
            f"no plan fits a training step of {' and '.join(limits)}: {', or '.join(dict.fromkeys(parts))} "
            f"({self.source.label}, {self.template.images} image{'s' if self.template.images > 1 else ''})",
            hint="raise the budget, or take a smaller --input or fewer --images",
        )
