"""A network with its weights and one episode: what select and adapt both start from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from profiler.errors import UserError
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import Head
from tinytrain import backbones, data, episodes
from tinytrain.episodes import Episode, Task
from tinytrain.folding import fold_norms
from tinytrain.image_shape import check_image_shape
from tinytrain.images import ImageSet
from tinytrain.weights import read_npz


@dataclass(frozen=True, eq=False)
class Prepared:
    """A task made ready.

    Attributes:
        model: The torch network, normalisations folded, with its weights.
        network: Its layers.
        episode: Which images.
        task: The images themselves.
        head: Cosine to prototypes, a class a way.
        prototypes: Of the support set under ``model``, shape (ways, features), held fixed.
        data: Label of the source of images and weights.
    """

    model: nn.Module
    network: Network
    episode: Episode
    task: Task
    head: Head
    prototypes: Tensor
    data: str


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network with weights and an image set, from which any number of tasks are made ready.

    Attributes:
        model: As in :class:`Prepared`, before any task.
        network: Its layers.
        images: The set.
        data: Label of the source of images and weights.
    """

    model: nn.Module
    network: Network
    images: ImageSet
    data: str

    def ready(self, episode: Episode) -> Prepared:
        """A task of the set's, with a copy of the model that may be trained.

        Raises:
            UserError: the network's output is no feature vector.
        """
        model = copy.deepcopy(self.model)
        task = episode.load(self.images, self.network.input_shape[1:])
        features = episodes.embed(model, task.support)
        if features.dim() != 2:
            raise UserError(
                f"the network {self.network.name} gives {tuple(features.shape[1:])} an image, where a feature vector "
                "is expected",
                hint="end it in a pooling and a flattening layer",
            )
        prototypes = episodes.prototypes(features, task.support_labels, episode.ways)
        return Prepared(model, self.network, episode, task, Head(classes=episode.ways), prototypes, self.data)


def load(
    network: str,
    input_shape: tuple[int, int, int],
    *,
    data_folder: str | Path | None = None,
    weights_file: Path | None = None,
    dataset: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Loaded:
    """Load a network and an image set.

    Args:
        network: A backbone's name, or ``module:factory``, which brings its own weights.
        input_shape: Channels (3), height, width.
        data_folder: What ``--data`` said; see :func:`tinytrain.data.locate`.
        weights_file: A backbone's weights instead of the source's, as :mod:`tinytrain.weights` writes them.
        dataset: Name of the image set, or a folder with a folder of images a class; None for the source's own.
        tell: Takes lines for people.

    Raises:
        UserError: no such network or data, or weights for a network that brings its own.
    """
    check_image_shape(input_shape)
    is_backbone = network in backbones.GEOMETRIES
    if weights_file is not None and not is_backbone:
        raise UserError(
            f"weights from a file are for backbones, and {network} brings its own",
            hint=f"leave --weights out, or take one of {', '.join(backbones.GEOMETRIES)}",
            exit_status=2,
        )
    model, lowered = load_network(network, input_shape)
    source = data.locate(
        data_folder,
        network=network if is_backbone and weights_file is None else None,
        dataset=None if data.is_folder(dataset) else dataset,
        tell=tell,
    )
    images = data.image_set(source, dataset)
    pictures = data.pictures_label(source, images, dataset)
    if is_backbone:
        given = source.weights(network) if weights_file is None else read_npz(weights_file)
        model = backbones.create(network, given)
        origin = source.label if weights_file is None else str(weights_file)
        label = origin if pictures == origin else f"images: {pictures}; weights: {origin}"
    else:
        label = f"images: {pictures}; weights: those that {network} brings"
    return Loaded(fold_norms(model), lowered, images, label)


def prepare(
    network: str,
    input_shape: tuple[int, int, int],
    *,
    data_folder: str | Path | None = None,
    weights_file: Path | None = None,
    dataset: str | None = None,
    seed: int = 0,
    ways: int = 5,
    shots: int = 5,
    tell: Callable[[str], None] = lambda text: None,
) -> Prepared:
    """Load a network and draw an episode of ``ways`` classes and ``shots`` support images a class from ``seed``.

    All else as for :func:`load`.

    Raises:
        UserError: no such network, data or episode.
    """
    loaded = load(network, input_shape, data_folder=data_folder, weights_file=weights_file, dataset=dataset, tell=tell)
    return loaded.ready(episodes.draw(loaded.images, seed, ways=ways, shots=shots))
