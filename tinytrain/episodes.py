"""Few-shot tasks: N classes, K support images of each, and query images that the support does not show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from profiler.errors import UserError
from tinytrain import files
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

    @property
    def summary(self) -> dict[str, str | int]:
        """What it can be drawn from again, for plans' notes; ``shots`` where each class has as many."""
        shots = len(self.support) // self.ways
        return {"dataset": self.dataset, "seed": self.seed, "ways": self.ways, "shots": shots}

    @classmethod
    def from_dict(cls, record: dict) -> Episode:
        """Of what :func:`dataclasses.asdict` made, also where JSON has turned tuples into lists."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})

    def load(self, images: ImageSet, size: tuple[int, int]) -> Task:
        """Decode the images at ``size`` (height, width)."""
        return Task(
            images.tensor(self.support, size),
            torch.tensor(self.support_labels),
            images.tensor(self.query, size),
            torch.tensor(self.query_labels),
        )

    def of_features(self, features: Tensor, place: Mapping[int, int] | None = None) -> Task:
        """The task of features that were computed once for all images.

        Args:
            features: Shape (images, features).
            place: Row of each image number, where the rows are not the image numbers.
        """
        support, query = (
            [number if place is None else place[number] for number in numbers] for numbers in (self.support, self.query)
        )
        return Task(
            features[support],
            torch.tensor(self.support_labels),
            features[query],
            torch.tensor(self.query_labels),
        )


@dataclass(frozen=True, eq=False)
class Task:
    """An episode's tensors: images of shape (n, 3, height, width), labels of shape (n,)."""

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


#: Version of the episode file.
SCHEMA = 1


def save(path: Path, episodes: Sequence[Episode], images: ImageSet) -> None:
    """Write tasks of one set as JSON, so that every method is given the same ones."""
    record = {
        "schema": SCHEMA,
        "dataset": images.name,
        "fingerprint": images.fingerprint,
        "episodes": [asdict(episode) for episode in episodes],
    }
    files.write_whole(path, json.dumps(record) + "\n")


def load(path: Path, images: ImageSet) -> list[Episode]:
    """Read :func:`save`'s file.

    Raises:
        UserError: no such file, another version, or tasks of other images than ``images``.
    """
    try:
        record = json.loads(path.read_text())
        if record["schema"] != SCHEMA:
            raise UserError(
                f"{path} has episode schema {record['schema']}, this version reads {SCHEMA}", hint="draw anew"
            )
        if record["fingerprint"] != images.fingerprint:
            raise UserError(
                f"{path} has tasks of {record['dataset']} with fingerprint {record['fingerprint']}, "
                f"{images.name} has {images.fingerprint}: its images are not those that were drawn from",
                hint="take the images that they were drawn from, or draw anew",
            )
        return [Episode.from_dict(episode) for episode in record["episodes"]]
    except OSError as error:
        raise UserError(f"cannot read the episodes {path}: {error.strerror}", hint="look for the file") from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        said = error if isinstance(error, ValueError) else repr(error)
        raise UserError(f"{path} is no file of episodes: {said}", hint="draw anew") from None


def draw(
    images: ImageSet,
    seed: int,
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    classes: Sequence[int] | None = None,
) -> Episode:
    """Draw a task of ``ways`` classes, ``shots`` support and up to ``queries`` query images of each.

    Where the set has groups, each half of a class's groups goes to one side, a little more to the support where a half
    has too few images. ``classes`` are the class numbers to draw from, by default all that have images.

    Raises:
        UserError: the set has too few classes, or a class too few images.
    """
    present = images.classes() if classes is None else np.asarray(classes)
    if not 2 <= ways <= len(present) or shots < 1 or queries < 1:
        raise UserError(
            f"a task of {ways} ways and {shots} shots cannot be drawn from the {len(present)} classes of {images.name}",
            hint=f"give --ways 2 to {len(present)} and --shots of at least 1",
        )
    rng = np.random.default_rng(seed)
    chosen = rng.choice(present, ways, replace=False)
    support, query, support_labels, query_labels = [], [], [], []
    for label, number in enumerate(chosen):
        members = rng.permutation(np.flatnonzero(images.labels == number))
        if images.groups is None:
            taken, rest = members[:shots], members[shots:]
        else:
            taken, rest = _split_groups(members, images.groups[members], shots, rng)
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
        tuple(chosen.tolist()),
        tuple(support),
        tuple(query),
        tuple(support_labels),
        tuple(query_labels),
    )


def _split_groups(
    members: np.ndarray, groups: np.ndarray, shots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Support of ``shots`` images from one half of the groups, and all images of the other half.

    Images are drawn from their half whatever their group. Drawn from as many groups as possible instead, the support
    shows more than its number of shots says: on GTSRB three points of accuracy at five shots.
    """
    order = rng.permutation(np.unique(groups))
    count = len(order) // 2
    while count < len(order) - 1 and np.isin(groups, order[:count]).sum() < shots:
        count += 1
    own = np.isin(groups, order[:count])
    return members[own][:shots], members[~own]


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
    if images.dim() == 4:  # on a CPU, depthwise convolutions take half the time so
        images = images.contiguous(memory_format=torch.channels_last)
    return torch.cat([model(part) for part in images.split(batch)])


def accuracy(model: nn.Module, task: Task, ways: int) -> float:
    """Share of the query that lies nearest, by cosine, to its own class's prototype under ``model``."""
    return feature_accuracy(embed(model, task.support), embed(model, task.query), task, ways)


def feature_accuracy(support: Tensor, query: Tensor, task: Task, ways: int) -> float:
    """As :func:`accuracy`, of features of shape (n, features)."""
    own = prototypes(support, task.support_labels, ways)
    nearest = (nn.functional.normalize(query, dim=1) @ own.T).argmax(1)
    return float((nearest == task.query_labels).float().mean())
