import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tinytrain.images import ImageSet

sys.path.insert(0, str(Path(__file__).parent))
# On cores that others use, torch's threads wait for each other: twenty times slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """A folder with the public weights and images, which the project does not ship."""
    folder = Path(os.environ.get("TINYTRAIN_DATA", ""))
    if not (folder / "weights").is_dir() or not (folder / "images").is_dir():
        pytest.skip("TINYTRAIN_DATA names no folder with weights/ and images/")
    return folder


@pytest.fixture
def small() -> nn.Module:
    """Five layers with everything that matters: a norm, a depthwise and a grouped convolution, a residual sum."""
    torch.manual_seed(1)
    return Small().eval()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 2)
        self.relu = nn.ReLU6()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise_relu = nn.ReLU(inplace=True)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = x + self.grouped(self.depthwise_relu(self.depthwise(x)))
        return self.linear(self.flatten(self.pool(x)))


@pytest.fixture
def images() -> ImageSet:
    """Six classes of ten noisy grey images, in groups of two."""
    rng = np.random.default_rng(0)
    centres = rng.integers(40, 200, (6, 12, 12))
    labels = np.repeat(np.arange(6), 10)
    pixels = (centres[labels] + rng.integers(0, 40, (60, 12, 12))).astype(np.uint8)
    groups = np.tile(np.repeat(np.arange(5), 2), 6)
    return ImageSet("noise", labels, tuple("abcdef"), lambda n: pixels[n], groups)
