"""The four reference networks of MLPerf Tiny (arXiv 2106.07597) as torch modules with random weights.

Geometry is what costs depend on; trained weights are not needed here. Where the published Keras models pad a map on
one side more than on the other, these pad both alike: the output maps are the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import Tensor, nn

#: Channels, height, width of one input: what the benchmark feeds each network.
INPUT_SHAPES: dict[str, tuple[int, int, int]] = {
    "mlperf-tiny-kws": (1, 49, 10),
    "mlperf-tiny-vww": (3, 96, 96),
    "mlperf-tiny-ic": (3, 32, 32),
    "mlperf-tiny-ad": (640, 1, 1),
}


def create(name: str) -> nn.Module:
    """One of the networks, by its name in :data:`INPUT_SHAPES`, in evaluation mode."""
    return _CREATE[name]().eval()


def keyword_spotting() -> nn.Module:
    """DS-CNN: a 10×4 convolution over 49 frames of 10 cepstral coefficients, four separable blocks, 12 words."""
    blocks = [layer for _ in range(4) for layer in (*_depthwise(64, 1), *_convolution(64, 64, 1))]
    return nn.Sequential(
        *_convolution(1, 64, (10, 4), stride=2, padding=(5, 1)), *blocks, nn.AdaptiveAvgPool2d(1), *_classifier(64, 12)
    )


def visual_wake_words() -> nn.Module:
    """MobileNetV1 with a quarter of its channels: is there a person in the image."""
    channels = 8
    layers = _convolution(3, channels, 3, stride=2, padding=1)
    for out_channels, stride in (
        (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)
    ):  # fmt: skip
        layers += [*_depthwise(channels, stride), *_convolution(channels, out_channels, 1)]
        channels = out_channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), *_classifier(channels, 2))


def image_classification() -> nn.Module:
    """ResNet-8 for CIFAR-10: three stacks of one residual block each."""
    return nn.Sequential(
        *_convolution(3, 16, 3, padding=1),
        ResidualStack(16, 16, 1),
        ResidualStack(16, 32, 2),
        ResidualStack(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        *_classifier(64, 10),
    )


def anomaly_detection() -> nn.Module:
    """The autoencoder for machine sounds: five frames of 128 mel bands through a bottleneck of 8 and back."""
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], widths[0]))


class ResidualStack(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a pointwise convolution where the shape changes.

    Args:
        in_channels, out_channels: Of its input and output map.
        stride: Of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(in_channels, out_channels, 3, stride=stride, padding=1),
            *_convolution(out_channels, out_channels, 3, padding=1)[:-1],
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.convolutions(x) + self.shortcut(x))


def _convolution(
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]


def _classifier(features: int, classes: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(features, classes)]


_CREATE: dict[str, Callable[[], nn.Module]] = dict(
    zip(INPUT_SHAPES, (keyword_spotting, visual_wake_words, image_classification, anomaly_detection), strict=True)
)
