"""Accuracy of frozen features: what a loader and a backbone are checked by before anything is trained.

Features of a whole image set are computed once, so that any number of episodes costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tinytrain import episodes
from tinytrain.images import ImageSet


def all_features(
    model: nn.Module,
    images: ImageSet,
    size: tuple[int, int],
    *,
    batch: int = 50,
    advance: Callable[[], None] = lambda: None,
) -> Tensor:
    """Features of every image, shape (images, features).

    Args:
        model: The backbone.
        images: The set.
        size: Height and width.
        batch: Images that are decoded at once; changes memory, not the result.
        advance: Called after every batch.
    """
    parts = []
    for numbers in np.array_split(np.arange(len(images)), max(1, -(-len(images) // batch))):
        parts.append(episodes.embed(model, images.tensor(numbers, size), batch))
        advance()
    return torch.cat(parts)


def accuracies_percent(
    features: Tensor, images: ImageSet, *, episodes_count: int, ways: int = 5, shots: int = 5, queries: int = 15
) -> np.ndarray:
    """Nearest-prototype accuracy of episodes of seeds 0, 1, ..., shape (episodes_count,).

    Args:
        features: Of :func:`all_features`.
        images: The set.
        episodes_count: How many.
        ways, shots, queries: See :func:`tinytrain.episodes.draw`.
    """
    identity, found = nn.Identity(), []
    for seed in range(episodes_count):
        episode = episodes.draw(images, seed, ways=ways, shots=shots, queries=queries)
        found.append(100 * episodes.accuracy(identity, episode.of_features(features), ways))
    return np.array(found)
