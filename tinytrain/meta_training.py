"""Meta-training: a backbone learns from episodes of a generic set to give features that prototypes separate.

ProtoNet (arXiv 1703.05175) with the cosine in place of the distance: an episode's prototypes come from its support,
its query is classified by softmax over ``scale`` times the cosine to them, and the gradient of that loss flows through
both. Every class, image and augmentation of episode i follows from the seed and i alone, so that a training that was
killed goes on from its last checkpoint as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from profiler.errors import UserError
from tinytrain import episodes, files, meta_files
from tinytrain.backbones import Backbone, create
from tinytrain.episodes import Episode
from tinytrain.images import ImageSet
from tinytrain.norms import with_norms, without_norms
from tinytrain.sampling import MetaDataset

SCALE = 10.0
#: Validation: tasks of so many ways and shots, the same at every time.
VALIDATION_WAYS, VALIDATION_SHOTS, VALIDATION_EPISODES = 5, 5, 300


@dataclass(frozen=True)
class MetaSettings:
    """What a meta-training follows from; a checkpoint goes on only under the same.

    Attributes:
        network: A backbone's name.
        start: ``pretrained`` (weights that are given) or ``nothing`` (random weights, with batch normalisation that
            is folded away at the end).
        size: Height and width of the images.
        episodes: How many.
        min_ways: Fewest classes of an episode.
        max_ways: Most classes.
        max_support: Most support images of an episode.
        max_queries: Most query images of an episode.
        learning_rate: At its height; it rises over the first twentieth and falls to nothing as a cosine.
        weight_decay: Of AdamW.
        validate_every: Episodes between validations.
        seed: Of everything.
    """

    network: str = "mcunet-5fps"
    start: Literal["pretrained", "nothing"] = "pretrained"
    size: int = 84
    episodes: int = 2000
    min_ways: int = 5
    max_ways: int = 20
    max_support: int = 60
    max_queries: int = 60
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    validate_every: int = 200
    seed: int = 0


@dataclass(frozen=True)
class Validation:
    """Accuracy of frozen features on the validation classes, in percent, with its 95 % half-interval over tasks."""

    episode: int
    accuracy_percent: float
    half_interval: float


class MetaTraining:
    """A meta-training that can be left at any episode and gone on with.

    Args:
        settings: What it follows from.
        images: The set, see :func:`parts`.
        weights: Of the backbone, where it starts ``pretrained``.

    Attributes:
        train_classes: Class numbers that episodes are drawn from.
        validation_classes: Class numbers that accuracy is validated on.
        done: Episodes trained.
        history: Validations so far; the first is that of the start.
        smoothed_loss: Running mean of the episodes' losses, NaN before the first.

    Raises:
        UserError: no such backbone, other weights than its own, or a set that such episodes cannot be drawn from.
    """

    def __init__(self, settings: MetaSettings, images: ImageSet, weights: dict[str, Tensor] | None = None) -> None:
        if (settings.start == "pretrained") != (weights is not None):
            raise ValueError("weights go with start='pretrained' and with nothing else")
        self.settings, self.images = settings, images
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = create(settings.network, weights)
            self.model: Backbone = model if weights is not None else with_norms(model)
        # Twice as fast on processors as torch's own layout.
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.sampler = MetaDataset(
            settings.min_ways, settings.max_ways, settings.max_support, max_queries=settings.max_queries
        )
        self.train_classes, self.validation_classes = parts(images)
        self.sampler.draw(images, 0, classes=self.train_classes)  # such tasks can be drawn, and it is told at once
        self.done, self.history, self.smoothed_loss = 0, [], math.nan

    def run(
        self,
        checkpoint: Path,
        *,
        checkpoint_every: int = 50,
        advance: Callable[[str], None] = lambda note: None,
        told: Callable[[Validation], None] = lambda validation: None,
    ) -> None:
        """Train what is left, with a checkpoint every so many episodes and after every validation.

        Args:
            checkpoint: Where it goes; gone on from where it exists.
            checkpoint_every: Episodes between checkpoints.
            advance: Called after every episode with a note for people.
            told: Called with every validation.

        Raises:
            UserError: the checkpoint is damaged or was made under other settings.
        """
        if checkpoint.exists():
            self.restore(meta_files.read_checkpoint(checkpoint))
        if not self.history:
            self.history.append(self.validate())
            told(self.history[-1])
        while self.done < self.settings.episodes:
            self.train_episode()
            advance(f"loss {self.smoothed_loss:.3f}")
            at_validation = self.done % self.settings.validate_every == 0 or self.done == self.settings.episodes
            if at_validation:
                self.history.append(self.validate())
                told(self.history[-1])
            if at_validation or self.done % checkpoint_every == 0:
                meta_files.write_checkpoint(checkpoint, self.record())

    def train_episode(self) -> float:
        """One episode and one step of the optimiser; returns the loss before it."""
        episode = self.sampler.draw(self.images, self._seed(), classes=self.train_classes)
        support, query = self._inputs(episode)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self._rate()
        self.model.train(self.settings.start == "nothing").requires_grad_(True)
        loss = episode_loss(self.model, episode, support, query)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.done += 1
        value = loss.item()
        self.smoothed_loss = value if math.isnan(self.smoothed_loss) else 0.98 * self.smoothed_loss + 0.02 * value
        return value

    def backbone(self) -> Backbone:
        """The network as it stands, without batch normalisations, in evaluation mode."""
        plain = self.model if self.settings.start == "pretrained" else without_norms(self.model)
        return plain.eval()

    def validate(self) -> Validation:
        """Accuracy of the features as they stand on the validation classes."""
        model = self.backbone().to(memory_format=torch.channels_last)
        numbers = np.flatnonzero(np.isin(self.images.labels, self.validation_classes))
        size = (self.settings.size, self.settings.size)
        features = torch.cat([episodes.embed(model, self._load(part, size)) for part in np.array_split(numbers, 64)])
        place = {int(number): index for index, number in enumerate(numbers)}
        ways = min(VALIDATION_WAYS, len(self.validation_classes))
        accuracies = []
        for seed in range(VALIDATION_EPISODES):
            drawn = episodes.draw(self.images, seed, ways=ways, shots=VALIDATION_SHOTS, classes=self.validation_classes)
            accuracies.append(100 * episodes.accuracy(nn.Identity(), drawn.of_features(features, place), ways))
        half = 1.96 * float(np.std(accuracies, ddof=1)) / VALIDATION_EPISODES**0.5
        return Validation(self.done, float(np.mean(accuracies)), half)

    def record(self) -> dict:
        """What :meth:`restore` takes."""
        return {
            "settings": asdict(self.settings),
            "images": self.images.fingerprint,
            "done": self.done,
            "history": [asdict(v) for v in self.history],
            "smoothed_loss": self.smoothed_loss,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, record: dict) -> None:
        """Go on from :meth:`record`'s state.

        Raises:
            UserError: it was made under other settings or with other images, or is damaged.
        """
        own = asdict(self.settings)
        changed = [key for key in own if record["settings"].get(key) != own[key]]
        if changed or record["images"] != self.images.fingerprint:
            what = ", ".join(f"{key} {record['settings'].get(key)}, not {own[key]}" for key in changed)
            raise UserError(
                f"the checkpoint was made with {what or 'other images'}",
                hint="give the same options to go on, or another --out to start anew",
            )
        try:
            self.model.load_state_dict(record["model"])
            self.optimizer.load_state_dict(record["optimizer"])
            self.done, self.smoothed_loss = int(record["done"]), float(record["smoothed_loss"])
            self.history = [Validation(**validation) for validation in record["history"]]
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(
                f"the checkpoint is damaged ({files.reason(error)})", hint="move it away to start anew"
            ) from None

    def _seed(self) -> int:
        return int(np.random.SeedSequence([self.settings.seed, self.done]).generate_state(1)[0])

    def _rate(self) -> float:
        share = (self.done + 1) / self.settings.episodes
        return min(1.0, share / 0.05) * 0.5 * (1 + math.cos(math.pi * share))

    def _inputs(self, episode: Episode) -> tuple[Tensor, Tensor]:
        size = (self.settings.size, self.settings.size)
        pixels = self._load((*episode.support, *episode.query), size)
        changed = augmented(pixels, torch.Generator().manual_seed(episode.seed))
        return changed[: len(episode.support)], changed[len(episode.support) :]

    def _load(self, numbers: np.ndarray | tuple[int, ...], size: tuple[int, int]) -> Tensor:
        return self.images.tensor(numbers, size).contiguous(memory_format=torch.channels_last)


def parts(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers for training and for validation: the set's own parts, else every fifth class validates.

    Raises:
        UserError: there are not two classes for either.
    """
    if images.splits is not None:
        train, validation = images.classes("train"), images.classes("val")
    else:
        present = images.classes()
        held_out = np.arange(len(present)) % 5 == 4
        train, validation = present[~held_out], present[held_out]
    if min(len(train), len(validation)) < 2:
        raise UserError(
            f"{images.name} has {len(train)} classes to train and {len(validation)} to validate with",
            hint="take a set of ten classes at least",
        )
    return train, validation


def episode_loss(model: nn.Module, episode: Episode, support: Tensor, query: Tensor) -> Tensor:
    """Mean cross-entropy of the query, with prototypes of the support that take part in the gradient."""
    features = model(torch.cat([support, query]))
    labels = torch.tensor(episode.support_labels)
    prototypes = episodes.prototypes(features[: len(support)], labels, episode.ways)
    unit = nn.functional.normalize(features[len(support) :], dim=1)
    return nn.functional.cross_entropy(SCALE * unit @ prototypes.T, torch.tensor(episode.query_labels))


def augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Images mirrored half of the time, moved by up to an eighth, brighter or darker and of other contrast."""
    count, _, height, width = pixels.shape
    mirrored = torch.rand(count, generator=generator) < 0.5
    shift = (torch.rand(count, 2, generator=generator) - 0.5) * 0.5
    scale = 1 - 0.2 * torch.rand(count, generator=generator)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(mirrored, -scale, scale), scale
    theta[:, :, 2] = shift * 0.5
    grid = nn.functional.affine_grid(theta, [count, 3, height, width], align_corners=False)
    moved = nn.functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)
    contrast = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    brightness = 0.3 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    changed = (moved * contrast + brightness).clamp(-1, 1)
    return changed.contiguous(memory_format=torch.channels_last)
