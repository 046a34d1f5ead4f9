"""Few-shot tasks: N classes, K support images of each, and query images that the support does not show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from profiler.errors import UserError
from tinytrain.images import ImageSet


@dataclass(frozen=True)
class Episode:
    """One task, by image numbers of its set, so that every method can be given the same.

    Attributes:
        dataset: Name of the image set.
        seed: What it was drawn with.
        classes: Class numbers of the set, in the order of the task's labels 0, 1, ...
        support: Image numbers, ``shots`` of each class in turn.
        query: Image numbers, class by class.
        support_labels: Task labels of ``support``.
        query_labels: Task labels of ``query``.
    """

    dataset: str
    seed: int
    classes: tuple[int, ...]
    support: tuple[int, ...]
    query: tuple[int, ...]
    support_labels: tuple[int, ...]
    query_labels: tuple[int, ...]

    @property
    def ways(self) -> int:
        return len(self.classes)

    def load(self, images: ImageSet, size: tuple[int, int]) -> Task:
        """Decode the images at ``size`` (height, width)."""
        return Task(
            images.tensor(self.support, size),
            torch.tensor(self.support_labels),
            images.tensor(self.query, size),
            torch.tensor(self.query_labels),
        )


@dataclass(frozen=True, eq=False)
class Task:
    """An episode's tensors: images of shape (n, 3, height, width), labels of shape (n,)."""

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


def draw(images: ImageSet, seed: int, *, ways: int = 5, shots: int = 5, queries: int = 15) -> Episode:
    """Draw a task of ``ways`` classes, ``shots`` support and up to ``queries`` query images of each.

    Where the set has groups, a group's images go to one side only, and each shot comes from a group of its own as
    long as there are groups left.

    Raises:
        UserError: the set has too few classes, or a class too few images.
    """
    present = np.unique(images.labels)
    if not 2 <= ways <= len(present) or shots < 1 or queries < 1:
        raise UserError(
            f"a task of {ways} ways and {shots} shots cannot be drawn from the {len(present)} classes of {images.name}",
            hint=f"give --ways 2 to {len(present)} and --shots of at least 1",
        )
    rng = np.random.default_rng(seed)
    classes = rng.choice(present, ways, replace=False)
    support, query, support_labels, query_labels = [], [], [], []
    for label, number in enumerate(classes):
        members = rng.permutation(np.flatnonzero(images.labels == number))
        if images.groups is None:
            taken, rest = members[:shots], members[shots:]
        else:
            taken, rest = _split_groups(members, images.groups[members], shots)
        if len(taken) < shots or not len(rest):
            raise UserError(
                f"class {images.class_names[number]!r} of {images.name} has too few images for {shots} shots and a "
                f"query ({len(members)} images)",
                hint="give fewer --shots",
            )
        rest = rest[:queries]
        support += taken.tolist()
        query += rest.tolist()
        support_labels += [label] * len(taken)
        query_labels += [label] * len(rest)
    return Episode(
        images.name,
        seed,
        tuple(classes.tolist()),
        tuple(support),
        tuple(query),
        tuple(support_labels),
        tuple(query_labels),
    )


def _split_groups(members: np.ndarray, groups: np.ndarray, shots: int) -> tuple[np.ndarray, np.ndarray]:
    """Support of ``shots`` images and everything of the groups that it leaves untouched."""
    by_group = {group: members[groups == group] for group in dict.fromkeys(groups.tolist())}
    order = list(by_group)
    # At least one group is left for the query; fewer groups than shots fill up with further images of their own.
    chosen = order[: min(shots, len(order) - 1)]
    taken = [image for images in _round_robin([by_group[group] for group in chosen]) for image in images]
    rest = [image for group in order[len(chosen) :] for image in by_group[group]]
    return np.array(taken[:shots], dtype=int), np.array(rest, dtype=int)


def _round_robin(lists: list[np.ndarray]) -> list[list[int]]:
    """First image of every group, then every second one, and so on."""
    longest = max(map(len, lists), default=0)
    return [[int(images[i]) for images in lists if i < len(images)] for i in range(longest)]


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Unit-length class prototypes: the normalised mean of the class's normalised support features.

    Args:
        features: Shape (n, features).
        labels: Task labels, shape (n,).
        ways: Number of classes; each needs an image.

    Returns:
        Shape (ways, features).
    """
    unit = nn.functional.normalize(features, dim=1)
    means = torch.stack([unit[labels == way].mean(0) for way in range(ways)])
    return nn.functional.normalize(means, dim=1)


@torch.no_grad()
def embed(model: nn.Module, images: Tensor, batch: int = 50) -> Tensor:
    """Features of images, shape (n, features), without gradients."""
    return torch.cat([model(part) for part in images.split(batch)])


def accuracy(model: nn.Module, task: Task, ways: int) -> float:
    """Share of the query that lies nearest, by cosine, to its own class's prototype under ``model``."""
    own = prototypes(embed(model, task.support), task.support_labels, ways)
    nearest = (nn.functional.normalize(embed(model, task.query), dim=1) @ own.T).argmax(1)
    return float((nearest == task.query_labels).float().mean())
