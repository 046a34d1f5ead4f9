"""Image sets as their public homes pack them."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from profiler.errors import UserError
from tinytrain.images import ImageSet, decoded, from_folder


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


def gtsrb_from_zip(path: Path) -> ImageSet:
    """Read GTSRB's training archive: ``…/<class>/<track>_<frame>.ppm``, colour, of many sizes.

    A track's thirty frames show one physical sign, so that it is a group. Images are read from the archive as they
    are asked for.
    """
    archive = zipfile.ZipFile(path)
    entries = sorted(entry for entry in archive.namelist() if entry.endswith(".ppm"))
    classes = [PurePosixPath(entry).parent.name for entry in entries]
    tracks = [(c, PurePosixPath(entry).stem.split("_")[0]) for c, entry in zip(classes, entries, strict=True)]
    names = sorted(set(classes))
    number = {name: index for index, name in enumerate(names)}
    group = {track: index for index, track in enumerate(dict.fromkeys(tracks))}

    def pixels(image: int) -> np.ndarray:
        return decoded(io.BytesIO(archive.read(entries[image])), f"{entries[image]} of {path}")

    return ImageSet(
        "gtsrb",
        np.array([number[c] for c in classes]),
        tuple(names),
        pixels,
        np.array([group[track] for track in tracks]),
    )


def dtd_from_tar(path: Path) -> ImageSet:
    """Read DTD's archive, ``dtd/images/<class>/<class>_<number>.jpg``, which is unpacked beside itself once.

    Raises:
        UserError: there is no room for it.
    """
    unpacked = path.with_name("dtd")
    if not unpacked.is_dir():
        try:
            # Under its own name only when it is whole.
            with tempfile.TemporaryDirectory(dir=path.parent, prefix="dtd-") as beside, tarfile.open(path) as archive:
                archive.extractall(beside, filter="data")
                (Path(beside) / "dtd").rename(unpacked)
        except OSError as error:
            raise UserError(
                f"cannot unpack {path}: {error.strerror or error}", hint="make room, or set TINYTRAIN_CACHE"
            ) from None
    return from_folder(unpacked / "images", "dtd")
