"""Labelled images, decoded one by one, and how they become a network's input."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from profiler.errors import UserError


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Attributes:
        name: Of the data set (``omniglot``).
        labels: Class number of each image, shape (images,).
        class_names: Name of each class number.
        pixels: Image number to pixels: uint8 of shape (height, width) or (height, width, 3).
        groups: Physical object of each image, shape (images,), where images of one object must stay on one side of
            support and query; None where every image stands for itself.
    """

    name: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    pixels: Callable[[int], np.ndarray]
    groups: np.ndarray | None = None

    def tensor(self, numbers: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Images as a network takes them: float32 of shape (n, 3, *size), values in [-1, 1]."""
        return torch.stack([to_input(self.pixels(int(number)), size) for number in numbers])

    def __len__(self) -> int:
        return len(self.labels)


def to_input(pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """One image as the published weights want it: (pixel / 255 - 0.5) / 0.5, grey repeated to three channels.

    Args:
        pixels: uint8 of shape (height, width) or (height, width, 3).
        size: Height and width wanted; resized with an antialiased bilinear filter where they differ.

    Returns:
        float32 of shape (3, *size).
    """
    image = Image.fromarray(pixels)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return values.permute(2, 0, 1).div(255).sub(0.5).div(0.5)


def from_npz(path: Path, name: str) -> ImageSet:
    """Read one ``.npz``: JPEG streams back to back (``blob``, ``offset``) or bits (``packed``, ``shape``), ``label``,
    ``class_names`` and, where there are any, ``group``.

    Raises:
        UserError: no such file, or one that is laid out differently.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        if "packed" in arrays:
            height, width = map(int, arrays["shape"])
            packed = arrays["packed"]

            def pixels(number: int) -> np.ndarray:
                bits = np.unpackbits(packed[number], count=height * width)
                return bits.reshape(height, width) * np.uint8(255)  # 1 is paper
        else:
            blob, offset = arrays["blob"], arrays["offset"]

            def pixels(number: int) -> np.ndarray:
                stream = blob[offset[number] : offset[number + 1]].tobytes()
                return np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))

        return ImageSet(
            name, arrays["label"].astype(int), tuple(map(str, arrays["class_names"])), pixels, arrays.get("group")
        )
    except OSError as error:
        raise UserError(
            f"cannot read the images {path}: {error.strerror or error}", hint="look what the data folder holds"
        ) from None
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no image archive ({error})", hint="it needs blob and offset, or packed and shape, and label"
        ) from None


def omniglot_from_zips(paths: Sequence[Path]) -> ImageSet:
    """Read Omniglot's own archives: ``<set>/<alphabet>/<character>/<number>_<drawer>.png``, 1-bit, 105×105.

    A character that stands in two archives is taken once.
    """
    drawings: dict[tuple[str, str], np.ndarray] = {}
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                parts = entry.split("/")
                if not entry.endswith(".png") or len(parts) != 4:
                    continue
                key = ("/".join(parts[1:3]), parts[3].removesuffix(".png").split("_")[1])
                if key not in drawings:
                    image = Image.open(io.BytesIO(archive.read(entry)))
                    drawings[key] = np.asarray(image.convert("L"))
    keys = sorted(drawings)
    names = sorted({character for character, _ in keys})
    number = {character: index for index, character in enumerate(names)}
    return ImageSet(
        "omniglot", np.array([number[character] for character, _ in keys]), tuple(names), lambda n: drawings[keys[n]]
    )


def digits(classes: Sequence[int] = range(10)) -> ImageSet:
    """The handwritten digits that ship with scikit-learn: 8×8, 17 grey levels, about 180 a class.

    Args:
        classes: Which digits; they are numbered anew from 0.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  (takes a second)

    data = load_digits()
    number = {digit: index for index, digit in enumerate(classes)}
    chosen = np.flatnonzero(np.isin(data.target, list(number)))
    # Dark ink on white paper, as in Omniglot.
    images = np.round(255 - data.images[chosen] * (255 / 16)).astype(np.uint8)
    labels = np.array([number[int(digit)] for digit in data.target[chosen]])
    return ImageSet("digits", labels, tuple(f"digit {digit}" for digit in number), lambda n: images[n])
