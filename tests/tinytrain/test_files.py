"""Files are whole or as they were, and damaged ones are told from others without a traceback."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.errors import UserError
from profiler.outputs import check_file
from tinytrain import files, images, meta_files, weights
from tinytrain.delta import Delta


def test_a_file_is_as_it_was_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, "before")

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write_whole(path, "after, and longer")
    assert path.read_text() == "before"
    files.write_whole(path, memoryview(b"after"))
    assert path.read_text() == "after"


def test_links_are_followed_and_what_is_no_file_stays_what_it_is(tmp_path):
    (tmp_path / "real").write_text("before")
    (tmp_path / "link").symlink_to("real")
    files.write_whole(tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    check_file(tmp_path / "pipe", "the step plan")
    files.write_whole(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def readers(tmp_path):
    """What reads a file, and a whole file of its kind."""
    pixels = np.packbits(np.random.default_rng(0).integers(0, 2, (4, 64)).astype(np.uint8), axis=1)
    arrays = {"packed": pixels, "shape": np.array([8, 8]), "label": np.arange(4), "class_names": np.array(list("abcd"))}
    np.savez(tmp_path / "images.npz", **arrays)
    weights.write_half(tmp_path / "weights.npz", {"layer.weight": torch.rand(8, 4), "layer.bias": torch.rand(8)})
    record = {"settings": {}, "images": "", "done": 1, "history": [], "smoothed_loss": 0.5, "optimizer": {}}
    meta_files.write_checkpoint(tmp_path / "checkpoint.pt", record | {"model": {"weight": torch.rand(16)}})
    Delta(plan(), "0123", {"layer.weight": torch.rand(30)}).save(tmp_path / "delta.npz")
    return {
        "images.npz": lambda path: images.from_npz(path, "set").tensor([0, 3], (4, 4)),
        "weights.npz": weights.read_npz,
        "checkpoint.pt": meta_files.read_checkpoint,
        "delta.npz": Delta.load,
    }


def plan():
    from profiler.workloads.plan import LayerPlan, StepPlan  # noqa: PLC0415

    return StepPlan("net", (3, 8, 8), "0123", {"layer": LayerPlan((0, 1))})


@pytest.mark.parametrize("name", ["images.npz", "weights.npz", "checkpoint.pt", "delta.npz"])
def test_damage_anywhere_is_told_in_one_sentence(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    read = readers(folder)[name]
    path = folder / name
    whole = path.read_bytes()
    read(path)

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.integers(0, len(whole) - 1), value=st.integers(1, 255), cut=st.booleans())
    def damaged(place, value, cut):
        flipped = whole[:place] + bytes([whole[place] ^ value]) + whole[place + 1 :]
        path.write_bytes(whole[:place] if cut else flipped)
        try:
            read(path)  # a bit that says nothing may have flipped
        except UserError as error:
            assert len(str(error)) < 400

    damaged()
    for other in (b"", b"text", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(other)
        with pytest.raises(UserError):
            read(path)
