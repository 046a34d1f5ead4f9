"""Networks with layers that the built-in ones lack: factories for ``--network scripts.odd_networks:NAME``."""

from torch import Tensor, nn


def rectangles() -> nn.Module:
    """Kernels, strides and maps that are no squares, odd channel counts; takes 3x37x53."""
    return nn.Sequential(
        nn.Conv2d(3, 13, (5, 3), (2, 1), (2, 1)),
        nn.ReLU(),
        nn.Conv2d(13, 27, (1, 7), (1, 2), (0, 3)),
        nn.ReLU6(),
        nn.Conv2d(27, 27, (7, 1), (3, 1), (3, 0), groups=27),
        nn.ReLU6(),
        nn.Conv2d(27, 54, (3, 1), (1, 2), (1, 0), groups=3),
        nn.ReLU(),
        nn.MaxPool2d((2, 3), (2, 3)),
        nn.Conv2d(54, 31, 1),
        nn.ReLU(),
        nn.Conv2d(31, 31, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(31, 17),
    )


def sound() -> nn.Module:
    """One-dimensional convolutions over time, as maps of one row; takes 40x1x101."""
    layers: list[nn.Module] = [nn.Conv2d(40, 16, (1, 3), padding=(0, 1)), nn.ReLU()]
    for before, after in ((16, 24), (24, 32), (32, 48)):
        layers += [
            nn.Conv2d(before, after, (1, 9), (1, 2), (0, 4)),
            nn.ReLU(),
            nn.Conv2d(after, after, (1, 9), padding=(0, 4), groups=after),
            nn.ReLU(),
        ]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 35)
    )


class Normalised(nn.Module):
    """Group normalisation instead of folded batch normalisation, and a path at half resolution; takes 3x40x40."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1), nn.GroupNorm(5, 20), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(20, 20, 5, padding=2, groups=20), nn.GroupNorm(4, 20), nn.ReLU())
        self.coarse = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(20, 20, 3, padding=1, groups=2),
            nn.GroupNorm(2, 20),
            nn.ReLU(),
            nn.Conv2d(20, 20, 1),
            nn.Upsample(scale_factor=2, mode="bilinear"),
        )
        self.last = nn.Sequential(nn.Conv2d(20, 36, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.body(x) + self.coarse(x))


def normalised() -> nn.Module:
    return Normalised()


#: Input of each, as ``--input`` takes it.
INPUTS = {"rectangles": "3x37x53", "sound": "40x1x101", "normalised": "3x40x40"}
