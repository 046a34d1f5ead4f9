"""The three backbones of the paper as plain torch modules: geometry here, weights from files.

Inverted-residual networks whose batch normalisation is folded into their convolutions. Every convolution has a bias;
ReLU6 follows the first, every ``pointwise1`` and every ``depthwise`` convolution, and nothing follows ``pointwise2``.
The output is the feature vector: the mean of the last block's map over its positions.

Layers are named by module path: ``first_conv``, ``blocks.3.pointwise1``, ``blocks.3.depthwise``,
``blocks.3.pointwise2``. Published schemes number the same convolutions in one flat list in which ``first_conv`` is 0
and block 0, which has no ``pointwise1``, holds 1 and 2; :func:`flat_index` and :func:`layer_of_index` translate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from profiler.errors import UserError


@dataclass(frozen=True)
class BlockGeometry:
    """One inverted-residual block; it has a residual connection where its input and output have the same shape.

    Attributes:
        expansion: Channels between ``pointwise1`` and ``pointwise2``; 0 where there is no ``pointwise1``.
        kernel: Extent of the depthwise kernel, zero padded by half of it.
        stride: Of the depthwise convolution.
        out_channels: Channels of the block's output.
    """

    expansion: int
    kernel: int
    stride: int
    out_channels: int


#: Output channels of the first convolution (3×3, stride 2) of every backbone.
FIRST_CHANNELS = 16

#: Read from the published weight files, which are checked against it when they are loaded.
GEOMETRIES: dict[str, tuple[BlockGeometry, ...]] = {
    name: tuple(BlockGeometry(*row) for row in rows)
    for name, rows in {
        "mcunet-5fps": (
            (0, 3, 1, 8),
            (32, 3, 2, 16),
            (48, 3, 1, 16),
            (48, 7, 2, 24),
            (120, 3, 1, 24),
            (120, 3, 2, 40),
            (160, 7, 1, 40),
            (160, 5, 1, 48),
            (144, 3, 1, 48),
            (192, 3, 1, 48),
            (240, 7, 2, 96),
            (384, 5, 1, 96),
            (384, 5, 1, 96),
            (576, 3, 1, 160),
        ),
        "mbv2-w0.35": (
            (0, 3, 1, 8),
            (48, 3, 2, 8),
            (48, 3, 1, 8),
            (48, 3, 2, 16),
            *((96, 3, 1, 16),) * 2,
            (96, 3, 2, 24),
            *((144, 3, 1, 24),) * 3,
            (144, 3, 1, 32),
            *((192, 3, 1, 32),) * 2,
            (192, 3, 2, 56),
            *((336, 3, 1, 56),) * 2,
            (336, 3, 1, 112),
        ),
        "proxyless-w0.3": (
            (0, 3, 1, 8),
            (24, 5, 2, 16),
            (48, 3, 1, 16),
            (48, 7, 2, 16),
            (48, 3, 1, 16),
            *((48, 5, 1, 16),) * 2,
            (96, 7, 2, 24),
            *((72, 5, 1, 24),) * 3,
            (144, 5, 1, 32),
            *((96, 5, 1, 32),) * 3,
            (192, 7, 2, 64),
            (384, 7, 1, 64),
            *((192, 7, 1, 64),) * 2,
            (384, 7, 1, 96),
        ),
    }.items()
}


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, linear pointwise projection; plus the input where shapes agree."""

    def __init__(self, in_channels: int, geometry: BlockGeometry) -> None:
        super().__init__()
        hidden = geometry.expansion or in_channels
        if geometry.expansion:
            self.pointwise1 = nn.Conv2d(in_channels, hidden, 1)
            self.pointwise1_relu = nn.ReLU6()
        self.depthwise = nn.Conv2d(
            hidden, hidden, geometry.kernel, geometry.stride, padding=geometry.kernel // 2, groups=hidden
        )
        self.depthwise_relu = nn.ReLU6()
        self.pointwise2 = nn.Conv2d(hidden, geometry.out_channels, 1)
        self.expands = bool(geometry.expansion)
        self.residual = geometry.stride == 1 and in_channels == geometry.out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise1_relu(self.pointwise1(x)) if self.expands else x
        y = self.pointwise2(self.depthwise_relu(self.depthwise(y)))
        return x + y if self.residual else y


class Backbone(nn.Module):
    """One of the backbones: images to features.

    Args:
        name: A key of :data:`GEOMETRIES`.
        classes: Add a classifier of so many classes over the features; 0 for none.

    Attributes:
        name: As given.
        features: Length of the feature vector.
    """

    def __init__(self, name: str, *, classes: int = 0) -> None:
        super().__init__()
        self.name = name
        self.first_conv = nn.Conv2d(3, FIRST_CHANNELS, 3, 2, padding=1)
        self.first_conv_relu = nn.ReLU6()
        blocks, channels = [], FIRST_CHANNELS
        for geometry in GEOMETRIES[name]:
            blocks.append(InvertedResidual(channels, geometry))
            channels = geometry.out_channels
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.features = channels
        self.classifier = nn.Linear(channels, classes) if classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Images of shape (n, 3, height, width) to features of shape (n, features), or logits with a classifier."""
        x = self.blocks(self.first_conv_relu(self.first_conv(x)))
        return self.classifier(self.flatten(self.pool(x)))


def create(name: str, weights: Mapping[str, Tensor] | None = None, *, classes: int = 0) -> Backbone:
    """Build a backbone in evaluation mode.

    Args:
        name: ``mcunet-5fps``, ``mbv2-w0.35`` or ``proxyless-w0.3``.
        weights: Float tensors by parameter name, as :mod:`tinytrain.weights` reads them; a classifier's are ignored
            where ``classes`` is 0. Without weights the parameters are random, but the same at every call: profiling
            needs only the geometry.
        classes: See :class:`Backbone`.

    Raises:
        UserError: no such backbone, or weights of another geometry.
    """
    if name not in GEOMETRIES:
        raise UserError(
            f"there is no backbone {name!r}", hint=f"take one of {', '.join(GEOMETRIES)}, or module:factory of your own"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Backbone(name, classes=classes)
    if weights is not None:
        own = model.state_dict()
        given = {key: value for key, value in weights.items() if classes or not key.startswith("classifier.")}
        wrong = [key for key in own if key not in given or given[key].shape != own[key].shape]
        wrong += [key for key in given if key not in own]
        if wrong:
            found = tuple(given[wrong[0]].shape) if wrong[0] in given else "nothing"
            wanted = tuple(own[wrong[0]].shape) if wrong[0] in own else "no such layer"
            raise UserError(
                f"the weights are not those of {name}: {wrong[0]} should be {wanted}, found {found}",
                hint="give the weight file that belongs to this backbone",
            )
        model.load_state_dict(given)
    return model.eval()


def convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The network's convolutions with their layer names, in the order in which published schemes number them."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def layer_of_index(name: str, index: int) -> str:
    """Layer name of a published flat convolution index of backbone ``name``.

    Raises:
        IndexError: the backbone has no such convolution.
    """
    return _flat_names(name)[index]


def flat_index(name: str, layer: str) -> int:
    """Published flat convolution index of ``layer``; ValueError where the backbone has no such convolution."""
    return _flat_names(name).index(layer)


def _flat_names(name: str) -> list[str]:
    names = ["first_conv"]
    for index, geometry in enumerate(GEOMETRIES[name]):
        parts = ("pointwise1", "depthwise", "pointwise2") if geometry.expansion else ("depthwise", "pointwise2")
        names += [f"blocks.{index}.{part}" for part in parts]
    return names
