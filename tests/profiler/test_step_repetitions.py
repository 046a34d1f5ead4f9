"""Repetitions of a step where the device has room for the ticks of a few at a time."""

from types import SimpleNamespace

import pytest
from small_networks import MEMORY, random_network, random_plan

from profiler.measure.steps import time_step
from profiler.measure.trials import step_repetitions
from profiler.workloads.program import step_program
from profiler.workloads.step import training_step

_, NETWORK = random_network(1)
PROGRAM = step_program(training_step(NETWORK, random_plan(1, NETWORK)), MEMORY)


class Tight:
    """A device whose every repetition takes a tick more, with room for the ticks of ``most``; stopped after so many."""

    def __init__(self, most, *, emulated, stop_after=1000):
        room = PROGRAM.wanted_bytes(MEMORY) + 8 * len(PROGRAM.timed) * (most - 1) + 7
        self.memory = type(MEMORY)(**vars(MEMORY) | {"arena_bytes": room})
        self.identity = SimpleNamespace(counts_instructions=emulated)
        self.asked, self.stop_after = [], stop_after

    def state(self):
        seen = {"runs": len(self.asked)}
        return SimpleNamespace(to_dict=lambda: seen)

    def run(self, program, repetitions, **_):
        first = sum(self.asked)
        self.asked.append(repetitions)
        program.check_fits(self.memory, repetitions)
        rows = [[first + i] * len(program.timed) for i in range(repetitions) if first + i < self.stop_after]
        stopped = len(rows) < repetitions
        return SimpleNamespace(
            ticks=rows,
            arena_peak_bytes=1,
            scratch_peak_bytes=2,
            stack_peak_bytes=3,
            wire_bytes=10,
            duration_s=0.5,
            stop=SimpleNamespace(entry=1, elapsed_ms=9) if stopped else None,
            partial_ticks=(),
        )


def blank():
    return {"status": "ok", "ticks": [], "warm_ups": 0, "rejected": []}


@pytest.mark.parametrize(("emulated", "most", "asked"), [(True, 9, [5]), (True, 2, [2, 2, 1]), (False, 1, [1] * 6)])
def test_all_repetitions_are_there_however_few_run_at_once(emulated, most, asked):
    device = Tight(most, emulated=emulated)
    trial = time_step(device, PROGRAM, blank(), repetitions=5, seed=1)
    assert device.asked == asked
    first = 0 if emulated else 1
    assert [row[0] for row in step_repetitions(trial)] == list(range(first, first + 5))
    assert (trial["wire_bytes"], trial["duration_s"]) == (10 * len(asked), 0.5 * len(asked))
    assert trial["state"] == {"before": {"runs": 0}, "after": {"runs": len(asked)}}


def test_nothing_more_is_run_of_a_step_that_was_stopped():
    device = Tight(2, emulated=True, stop_after=3)
    trial = time_step(device, PROGRAM, blank(), repetitions=9, seed=1)
    assert device.asked == [2, 2] and trial["status"] == "stopped"
    assert [row[0] for row in step_repetitions(trial)] == [0, 1, 2]
