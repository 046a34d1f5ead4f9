"""A small vision network of its own: what `--network vision_network:build` measures."""

from torch import nn


class Block(nn.Module):
    """Expansion, depthwise convolution, projection, and the sum where shapes allow."""

    def __init__(self, channels, hidden, out, kernel, stride):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden), nn.ReLU6()
        )
        self.project = nn.Conv2d(hidden, out, 1)
        self.adds = stride == 1 and channels == out

    def forward(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


SIZES = (
    (8, 16, 8, 3, 1),
    (8, 24, 12, 5, 2),
    (12, 36, 12, 3, 1),
    (12, 40, 16, 3, 2),
    (16, 48, 16, 3, 1),
    (16, 64, 24, 5, 1),
)


def build():
    blocks = [Block(*size) for size in SIZES]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
