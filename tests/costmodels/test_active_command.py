"""``profile --design active`` from the command line: killed, gone on with, fitted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from costmodels.model import CostModel
from profiler import store

COMMAND = [sys.executable, "-m", "profiler.cli", "--port", "qemu://stm32f405", "--design", "active"]
OPTIONS = ["--passes", "forward", "--dtype", "f32", "--limit", "45", "--out", "run"]


def trials(run: Path) -> list[dict]:
    path = run / store.TRIALS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_an_active_design_that_is_killed_goes_on_and_measures_nothing_twice(tmp_path) -> None:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    first = subprocess.Popen([*COMMAND, *OPTIONS], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    deadline_s = time.monotonic() + 300
    while len(trials(tmp_path / "run")) < 20 and time.monotonic() < deadline_s and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = trials(tmp_path / "run")
    assert len(before) >= 20, first.stderr.read()
    pending = [record["kind"] for record in store.read_manifest(tmp_path / "run")["design"]["pending"]]
    assert len(pending) >= 20
    done = subprocess.run(
        [*COMMAND, *OPTIONS, "--resume"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "number of ops reached" in done.stderr
    after = trials(tmp_path / "run")
    assert after[: len(before)] == before
    assert len({trial["slot"] for trial in after}) == len(after)
    table = store.load(tmp_path / "run")
    assert (~table.held_out).sum() == 45
    assert set(table["pass"]) == {"forward"} and set(table.dtype) == {"f32"}
    model = CostModel().fit(tmp_path / "run")
    # Two ops of most kinds, and which ones depends on when the kill came: it is a model, not yet a good one.
    assert model.card_["held_out_accuracy"]["mape_percent"] < 60
