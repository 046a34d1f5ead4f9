"""Frozen activations kept over the steps of a task.

Where images are augmented anew at every step there is nothing to keep. Where they come from a fixed pool, the tensors
between the frozen prefix and the part that trains (:class:`tinytrain.sparse.SparseNetwork`) are computed once an image.
Where several plans train on one task, its images are the same for all, and those of one frontier share the tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from profiler.workloads.network import Network
from tinytrain.episodes import Task
from tinytrain.sparse import SparseNetwork
from tinytrain.training import pseudo_query


class AugmentationPool:
    """A fixed number of augmented versions of every support image.

    Args:
        support: Shape (n, channels, height, width).
        labels: Shape (n,).
        versions: How many of each.
        seed: Of the augmentation.

    Attributes:
        images: Shape (n · versions, channels, height, width).
        labels: Of ``images``.
    """

    def __init__(self, support: Tensor, labels: Tensor, *, versions: int, seed: int) -> None:
        self.images = torch.cat([pseudo_query(support, versions * seed + version) for version in range(versions)])
        self.labels = labels.repeat(versions)
        self._support, self._versions = len(support), versions

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows of ``count`` different support images, each in a version by chance."""
        chosen = torch.randperm(self._support, generator=generator)[:count]
        return chosen + self._support * torch.randint(self._versions, (len(chosen),), generator=generator)


class PrefixCache:
    """The cut tensors of all images of a pool.

    Args:
        sparse: The network under its plan. What it trains does not change them.
        images: Shape (n, channels, height, width).
    """

    def __init__(self, sparse: SparseNetwork, images: Tensor) -> None:
        self._cut = sparse.prefix(images)

    @property
    def byte_count(self) -> int:
        """Bytes that it holds."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._cut)

    def take(self, rows: Tensor | Sequence[int] | slice) -> tuple[Tensor, ...]:
        """The cut tensors of these images, as :meth:`SparseNetwork.suffix` takes them."""
        return tuple(tensor[rows] for tensor in self._cut)


def fresh_batches(task: Task, *, count: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of a training that augments its images anew at every step: images and labels.

    Args:
        task: Of which support images are drawn.
        count: Different images of a batch; at most the support set.
        steps: How many batches.
        seed: What they follow from.
    """
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randperm(len(task.support), generator=generator)[:count]
        yield pseudo_query(task.support[chosen], seed=1000 * seed + step), task.support_labels[chosen]


class TaskActivations:
    """The batches of one task's training and its own images, and what frozen prefixes gave for them.

    Args:
        task: The task.
        count, steps, seed: See :func:`fresh_batches`.

    Attributes:
        count: Images of a batch.
        labels: Of each batch.
    """

    def __init__(self, task: Task, *, count: int, steps: int, seed: int) -> None:
        batches = list(fresh_batches(task, count=count, steps=steps, seed=seed))
        self.count, self.labels = count, [labels for _, labels in batches]
        self._images = torch.cat([*(images for images, _ in batches), task.support, task.query])
        self._trained = sum(map(len, self.labels))
        self._support = len(task.support)
        self._kept: dict[tuple, PrefixCache] = {}

    def of(self, network: Network, sparse: SparseNetwork) -> PrefixCache:
        """Of all images, for a network whose prefix has not trained.

        Args:
            network: What the model was lowered to.
            sparse: The model under its plan.
        """
        key = (network.fingerprint, sparse.cut)
        if key not in self._kept:
            self._kept[key] = PrefixCache(sparse, self._images)
        return self._kept[key]

    def batch(self, step: int) -> slice:
        """Rows of a batch."""
        return slice(step * self.count, (step + 1) * self.count)

    def features(self, kept: PrefixCache, sparse: SparseNetwork, part: int = 50) -> tuple[Tensor, Tensor]:
        """Of the support and of the query under the network as it is now, each of shape (n, features)."""
        rows = range(self._trained, len(self._images), part)
        found = torch.cat([sparse.output(kept.take(slice(r, r + part))) for r in rows])
        return found[: self._support], found[self._support :]
