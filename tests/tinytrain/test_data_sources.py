import errno
import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from profiler.errors import UserError
from tinytrain import archives, backbones, data, images


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No folder named, an empty cache, no internet."""
    monkeypatch.delenv(data.DATA_VARIABLE, raising=False)
    monkeypatch.setenv("TINYTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "_reachable", lambda url: False)


def test_without_folder_and_internet_the_embedded_data_is_used_and_says_so(offline):
    source = data.locate(network="mcunet-5fps")
    assert source.label.startswith("embedded: scikit-learn's digits")
    assert "cannot be reached" in source.label
    assert source.images().name == "digits"
    backbones.create("mcunet-5fps", source.weights("mcunet-5fps"))


def test_the_environment_names_the_folder_and_data_overrides_it(monkeypatch, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "weights").mkdir(parents=True)
        (tmp_path / folder / "images").mkdir()
    monkeypatch.setenv(data.DATA_VARIABLE, str(tmp_path / "a"))
    assert f"from TINYTRAIN_DATA ({tmp_path / 'a'})" in data.locate().label
    assert f"from --data ({tmp_path / 'b'})" in data.locate(tmp_path / "b").label
    assert data.locate("embedded").label.startswith("embedded")


def test_a_folder_that_is_none_is_refused_where_it_was_asked_for(offline, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="is no data folder"):
        data.locate(tmp_path / "nowhere")
    monkeypatch.setenv(data.DATA_VARIABLE, str(tmp_path / "nowhere"))
    assert "TINYTRAIN_DATA names no folder" in data.locate().label


def test_sets_and_weights_that_a_source_lacks_are_refused_with_those_it_has(offline, tmp_path):
    source = data.locate()
    with pytest.raises(UserError, match=r"no data set 'omniglot'.*digits"):
        source.images("omniglot")
    with pytest.raises(UserError, match=r"no embedded weights of 'mbv2-w0.35'"):
        source.weights("mbv2-w0.35")
    folder = data.FolderSource(tmp_path, "--data")
    with pytest.raises(UserError, match="cannot read the images"):
        folder.images("omniglot")
    with pytest.raises(UserError, match=r"no data set 'birds'.*gtsrb"):
        folder.images("birds")


def test_a_failed_download_falls_back_to_the_embedded_data(offline, monkeypatch):
    def fetch(self, network, dataset):
        raise OSError("connection reset by peer")

    monkeypatch.setattr(data, "_reachable", lambda url: True)
    monkeypatch.setattr(data.CacheSource, "fetch", fetch)
    told = []
    label = data.locate(network="mcunet-5fps", tell=told.append).label
    assert "fetching failed: connection reset by peer" in label
    assert "fetching weights and images" in told[0]


def test_the_cache_is_used_only_where_its_files_have_the_right_checksum(offline, monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    content = {name: name.encode() for name in data.PUBLIC_FILES}
    for name, value in content.items():
        (cache / name).write_bytes(value)
    assert data.locate(network="mcunet-5fps").label.startswith("embedded")
    sums = {name: (url, sha256(content[name])) for name, (url, _) in data.PUBLIC_FILES.items()}
    monkeypatch.setattr(data, "PUBLIC_FILES", sums)
    assert "from their public homes" in data.locate(network="mcunet-5fps").label
    (cache / "images_background_small2.zip").unlink()
    assert data.locate(network="mcunet-5fps").label.startswith("embedded")


@pytest.fixture
def public_home(offline, monkeypatch, tmp_path):
    """A web server on this machine in place of the public homes, holding files named by their own content."""
    home = tmp_path / "home"
    home.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(home))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files = {}
    for name in data.PUBLIC_FILES:
        (home / name).write_bytes(name.encode())
        url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
        files[name] = (url, sha256(name.encode()))
    monkeypatch.setattr(data, "PUBLIC_FILES", files)
    monkeypatch.setattr(data, "_reachable", lambda url: True)
    yield home
    server.shutdown()
    server.server_close()


def test_missing_files_are_fetched_once_and_only_those_that_are_needed(public_home, tmp_path):
    assert "from their public homes" in data.locate(network="mcunet-5fps").label
    fetched = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert fetched == ["images_background_small1.zip", "images_background_small2.zip", "mcunet-5fps.pkl"]
    for path in public_home.iterdir():
        path.unlink()
    assert "from their public homes" in data.locate(network="mcunet-5fps").label


def test_a_download_with_another_checksum_is_refused(public_home, tmp_path):
    (public_home / "mcunet-5fps.pkl").write_bytes(b"tampered with")
    label = data.locate(network="mcunet-5fps").label
    assert label.startswith("embedded")
    assert "fetching failed" in label
    assert not (tmp_path / "cache" / "mcunet-5fps.pkl").exists()


def test_the_reachability_check_gives_up_in_time():
    # 192.0.2.0/24 is reserved for documentation: nothing answers there.
    assert not data._reachable("https://192.0.2.1/")


def test_omniglot_archives_are_read_and_duplicates_taken_once(tmp_path):
    def archive(name: str, entries: dict[str, int]) -> Path:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as file:
            for entry, column in entries.items():
                pixels = np.full((5, 5), 255, np.uint8)
                pixels[:, column] = 0
                buffer = io.BytesIO()
                Image.fromarray(pixels).convert("1").save(buffer, "PNG")
                file.writestr(f"{name}/{entry}.png", buffer.getvalue())
        return path

    first = archive("one", {"Latin/character02/0002_01": 0, "Latin/character01/0001_02": 1})
    second = archive("two", {"Latin/character01/0001_02": 4, "Greek/character01/0009_01": 2})
    read = archives.omniglot_from_zips([first, second])
    assert read.class_names == ("Greek/character01", "Latin/character01", "Latin/character02")
    assert read.labels.tolist() == [0, 1, 2]
    assert read.pixels(1)[0].tolist() == [255, 0, 255, 255, 255]


def picture(colour: tuple[int, int, int], kind: str, size: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, kind)
    return buffer.getvalue()


def gtsrb_archive(path: Path) -> Path:
    """Two classes of two tracks of three frames each, as GTSRB is packed."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("GTSRB/Readme-Images.txt", "read me")
        for sign in range(2):
            file.writestr(f"GTSRB/Training/{sign:05}/GT-{sign:05}.csv", "Filename;Width")
            for track in range(2):
                for frame in range(3):
                    colour = (100 * sign, 100 * track, 10 * frame)
                    name = f"GTSRB/Training/{sign:05}/{track:05}_{frame:05}.ppm"
                    file.writestr(name, picture(colour, "PPM", 6 + frame))
    return path


def test_gtsrb_is_read_with_a_group_a_physical_sign(tmp_path):
    read = archives.gtsrb_from_zip(gtsrb_archive(tmp_path / "gtsrb.zip"))
    assert (read.name, read.class_names) == ("gtsrb", ("00000", "00001"))
    assert read.labels.tolist() == [0] * 6 + [1] * 6
    assert read.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert read.pixels(11).shape == (8, 8, 3)
    assert read.pixels(11)[0, 0].tolist() == [100, 100, 20]


def dtd_archive(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for entry in ("images/banded/banded_0001.jpg", "images/dotted/dotted_0001.jpg", "images/banded/.directory"):
            content = picture((200, 30, 30) if "banded" in entry else (30, 200, 30), "JPEG")
            info = tarfile.TarInfo(f"dtd/{entry}")
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def test_dtd_is_unpacked_once_and_never_half(tmp_path, monkeypatch):
    path = dtd_archive(tmp_path / "dtd-r1.0.1.tar.gz")

    def no_room(self, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(tarfile.TarFile, "extractall", no_room)
        with pytest.raises(UserError, match=r"cannot unpack .*No space left.*TINYTRAIN_CACHE"):
            archives.dtd_from_tar(path)
    assert [left.name for left in tmp_path.iterdir()] == [path.name]
    read = archives.dtd_from_tar(path)
    assert (read.name, read.class_names, read.labels.tolist()) == ("dtd", ("banded", "dotted"), [0, 1])
    assert read.pixels(1)[0, 0, 1] > 150
    path.write_bytes(b"")  # not read again
    assert archives.dtd_from_tar(path).class_names == read.class_names


def test_gtsrb_and_dtd_come_from_their_public_homes(public_home, tmp_path, monkeypatch):
    made = {
        "gtsrb": gtsrb_archive(public_home / "GTSRB-Training_fixed.zip"),
        "dtd": dtd_archive(public_home / "dtd-r1.0.1.tar.gz"),
    }
    for path in made.values():
        url = data.PUBLIC_FILES[path.name][0]
        monkeypatch.setitem(data.PUBLIC_FILES, path.name, (url, sha256(path.read_bytes())))
    for dataset, path in made.items():
        told = []
        source = data.locate(dataset=dataset, tell=told.append)
        assert path.name in told[0]
        assert "from their public homes" in source.label
        assert len(source.images(dataset).class_names) == 2
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"dtd", *(p.name for p in made.values())}
    with pytest.raises(UserError, match=r"no data set 'birds'.*gtsrb, dtd"):
        source.images("birds")


def test_a_data_folder_may_hold_sets_as_folders(tmp_path):
    (tmp_path / "weights").mkdir()
    for entry in ("train/a/0.png", "train/b/0.png", "val/c/0.png", "val/d/0.png"):
        path = tmp_path / "images" / "mini-imagenet" / entry
        path.parent.mkdir(parents=True)
        path.write_bytes(picture((9, 9, 9), "PNG"))
    read = data.locate(tmp_path).images("mini-imagenet")
    assert (read.name, read.classes("val").tolist()) == ("mini-imagenet", [2, 3])


def test_inputs_are_normalised_resized_and_have_three_channels():
    grey = np.zeros((4, 4), np.uint8)
    grey[:, 2:] = 255
    tensor = images.to_input(grey, (8, 6))
    assert tensor.shape == (3, 8, 6)
    assert tensor.dtype == torch.float32
    assert tensor[0, 0, 0] == -1
    assert tensor[2, 7, 5] == 1
    assert torch.equal(tensor[0], tensor[1])


def test_digits_can_be_restricted_to_classes():
    unseen = images.digits(data.UNSEEN_DIGITS)
    assert len(unseen.class_names) == 5
    assert set(unseen.labels.tolist()) == set(range(5))
    assert unseen.pixels(0).shape == (8, 8)


def test_folder_sets_have_the_sizes_that_their_sources_state(data_folder):
    source = data.FolderSource(data_folder, "--data")
    omniglot, gtsrb = source.images(), source.images("gtsrb")
    assert (len(omniglot), len(omniglot.class_names), omniglot.pixels(7).shape) == (4840, 242, (105, 105))
    assert np.mean([omniglot.pixels(n).mean() for n in range(20)]) > 200  # ink on white paper
    assert (len(gtsrb), len(gtsrb.class_names), gtsrb.pixels(7).shape) == (4300, 43, (64, 64, 3))
    assert gtsrb.groups is not None
