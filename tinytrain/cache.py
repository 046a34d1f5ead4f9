"""Frozen activations kept over the steps of a task.

Where images are augmented anew at every step there is nothing to keep. Where they come from a fixed pool, the tensors
between the frozen prefix and the part that trains (:class:`tinytrain.sparse.SparseNetwork`) are computed once an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
        batch: Images a pass; changes memory, not the result.
    """

    def __init__(self, sparse: SparseNetwork, images: Tensor, batch: int = 25) -> None:
        parts = [sparse.prefix(part) for part in images.split(batch)]
        self._cut = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    @property
    def byte_count(self) -> int:
        """Bytes that it holds."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._cut)

    def take(self, rows: Tensor | Sequence[int]) -> tuple[Tensor, ...]:
        """The cut tensors of these images, as :meth:`SparseNetwork.suffix` takes them."""
        return tuple(tensor[rows] for tensor in self._cut)
