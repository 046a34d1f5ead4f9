"""Tasks of many ways and uneven shots, as Meta-Dataset draws them (arXiv 1903.03096, section 3.2 and appendix A).

Ways are uniform from 5 to 50. Every class gives the same number of query images, at most ten and at most half of its
smallest class. The size of the support set is drawn from the sizes of the classes and capped, and divided among them
in proportion to their sizes, each multiplied by exp(α), α uniform from log 1/2 to log 2.

Which ways, which shots and which images follow from the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from profiler.errors import UserError
from tinytrain.episodes import Episode
from tinytrain.images import ImageSet


@dataclass(frozen=True)
class MetaDataset:
    """How tasks are drawn.

    Attributes:
        min_ways: Fewest classes of a task.
        max_ways: Most classes; fewer where the set has fewer.
        max_support: Most support images (Meta-Dataset: 500).
        max_class_support: What a class counts for in the size of the support set, at most (100).
        max_class_queries: Query images a class, at most (10).
        max_queries: Query images of the whole task, at most; None for no limit.
    """

    min_ways: int = 5
    max_ways: int = 50
    max_support: int = 500
    max_class_support: int = 100
    max_class_queries: int = 10
    max_queries: int | None = None

    def draw(self, images: ImageSet, seed: int, *, classes: Sequence[int] | None = None) -> Episode:
        """One task.

        Args:
            images: The set. Where it has groups, a group's images go to one side only.
            seed: What the task follows from.
            classes: Class numbers to draw from; by default all that have images.

        Raises:
            UserError: too few classes, or a class with fewer than two images (or groups, where there are any).
        """
        rng = np.random.default_rng(seed)
        present = np.asarray(images.classes() if classes is None else classes)
        most = min(self.max_ways, len(present), self.max_support, self.max_queries or len(present))
        if not 2 <= self.min_ways <= most:
            raise UserError(
                f"tasks of {self.min_ways} to {self.max_ways} ways cannot be drawn from the {len(present)} classes of "
                f"{images.name}",
                hint=f"ask for 2 to {most} ways",
            )
        chosen = rng.choice(present, int(rng.integers(self.min_ways, most + 1)), replace=False)
        members = [rng.permutation(np.flatnonzero(images.labels == number)) for number in chosen]
        queries = self._queries([len(m) for m in members])
        sides = [_sides(images, m, queries, number) for m, number in zip(members, chosen, strict=True)]
        shots = self._shots(rng, [len(m) for m in members], queries, [len(rest) for _, rest in sides])
        support = [rest[:count].tolist() for (_, rest), count in zip(sides, shots, strict=True)]
        query = [side.tolist() for side, _ in sides]
        return Episode(
            images.name,
            seed,
            tuple(chosen.tolist()),
            tuple(chain.from_iterable(support)),
            tuple(chain.from_iterable(query)),
            tuple(label for label, numbers in enumerate(support) for _ in numbers),
            tuple(label for label, numbers in enumerate(query) for _ in numbers),
        )

    def _queries(self, sizes: Sequence[int]) -> int:
        share = math.inf if self.max_queries is None else self.max_queries // len(sizes)
        return max(1, min(self.max_class_queries, min(sizes) // 2, share))

    def _shots(
        self, rng: np.random.Generator, sizes: Sequence[int], queries: int, left: Sequence[int]
    ) -> tuple[int, ...]:
        ways = len(sizes)
        share = 1 - rng.random()  # above 0, at most 1
        counted = sum(math.ceil(share * min(self.max_class_support, size - queries)) for size in sizes)
        support = min(self.max_support, counted)
        weights = np.exp(rng.uniform(math.log(0.5), math.log(2), ways)) * sizes
        shares = weights / weights.sum()
        return tuple(min(int(shares[c] * (support - ways)) + 1, left[c]) for c in range(ways))


def _sides(images: ImageSet, members: np.ndarray, queries: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Query images of a class, and those that the support may be taken from."""
    groups = None if images.groups is None else images.groups[members]
    if len(members) < 2 or (groups is not None and len(np.unique(groups)) < 2):
        raise UserError(
            f"class {images.class_names[number]!r} of {images.name} has "
            f"{'one image' if groups is None else 'images of one group'}, which cannot be both support and query",
            hint="leave the class out",
        )
    if groups is None:
        return members[:queries], members[queries:]
    asked = np.zeros(len(members), bool)
    for group in list(dict.fromkeys(groups.tolist()))[:-1]:  # one group at least is left for the support
        if asked.sum() >= queries:
            break
        asked |= groups == group
    return members[asked][:queries], members[~asked]
