"""scripts/bench_energy: the windows of its recordings are found, and their energies are those that were written."""

import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_energy"


def test_every_window_is_found_with_the_energy_that_was_written(tmp_path):
    pytest.importorskip("pyjls")
    done = subprocess.run(
        [SCRIPT, "--seconds", "2,4", "--rounds", "1", "--folder", tmp_path, "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    short, long = json.loads(done.stdout)
    assert (short["windows"], long["windows"]) == (5, 10)
    for figures in (short, long):
        assert figures["refused"] == 0
        assert figures["largest_relative_error"] < 1e-6
    assert not list(tmp_path.iterdir())
