"""Where images and weights come from: a folder, a cache filled from their public homes, or what is embedded.

:func:`locate` takes the first that is there, and every output prints the ``label`` of what it took.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from profiler.errors import UserError
from tinytrain import archives, images, weights
from tinytrain.images import ImageSet

#: Environment variable that names a data folder.
DATA_VARIABLE = "TINYTRAIN_DATA"
#: What ``--data`` takes to have the embedded data although there is other.
EMBEDDED = "embedded"
#: Seconds after which a machine counts as being without internet.
CONNECT_TIMEOUT_S = 3.0

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
#: Digits whose images the embedded weights have never seen: the classes of the embedded episodes.
UNSEEN_DIGITS = (5, 6, 7, 8, 9)

_FILES = {
    "omniglot": ("omniglot_small_105.npz",),
    "gtsrb": ("gtsrb_43x100_64.npz",),
    "dtd": ("dtd10_128.npz",),
    "mini-imagenet": ("mini_imagenet_100x100_84_part0.npz", "mini_imagenet_100x100_84_part1.npz"),
}

_TINY_TRAINING = (
    "https://raw.githubusercontent.com/mit-han-lab/tiny-training/7bf8e05bbeebda76cbf2ea2dd596dedee7e3f343/"
    "algorithm/assets/mcu_models/"
)
_OMNIGLOT = "https://raw.githubusercontent.com/brendenlake/omniglot/057f034baf2ecb8530bc5710e5a23584d2a519cc/python/"

_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
_DTD = "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/"

#: File name in the cache: public home and checksum with its algorithm.
PUBLIC_FILES = {
    name: (home + name, checksum)
    for home, files in (
        (
            _TINY_TRAINING,
            {
                "mcunet-5fps.pkl": "sha256:4de2e06ed39041fc3609de806461a9e1d1f82f186927474bd9e9b0de756a0f00",
                "mbv2-w0.35.pkl": "sha256:310d2871c50a89af9f11928e28418729984c2e402cf68560a19b6cbb75854163",
                "proxyless-w0.3.pkl": "sha256:0da06d029506a36e5a5d0822493cdae11f37ba78662f9aca25ba5b3c958cf8e1",
            },
        ),
        (
            _OMNIGLOT,
            {
                "images_background_small1.zip": "sha256:"
                "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
                "images_background_small2.zip": "sha256:"
                "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
            },
        ),
        (_GTSRB, {"GTSRB-Training_fixed.zip": "md5:513f3c79a4c5141765e10e952eaa2478"}),
        (
            _DTD,
            {"dtd-r1.0.1.tar.gz": "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205"},
        ),
    )
    for name, checksum in files.items()
}
#: Public files that a set is made of.
_PUBLIC_SETS = {
    "omniglot": ("images_background_small1.zip", "images_background_small2.zip"),
    "gtsrb": ("GTSRB-Training_fixed.zip",),
    "dtd": ("dtd-r1.0.1.tar.gz",),
}


class Source(Protocol):
    """One place that images and weights come from."""

    @property
    def label(self) -> str:
        """What it is, for people: printed by every output that rests on it."""
        ...

    @property
    def dataset(self) -> str:
        """Name of the data set that :meth:`images` gives by default."""
        ...

    def weights(self, network: str) -> dict[str, Tensor]:
        """Weights of a backbone; UserError where there are none."""
        ...

    def images(self, dataset: str | None = None) -> ImageSet:
        """A data set, by default :attr:`dataset`; UserError where there is no such set."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """A folder with ``weights/<network>.pkl`` and ``images/``.

    That holds sets as folders, ``images/<set>/CLASS/image.jpg`` as :func:`tinytrain.images.from_folder` reads them,
    or packed in the ``.npz`` files named here.

    Attributes:
        folder: The folder.
        origin: Who named it: ``--data`` or ``TINYTRAIN_DATA``.
    """

    folder: Path
    origin: str
    dataset: str = "omniglot"

    @property
    def label(self) -> str:
        return f"images and ImageNet weights from {self.origin} ({self.folder})"

    def weights(self, network: str) -> dict[str, Tensor]:
        return weights.read_pickle(self.folder / "weights" / f"{network}.pkl", network)

    def images(self, dataset: str | None = None) -> ImageSet:
        name = dataset or self.dataset
        if name == "digits":
            return images.digits()
        folder = self.folder / "images"
        if (folder / name).is_dir():
            return images.from_folder(folder / name, name)
        if name not in _FILES:
            raise _no_dataset(name, [*_FILES, "digits"], f"or lay it out as {folder / name}/CLASS/image.jpg")
        return images.from_npz([folder / file for file in _FILES[name]], name)


@dataclass(frozen=True)
class CacheSource:
    """Files fetched from their public homes and checked against their checksums, kept for the next time.

    Attributes:
        folder: The cache.
    """

    folder: Path
    dataset: str = "omniglot"

    @property
    def label(self) -> str:
        return f"images and ImageNet weights from their public homes (cache {self.folder})"

    def holds(self, network: str | None, dataset: str | None) -> bool:
        """Whether everything that is needed lies in the cache already, undamaged."""
        return all(_is_whole(self.folder / name) for name in self.needed(network, dataset))

    def needed(self, network: str | None, dataset: str | None) -> list[str]:
        """Names of the files that a network's weights and a set are in."""
        names = [f"{network}.pkl"] if f"{network}.pkl" in PUBLIC_FILES else []
        return [*names, *_PUBLIC_SETS.get(dataset or self.dataset, ())]

    def fetch(self, network: str | None, dataset: str | None) -> None:
        """Download what is missing or damaged.

        Raises:
            OSError: no connection.
            ValueError: a file's content is not what it should be.
        """
        for name in self.needed(network, dataset):
            self._path(name)

    def _path(self, name: str) -> Path:
        import pooch  # noqa: PLC0415  (only where something is fetched)

        url, checksum = PUBLIC_FILES[name]
        downloader = pooch.HTTPDownloader(timeout=(CONNECT_TIMEOUT_S, 30))
        return Path(pooch.retrieve(url, checksum, name, self.folder, downloader=downloader))

    def weights(self, network: str) -> dict[str, Tensor]:
        if f"{network}.pkl" not in PUBLIC_FILES:
            raise UserError(f"there are no public weights of {network!r}", hint="give --data DIR with weights/ in it")
        return weights.read_pickle(self._path(f"{network}.pkl"), network)

    def images(self, dataset: str | None = None) -> ImageSet:
        name = dataset or self.dataset
        if name == "digits":
            return images.digits()
        if name not in _PUBLIC_SETS:
            raise _no_dataset(name, [*_PUBLIC_SETS, "digits"], f"or give --data DIR with images/{name}/CLASS/image.jpg")
        paths = [self._path(file) for file in _PUBLIC_SETS[name]]
        if name == "omniglot":
            return archives.omniglot_from_zips(paths)
        return archives.gtsrb_from_zip(*paths) if name == "gtsrb" else archives.dtd_from_tar(*paths)


@dataclass(frozen=True)
class EmbeddedSource:
    """What the package itself holds: scikit-learn's digits and an mcunet-5fps trained on five of them.

    Attributes:
        why: Why nothing better was taken.
    """

    why: str
    dataset: str = "digits"

    @property
    def label(self) -> str:
        return (
            "embedded: scikit-learn's digits 5 to 9 and an mcunet-5fps that this project trained on digits 0 to 4 "
            f"({self.why})"
        )

    def weights(self, network: str) -> dict[str, Tensor]:
        path = EMBEDDED_FOLDER / f"{network}.npz"
        if not path.exists():
            raise UserError(
                f"there are no embedded weights of {network!r} ({self.why})",
                hint=f"give --data DIR or set {DATA_VARIABLE}, or take --network mcunet-5fps",
            )
        return weights.read_npz(path)

    def images(self, dataset: str | None = None) -> ImageSet:
        name = dataset or self.dataset
        if name != "digits":
            raise _no_dataset(name, ["digits"], f"or give --data DIR or set {DATA_VARIABLE} ({self.why})")
        return images.digits(UNSEEN_DIGITS)


def locate(
    data: str | Path | None = None,
    *,
    network: str | None = None,
    dataset: str | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Source:
    """The first source that is there: a named folder, the cache of public files, what is embedded.

    Args:
        data: What ``--data`` said: a folder, ``embedded``, or None.
        network: Backbone whose weights will be asked for.
        dataset: Data set that will be asked for; None for the source's own.
        tell: Takes a line for people when something is fetched.

    Raises:
        UserError: ``data`` is no such folder, or the set asked for is in none of the sources.
    """
    if data is not None and str(data) != EMBEDDED:
        if not _is_data_folder(Path(data)):
            raise UserError(
                f"{data} is no data folder: it has no weights/ and images/",
                hint=f"give --data DIR with both, or --data {EMBEDDED}",
            )
        return FolderSource(Path(data), "--data")
    if data is not None:
        return EmbeddedSource(f"--data {EMBEDDED}")
    named = os.environ.get(DATA_VARIABLE)
    if named and _is_data_folder(Path(named)):
        return FolderSource(Path(named), DATA_VARIABLE)
    cache = CacheSource(cache_folder())
    why = f"{DATA_VARIABLE} names no folder with weights/ and images/" if named else f"{DATA_VARIABLE} is not set"
    if cache.holds(network, dataset):
        return cache
    host_url = _TINY_TRAINING + "README.md"
    if not _reachable(host_url):
        return EmbeddedSource(f"{why} and the public homes cannot be reached")
    files = ", ".join(cache.needed(network, dataset))
    tell(f"fetching weights and images from their public homes into {cache.folder} ({files})")
    try:
        cache.fetch(network, dataset)
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors; pooch's wrong checksum a ValueError
        return EmbeddedSource(f"{why} and fetching failed: {str(error).splitlines()[0][:120]}")
    return cache


def source_set(source: Source) -> str:
    """The set of source classes, of which no task to come is made, that is learned from where none is named:
    mini-ImageNet, which has no public home, or the digits that are always there."""
    return "digits" if isinstance(source, EmbeddedSource | CacheSource) else "mini-imagenet"


def image_set(source: Source, dataset: str | None) -> ImageSet:
    """The set of this name, or the images of this folder (``FOLDER/CLASS/image.jpg``), whichever source is used."""
    return images.from_folder(Path(dataset)) if dataset and is_folder(dataset) else source.images(dataset)


def pictures_label(source: Source, images: ImageSet, dataset: str | None) -> str:
    """Where the images come from, for people: every source has the digits, and folders are no source's."""
    if is_folder(dataset):
        return f"the folder {dataset}"
    return "scikit-learn's digits" if images.name == "digits" != source.dataset else source.label


def is_folder(dataset: str | None) -> bool:
    """Whether ``--dataset`` names a folder of images and no set."""
    return dataset is not None and ("/" in dataset or Path(dataset).is_dir())


def cache_folder() -> Path:
    """``TINYTRAIN_CACHE``, else the user's cache folder."""
    import platformdirs  # noqa: PLC0415

    return Path(os.environ.get("TINYTRAIN_CACHE") or platformdirs.user_cache_dir("tinytrain"))


def _is_data_folder(folder: Path) -> bool:
    return (folder / "weights").is_dir() and (folder / "images").is_dir()


def _reachable(url: str) -> bool:
    """Whether the host answers in time. In a thread, because no timeout of requests' covers the name's resolution."""
    import requests  # noqa: PLC0415

    answered: list[bool] = []

    def ask() -> None:
        try:
            requests.head(url, timeout=CONNECT_TIMEOUT_S, allow_redirects=False)
        except OSError:
            return
        answered.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT_S)
    return bool(answered)


def _is_whole(path: Path) -> bool:
    """Whether a public file is there as it should be."""
    if not path.is_file():
        return False
    algorithm, wanted = PUBLIC_FILES[path.name][1].split(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == wanted


def _no_dataset(name: str, there: list[str], or_: str) -> UserError:
    return UserError(f"there is no data set {name!r} in the data used", hint=f"take one of {', '.join(there)}, {or_}")
