"""Emulators killed while they are measured: what was in flight is measured again, nothing is lost or there twice."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest
from fault_run import BOARD, clean_run, differences, measure, small_ops

from profiler import store
from profiler.link.session import open_device


class Killer:
    """Kills a device's process again and again, at random moments of its run, and sometimes while it starts again.

    Args:
        device: An open one whose port is a process of ours.
        trials: The run's file of trials.
        seed: Of the moments.
        kills: How often.
    """

    def __init__(self, device, trials, *, seed, kills):
        self._port, self._trials = device.channel.transport.port, trials
        self._moment = random.Random(seed)
        self._left, self.killed = kills, 0
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop = True
        self._thread.join()

    def _run(self):
        while self.killed < self._left and not self._stop:
            # Some trials later: an op that brings its device down three times in a row is rightly given up.
            there = self._count() + self._moment.randrange(1, 4)
            while self._count() < there and not self._stop:
                time.sleep(0.001)
            time.sleep(self._moment.random() * 0.06)
            self._kill()
            if self._moment.random() < 0.2:
                time.sleep(self._moment.random() * 0.6)
                self._kill()

    def _count(self):
        return self._trials.read_bytes().count(b"\n") if self._trials.exists() else 0

    def _kill(self):
        process_id = self._port.process_id
        if process_id and self.killed < self._left and not self._stop:
            with contextlib.suppress(ProcessLookupError):  # the one before was killed, the next one is not there yet
                os.kill(process_id, signal.SIGKILL)
                self.killed += 1


def measure_while_killing(folder, ops, *, seed, kills):
    with open_device(BOARD) as device, Killer(device, folder / store.TRIALS, seed=seed, kills=kills) as killer:
        measured = measure(device, folder, ops)
        return measured, killer.killed


@pytest.mark.parametrize(
    ("count", "kills"), [(24, 4), pytest.param(420, 50, marks=pytest.mark.slow)], ids=["a few", "fifty"]
)
def test_an_emulator_killed_at_random_moments_changes_nothing(tmp_path, count, kills):
    ops = small_ops(count)
    clean = clean_run(tmp_path / "clean", ops)
    measured, killed = measure_while_killing(tmp_path / "killed", ops, seed=5, kills=kills)
    print(f"{killed} kills, {measured.statistics['resets']} resets seen, {len(measured.trials)} trials")
    assert killed == kills and len(measured.trials) >= count
    # Two kills may fall together, before the one that was killed first answers again.
    assert kills / 5 < measured.statistics["resets"] <= kills
    assert differences(measured, clean) == []
