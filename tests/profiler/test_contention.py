"""A native run beside which something else runs says so."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys

import pytest

from profiler.link.session import open_device
from profiler.measure.loop import Loop
from profiler.measure.schedule import Policy
from profiler.measure.sitting import manifest, split
from profiler.measure.trust import Verdict, examine
from profiler.ops import Conv2d, Op, Pass
from profiler.store import Run


@contextlib.contextmanager
def one_core():
    """Processes begun here share one core, however many there are: else the device may have one for itself."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def busy(processes: int):
    with one_core():
        running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_other_programs_on_the_core_are_found_by_the_reference_op(tmp_path) -> None:
    ops = [Op(Conv2d(32, 32, c, 64, 3, 3, 1, 1, 1, 1), Pass.FORWARD) for c in range(58, 66)]
    # Trials that outlast what a scheduler lets one process run for.
    policy = Policy(repetitions=30, rounds_min=1, rounds_max=1, reference_every=1)
    with contextlib.ExitStack() as stack:
        with one_core():
            device = stack.enter_context(open_device("native://"))
        programs, _ = split(ops, device.identity, device.memory, 7)
        quiet, loaded = (dict(itertools.islice(programs.items(), *part)) for part in ((0, 5), (5, None)))
        reference = (ops[-1], programs[ops[-1]])
        with Run.create(tmp_path / "run", manifest(device, "native://", {"ops": []}, policy, [])) as run:
            Loop(device, run, quiet, policy, 1, reference=reference).measure()
            with busy(3):
                Loop(device, run, loaded, policy, 1, reference=reference, first_index=100).measure()
            trust = examine(run.manifest, run.trials)
    names = {finding.name for finding in trust.findings}
    assert "contended" in names
    assert trust.verdict is not Verdict.TRUSTWORTHY
