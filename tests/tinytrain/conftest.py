import os
from pathlib import Path

import numpy as np
import pytest
import torch
from five_layers import Small
from torch import nn

from tinytrain.images import ImageSet

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


@pytest.fixture
def images() -> ImageSet:
    """Six classes of ten noisy grey images, in groups of two."""
    rng = np.random.default_rng(0)
    centres = rng.integers(40, 200, (6, 12, 12))
    labels = np.repeat(np.arange(6), 10)
    pixels = (centres[labels] + rng.integers(0, 40, (60, 12, 12))).astype(np.uint8)
    groups = np.tile(np.repeat(np.arange(5), 2), 6)
    return ImageSet("noise", labels, tuple("abcdef"), lambda n: pixels[n], groups)
