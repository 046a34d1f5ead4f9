"""Runs killed, interrupted or written twice: what was measured is safe, and going on completes it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import MEASURE, NETWORK, profile

from profiler import cli, store

pytestmark = pytest.mark.usefixtures("folder")
PLAN = ("--port", "qemu://stm32f405", *NETWORK, "--passes", "forward,grad_weight")


def start(*arguments):
    # A test run in a shell's background ignores Ctrl-C, and what it starts would inherit that.
    return subprocess.Popen(
        [sys.executable, "-m", "profiler.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )


def wait_for_trials(process, path, count):
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)


def slots(run):
    return {trial["slot"]: trial["ticks"] for trial in store.iterate(run)}


@pytest.mark.slow
def test_killed_at_random_moments_and_gone_on_with_a_run_has_the_same_trials_none_twice(folder):
    assert profile(*PLAN, "--out", "clean")[0] == 0
    clean = slots(folder / "clean")
    moment = random.Random(4)
    path = folder / "killed" / store.TRIALS
    kills = 0
    for _ in range(6):
        there = path.read_bytes().count(b"\n") if path.exists() else 0
        process = start(*PLAN, "--out", "killed", "--resume")
        wait_for_trials(process, path, there + moment.randrange(5))
        time.sleep(moment.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        assert process.stderr is not None
        process.stderr.close()
    assert kills >= 3
    status, _, err = profile(*PLAN, "--out", "killed", "--resume")
    assert status == 0, err
    names = [trial["slot"] for trial in store.iterate(folder / "killed")]
    assert len(set(names)) == len(names)
    assert slots(folder / "killed") == clean
    assert store.load(folder / "killed").ticks.sum() == store.load(folder / "clean").ticks.sum()


def test_ctrl_c_leaves_a_valid_run_and_says_how_to_go_on(folder):
    process = start(*PLAN, "--out", "run")
    wait_for_trials(process, folder / "run" / store.TRIALS, 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "interrupted" in err
    assert "--resume --out run" in err
    assert "Traceback" not in err
    assert store.read_manifest(folder / "run")["sittings"][-1]["outcome"] == "interrupted"
    assert len(store.load(folder / "run")) > 0


def test_two_commands_cannot_write_one_run(run):
    with store.Run.open(run):
        status, _, err = profile(*MEASURE, *NETWORK, "--repetitions", 1, "--limit", 8, "--out", run, "--resume")
    assert status == 1
    assert "another process is writing the run" in err
