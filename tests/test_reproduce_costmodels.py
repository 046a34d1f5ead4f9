"""scripts/reproduce_costmodels in its quick form: figures of a network that the fit never saw; what is there stays."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.store import load, load_steps

ROOT = Path(__file__).parents[1]
DEVICE = "qemu-mps2-an500"


@pytest.fixture(scope="module")
def reproduce(tmp_path_factory):
    """Runs the script; what it says, and where its work and its figures lie."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    out = tmp_path_factory.mktemp("costmodels")

    def run() -> str:
        # Not scripts/reproduce_costmodels itself: that sets up .venv first, and tests run in whatever they were in.
        command = [sys.executable, "scripts/reproduce_costmodels.py", "--quick", "--device", DEVICE]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--out", out, "--models", out / "models"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run, out


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_figures_are_of_what_was_measured_and_runs_are_not_made_twice(reproduce):
    run, out = reproduce
    said = run()
    assert "Single ops of networks that the fit never saw" in said and "Whole training steps" in said
    ops, steps = out / DEVICE / "ops-mlperf-tiny-ad", out / DEVICE / "steps-mlperf-tiny-ad"
    figures = json.loads((out / "costmodels.json").read_text())
    assert list(figures) == [DEVICE]
    judged = figures[DEVICE]["networks"]["mlperf-tiny-ad"]
    assert judged["timer"] == "instructions"
    latency, seen = judged["overall"]["latency"], load(ops).op_key.nunique()
    assert 20 <= latency["n"] <= seen
    # Learned from a few ops of each kind: not what the README states, but better than counting MACs.
    assert latency["mape_percent"] < 0.5 * judged["baselines"]["c × MACs"]["latency"]["mape_percent"]
    whole = judged["steps"]
    assert whole["latency"]["n"] == whole["memory"]["n"] == len(load_steps(steps)) == 4
    assert whole["latency"]["mape_percent"] < 5
    assert whole["memory"]["bias_percent"] >= 0
    assert (out / "models" / f"{DEVICE}-quick.model" / "model.json").exists()

    packed = sorted((out / DEVICE).glob("*/trials.jsonl.xz"))
    assert len(packed) == 4 and not list((out / DEVICE).glob("*/trials.jsonl"))
    before = {path: path.read_bytes() for path in packed}
    again = run()
    assert "$ profile" not in again and again.count(" is there") == 4
    assert {path: path.read_bytes() for path in packed} == before
    assert json.loads((out / "costmodels.json").read_text()) == figures
