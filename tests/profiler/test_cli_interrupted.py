"""Runs killed, interrupted or written twice: what was measured is safe, and going on completes it."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from command_line import MEASURE, NETWORK, profile
from forked_command import Forge

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


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_gone_on_with_a_run_has_the_same_trials_none_twice(folder, kills):
    moment, mark = random.Random(kills), f"killed-by-test-{uuid.uuid4().hex}"
    path = folder / "killed" / store.TRIALS
    # The ops of an update too, so that there are trials enough for many kills.
    plan = PLAN if kills < 10 else (*PLAN[:-1], "forward,grad_input,grad_weight,update")
    with Forge(folder, KILLED=mark) as command:
        command.start(*plan, "--out", "clean")
        assert command.wait() == 0, command.stderr
        clean = slots(folder / "clean")
        done = 0
        while done < kills:
            before = lines(path)
            process_id = command.start(*plan, "--out", "killed", "--resume")
            wanted = before + moment.choice([0, 0, 1, 1, 1, 2]) * (before < len(clean) - kills + done)
            start_s = time.monotonic()
            while lines(path) < wanted and time.monotonic() < start_s + 60:
                time.sleep(0.002)
            # At a random moment, but no more than a trial or two later however fast they are: some are left to kill.
            end_s = time.monotonic() + moment.random() * moment.choice([0.02, 0.2, 1.0])
            while lines(path) <= wanted and time.monotonic() < end_s:
                time.sleep(0.002)
            os.kill(process_id, signal.SIGKILL)
            status = command.wait()
            assert status in (-signal.SIGKILL, 0), command.stderr
            if not status:  # it was faster than the signal
                break
            done += 1
        assert done == kills
        command.start(*plan, "--out", "killed", "--resume")
        assert command.wait() == 0, command.stderr
        names = [trial["slot"] for trial in store.iterate(folder / "killed")]
        assert len(set(names)) == len(names)
        assert slots(folder / "killed") == clean
        assert store.load(folder / "killed").ticks.sum() == store.load(folder / "clean").ticks.sum()
        assert emulators(mark) == []


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def emulators(mark):
    """Processes, other than those already dead, of commands that were started with this mark."""
    deadline_s = time.monotonic() + 60
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has just ended, or is another user's
                if mark.encode() in (process / "environ").read_bytes() and "qemu" in (process / "comm").read_text():
                    found.append(process.name)
        if not found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.05)


def test_ctrl_c_leaves_a_valid_run_and_says_how_to_go_on(folder):
    process = start(*PLAN[:-2], "--out", "run")  # every pass, so that it is far from its end when the signal comes
    wait_for_trials(process, folder / "run" / store.TRIALS, 4)  # one may be in flight, and is then taken back
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
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
