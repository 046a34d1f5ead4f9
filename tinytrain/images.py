"""Labelled images, decoded one by one, and how they become a network's input."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from profiler.errors import UserError
from tinytrain import files


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
        splits: Of each class number, which part of the set it belongs to (``train``, ``val``, ``test``), shape
            (classes,); None where the set is whole.
    """

    name: str
    labels: np.ndarray
    class_names: tuple[str, ...]
    pixels: Callable[[int], np.ndarray]
    groups: np.ndarray | None = None
    splits: np.ndarray | None = None

    def classes(self, split: str | None = None) -> np.ndarray:
        """Numbers of the classes that have images, ascending; with ``split`` those of that part only.

        Raises:
            UserError: the set has no such part.
        """
        present = np.unique(self.labels)
        if split is None:
            return present
        parts = [] if self.splits is None else sorted(set(self.splits.tolist()))
        if split not in parts:
            raise UserError(
                f"the image set {self.name} has no part {split!r}",
                hint=f"it has {', '.join(parts)}" if parts else "it is not divided",
            )
        return present[self.splits[present] == split]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the class of every image and of the groups: image numbers mean the same where it is the same."""
        digest = hashlib.sha256("\n".join(self.class_names).encode())
        for array in (self.labels, self.groups):
            digest.update(b"" if array is None else np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()[:16]

    def tensor(self, numbers: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Images as a network takes them: float32 of shape (n, 3, *size), values in [-1, 1]."""
        return torch.stack([to_input(self.pixels(int(number)), size) for number in numbers])

    def __len__(self) -> int:
        return len(self.labels)


def to_input(pixels: np.ndarray, size: tuple[int, int]) -> Tensor:
    """One image as the published weights want it: (pixel / 255 - 0.5) / 0.5, grey repeated to three channels.

    Args:
        pixels: uint8 of shape (height, width) or (height, width, 3).
        size: Height and width wanted; the largest middle part of this shape is resized with an antialiased bilinear
            filter.

    Returns:
        float32 of shape (3, *size).
    """
    height, width = pixels.shape[:2]
    crop_height, crop_width = (
        min(height, round(width * size[0] / size[1])),
        min(width, round(height * size[1] / size[0])),
    )
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    image = Image.fromarray(pixels[top : top + max(1, crop_height), left : left + max(1, crop_width)])
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return values.permute(2, 0, 1).div(255).sub(0.5).div(0.5)


def from_npz(path: Path | Sequence[Path], name: str) -> ImageSet:
    """Read one ``.npz`` or several parts of one set.

    JPEG streams back to back (``blob``, ``offset``) or bits (``packed``, ``shape``), ``label``, ``class_names`` and,
    where there are any, ``group`` (a number within its class) and ``split`` (of each class).

    Raises:
        UserError: no such file, or one that is laid out differently.
    """
    parts = [_read_part(part) for part in ([path] if isinstance(path, Path) else path)]
    first = parts[0][0]
    if any(list(arrays["class_names"]) != list(first["class_names"]) for arrays, _ in parts):
        raise UserError(f"the parts of {name} have different classes", hint="look what the data folder holds")
    starts = np.cumsum([0, *(len(arrays["label"]) for arrays, _ in parts)])

    def pixels(number: int) -> np.ndarray:
        part = int(np.searchsorted(starts, number, "right")) - 1
        return parts[part][1](number - int(starts[part]))

    def joined(key: str) -> np.ndarray | None:
        return np.concatenate([arrays[key] for arrays, _ in parts]).astype(int) if key in first else None

    return ImageSet(
        name, joined("label"), tuple(map(str, first["class_names"])), pixels, joined("group"), first.get("split")
    )


def _read_part(path: Path) -> tuple[dict[str, np.ndarray], Callable[[int], np.ndarray]]:
    try:
        arrays = files.read_arrays(path)
        arrays["label"], arrays["class_names"]
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
                return decoded(io.BytesIO(stream), f"image {number} of {path}")

        return arrays, pixels
    except OSError as error:
        raise UserError(
            f"cannot read the images {path}: {error.strerror}", hint="look what the data folder holds"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no image archive ({files.reason(error)})",
            hint="it needs blob and offset, or packed and shape, and label",
        ) from None


def decoded(file: Path | IO[bytes], what: str) -> np.ndarray:
    """The pixels of an image file, in colour: uint8 of shape (height, width, 3).

    Raises:
        UserError: it cannot be read; ``what`` it is, is said.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read {what}: {error}", hint="repair or remove it") from None


#: Endings of the files that an image folder may hold.
_IMAGE_ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
#: Folders that divide the classes of a set.
_PARTS = frozenset({"train", "val", "test"})


def from_folder(folder: Path, name: str | None = None) -> ImageSet:
    """Read images that lie in one folder a class: ``folder/CLASS/image.jpg``.

    A folder below that is a group, whose images stay on one side of a task: ``folder/CLASS/GROUP/image.jpg``. Where a
    set has groups, every image that lies in none is a group of its own. A set of which some classes are for training
    and others for validation, such as mini-ImageNet, has them in ``folder/train/CLASS`` and ``folder/val/CLASS``
    (``folder/test/CLASS``). Names that start with a dot are passed over.

    Args:
        folder: Holds a folder a class.
        name: Of the set; by default the folder's own.

    Raises:
        UserError: no such folder, fewer than two classes with images in it, or a class in two parts of the set.
    """
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*"))] if folder.is_dir() else []
    paths = [p for p in paths if p.suffix.lower() in _IMAGE_ENDINGS and not any(part[0] == "." for part in p.parts)]
    tops = {p.parts[0] for p in paths if len(p.parts) > 2}
    depth = 1 if {"train", "val"} <= tops <= _PARTS else 0
    found: list[tuple[str, str, Path]] = []
    part_of: dict[str, str] = {}
    for path in paths:
        class_name, *group = path.parts[depth:-1] or ("",)
        if not class_name or len(group) > 1:
            continue
        if depth and part_of.setdefault(class_name, path.parts[0]) != path.parts[0]:
            raise UserError(
                f"the class {class_name!r} lies in {part_of[class_name]}/ and in {path.parts[0]}/ of {folder}",
                hint="divide a set by classes, so that those to validate with are new, or leave train/ and val/ out",
            )
        found.append((class_name, "".join(group), folder / path))
    names = sorted({class_name for class_name, _, _ in found})
    if len(names) < 2:
        raise UserError(
            f"{folder} is no image folder: it has images of {len(names)} classes",
            hint="lay images out as FOLDER/CLASS/image.jpg, with two classes at least",
        )
    number = {class_name: index for index, class_name in enumerate(names)}
    groups = None
    if any(group for _, group, _ in found):
        keys = [(c, group or path.name) for c, group, path in found]
        order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        groups = np.array([order[key] for key in keys])

    def pixels(image: int) -> np.ndarray:
        return decoded(found[image][2], f"the image {found[image][2]}")

    labels = np.array([number[c] for c, _, _ in found])
    splits = np.array([part_of[class_name] for class_name in names]) if depth else None
    return ImageSet(name or folder.name, labels, tuple(names), pixels, groups, splits)


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
