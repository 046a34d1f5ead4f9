"""A task learnt in torch with a plan: the query's accuracy before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch

from profiler.workloads.plan import StepPlan
from tinytrain import episodes
from tinytrain.tasks import Prepared
from tinytrain.training import apply_plan, pseudo_query


@dataclass(frozen=True)
class Adaptation:
    """What training did.

    Attributes:
        steps: Training steps.
        trained_parameters: Weights and biases that moved.
        first_loss: Mean loss of the first batch, before any update.
        last_loss: Mean loss of the last batch, before its update.
        accuracy_before_percent: Of the query, nearest prototype by cosine.
        accuracy_after_percent: The same, with prototypes of the trained network.
    """

    steps: int
    trained_parameters: int
    first_loss: float
    last_loss: float
    accuracy_before_percent: float
    accuracy_after_percent: float

    def to_dict(self) -> dict:
        return asdict(self)


def adapt(
    ready: Prepared,
    plan: StepPlan,
    *,
    steps: int,
    learning_rate: float | None = None,
    images: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Adaptation:
    """Train ``ready.model`` in place; every step's batch is drawn from the support set and augmented anew.

    Args:
        ready: The task.
        plan: What trains.
        steps: How often.
        learning_rate: Instead of the plan's.
        images: Images a step, instead of the plan's; at most the support set.
        advance: Called after every step.
    """
    ways = ready.episode.ways
    before = episodes.accuracy(ready.model, ready.task, ways)
    if learning_rate is not None:
        plan = replace(plan, learning_rate=learning_rate)
    trainer = apply_plan(ready.model, ready.network, plan)
    support, labels = ready.task.support, ready.task.support_labels
    count = min(images or plan.images, len(support))
    generator = torch.Generator().manual_seed(ready.episode.seed)
    losses = []
    for step in range(steps):
        chosen = torch.randperm(len(support), generator=generator)[:count]
        batch = pseudo_query(support[chosen], seed=1000 * ready.episode.seed + step)
        losses.append(trainer.step(batch, labels[chosen], ready.prototypes))
        advance()
    after = episodes.accuracy(ready.model, ready.task, ways)
    return Adaptation(steps, trainer.trained_parameters, losses[0], losses[-1], 100 * before, 100 * after)
