"""A task learnt in torch with a plan: the query's accuracy before and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch

from profiler.workloads.plan import StepPlan
from tinytrain import episodes
from tinytrain.cache import AugmentationPool, PrefixCache
from tinytrain.delta import Delta, weights_hash
from tinytrain.tasks import Prepared
from tinytrain.training import apply_plan, pseudo_query


@dataclass(frozen=True)
class Adaptation:
    """What training did.

    Attributes:
        steps: Training steps.
        trained_parameters: Weights and biases that moved.
        first_loss: Mean loss of the first batch, before any update; NaN without a step.
        last_loss: Mean loss of the last batch, before its update; NaN without a step.
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
    pool: int | None = None,
    cache: bool = True,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Adaptation, Delta]:
    """Train ``ready.model`` in place.

    Args:
        ready: The task.
        plan: What trains; nothing at all where it has no layers.
        steps: How often.
        learning_rate: Instead of the plan's.
        images: Images a step, instead of the plan's; at most the support set.
        pool: Augmented versions of every support image that batches are drawn from; None augments every batch anew.
        cache: Keep the frozen activations of a pool instead of computing them at every step; changes the time, not
            the result.
        advance: Called after every step.

    Returns:
        What training did, and the changed values.
    """
    ways = ready.episode.ways
    before = episodes.accuracy(ready.model, ready.task, ways)
    if learning_rate is not None:
        plan = replace(plan, learning_rate=learning_rate)
    base = weights_hash(ready.model)
    trainer = apply_plan(ready.model, ready.network, plan)
    support, labels = ready.task.support, ready.task.support_labels
    count = min(images or plan.images, len(support))
    seed = ready.episode.seed
    generator = torch.Generator().manual_seed(seed)
    versions = None if pool is None else AugmentationPool(support, labels, versions=pool, seed=seed)
    kept = PrefixCache(trainer.sparse, versions.images) if versions is not None and cache and trainer.trained else None
    losses = []
    for step in range(steps if trainer.trained else 0):
        if versions is not None:
            rows = versions.draw(count, generator)
            cut = trainer.sparse.prefix(versions.images[rows]) if kept is None else kept.take(rows)
            losses.append(trainer.step_from(cut, versions.labels[rows], ready.prototypes))
        else:
            chosen = torch.randperm(len(support), generator=generator)[:count]
            batch = pseudo_query(support[chosen], seed=1000 * seed + step)
            losses.append(trainer.step(batch, labels[chosen], ready.prototypes))
        advance()
    after = episodes.accuracy(ready.model, ready.task, ways) if trainer.trained else before
    first, last = (losses[0], losses[-1]) if losses else (math.nan, math.nan)
    done = Adaptation(len(losses), trainer.trained_parameters, first, last, 100 * before, 100 * after)
    return done, Delta.of(trainer, base)
