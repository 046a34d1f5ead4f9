import functools
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from profiler.errors import UserError
from tinytrain import backbones, data, images


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
    sums = {name: (url, hashlib.sha256(content[name]).hexdigest()) for name, (url, _) in data.PUBLIC_FILES.items()}
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
        files[name] = (url, hashlib.sha256(name.encode()).hexdigest())
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
    read = images.omniglot_from_zips([first, second])
    assert read.class_names == ("Greek/character01", "Latin/character01", "Latin/character02")
    assert read.labels.tolist() == [0, 1, 2]
    assert read.pixels(1)[0].tolist() == [255, 0, 255, 255, 255]


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
