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
def busy(processes: int):
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_other_programs_on_every_core_are_found_by_the_reference_op(tmp_path) -> None:
    ops = [Op(Conv2d(32, 32, c, 32, 3, 3, 1, 1, 1, 1), Pass.FORWARD) for c in range(16, 56)]
    policy = Policy(repetitions=6, rounds_min=1, rounds_max=1, reference_every=2)
    with open_device("native://") as device:
        programs, _ = split(ops, device.identity, device.memory, 7)
        quiet, loaded = (dict(itertools.islice(programs.items(), *part)) for part in ((0, 21), (21, None)))
        reference = (ops[-1], programs[ops[-1]])
        with Run.create(tmp_path / "run", manifest(device, "native://", {"ops": []}, policy, [])) as run:
            Loop(device, run, quiet, policy, 1, reference=reference).measure()
            with busy(4 * (os.cpu_count() or 1)):
                Loop(device, run, loaded, policy, 1, reference=reference, first_index=100).measure()
            trust = examine(run.manifest, run.trials)
    names = {finding.name for finding in trust.findings}
    assert names & {"contended", "drift"}, names
    assert trust.verdict is not Verdict.TRUSTWORTHY
