"""The fuzz targets of firmware/fuzz/ over the kept inputs, built with any compiler (scripts/fuzz finds more)."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import make_fuzz_seeds
import pytest

from profiler.devices import build

pytestmark = pytest.mark.slow
TARGETS = ("frames", "checker", "session")
CORPUS = build.FIRMWARE_ROOT / "fuzz" / "corpus"
PRESET = "linux-fuzz-replay"


@pytest.fixture(scope="module")
def replay() -> Path:
    """The folder of the built targets."""
    folder = build.build_folder(PRESET)
    folder.parent.mkdir(exist_ok=True)
    with build._lock(folder.with_suffix(".lock")):
        for command in (["cmake", "--preset", PRESET, f"-DPython3_EXECUTABLE={sys.executable}"],
                        ["cmake", "--build", "--preset", PRESET]):  # fmt: skip
            done = subprocess.run(command, cwd=build.FIRMWARE_ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    return folder


def replayed(folder: Path, target: str, *places: Path) -> subprocess.CompletedProcess:
    return subprocess.run([folder / f"fuzz_{target}", *places], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs_and_seeds_of_this_protocol_come_to_no_finding(target, replay, tmp_path):
    make_fuzz_seeds.write(tmp_path)
    kept = list((CORPUS / target).iterdir())
    done = replayed(replay, target, CORPUS / target, tmp_path / target)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout) == len(kept) + len(list((tmp_path / target).iterdir()))
    assert len(kept) > 10


def test_seeds_are_whole_records_that_fit_a_frame():
    for seed in make_fuzz_seeds.request_seeds():
        position = 1
        while position < len(seed):
            kind, count = struct.unpack_from("<BH", seed, position)
            assert kind == make_fuzz_seeds.FRAMED and count <= make_fuzz_seeds.LARGEST_PAYLOAD_BYTES
            position += 3 + count
        assert position == len(seed)
