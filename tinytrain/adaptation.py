"""A task learnt in torch with a plan: the query's accuracy before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from profiler.errors import UserError
from profiler.workloads.head import HEAD_KINDS
from profiler.workloads.plan import StepPlan
from tinytrain import episodes
from tinytrain.cache import AugmentationPool, PrefixCache, TaskActivations, fresh_batches
from tinytrain.delta import Delta, weights_hash
from tinytrain.sparse import SparseNetwork
from tinytrain.tasks import Prepared
from tinytrain.training import SparseTrainer, apply_plan


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
    shared: TaskActivations | None = None,
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
        shared: Batches of this task and what frozen activations other plans have left of them; without a pool.
        advance: Called after every step.

    Returns:
        What training did, and the changed values.

    Raises:
        UserError: the plan is for another network, or its head is none that this task has a loss by.
    """
    head, features = plan.head, ready.prototypes.shape[1]
    if head.kind not in HEAD_KINDS or (head.kind == "cross_entropy" and features < ready.episode.ways):
        raise UserError(
            f"the plan's head {head.kind!r} gives no loss of {ready.episode.ways} classes from {features} outputs",
            hint="select a new plan for this network and task",
        )
    if learning_rate is not None:
        plan = replace(plan, learning_rate=learning_rate)
    base = weights_hash(ready.model)
    trainer = apply_plan(ready.model, ready.network, plan)
    steps = steps if trainer.trained else 0
    if shared is not None:
        losses, before, after = _train_shared(trainer, ready, shared, steps, advance)
    else:
        before = episodes.accuracy(ready.model, ready.task, ready.episode.ways)
        count = min(images or plan.images, len(ready.task.support))
        batches = _batches(trainer.sparse, ready, count, steps, pool, cache=cache)
        losses = []
        for cut, labels in batches:
            losses.append(trainer.step_from(cut, labels, ready.prototypes))
            advance()
        after = episodes.accuracy(ready.model, ready.task, ready.episode.ways) if trainer.trained else before
    first, last = (losses[0], losses[-1]) if losses else (math.nan, math.nan)
    done = Adaptation(len(losses), trainer.trained_parameters, first, last, 100 * before, 100 * after)
    return done, Delta.of(trainer, base)


def _batches(
    sparse: SparseNetwork, ready: Prepared, count: int, steps: int, pool: int | None, *, cache: bool
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Cut tensors and labels of every step's batch."""
    task, seed = ready.task, ready.episode.seed
    if pool is None:
        for images, labels in fresh_batches(task, count=count, steps=steps, seed=seed):
            yield sparse.prefix(images), labels
        return
    generator = torch.Generator().manual_seed(seed)
    versions = AugmentationPool(task.support, task.support_labels, versions=pool, seed=seed)
    kept = PrefixCache(sparse, versions.images) if cache and steps else None
    for _ in range(steps):
        rows = versions.draw(count, generator)
        yield sparse.prefix(versions.images[rows]) if kept is None else kept.take(rows), versions.labels[rows]


def _train_shared(
    trainer: SparseTrainer, ready: Prepared, shared: TaskActivations, steps: int, advance: Callable[[], None]
) -> tuple[list[float], float, float]:
    """Losses of the steps, and the query's accuracy before and after."""
    kept, losses = shared.of(ready.network, trainer.sparse), []

    def accuracy() -> float:
        return episodes.feature_accuracy(*shared.features(kept, trainer.sparse), ready.task, ready.episode.ways)

    before = accuracy()
    for step in range(steps):
        losses.append(trainer.step_from(kept.take(shared.batch(step)), shared.labels[step], ready.prototypes))
        advance()
    return losses, before, accuracy() if trainer.trained else before
