"""Timers that go in steps of many of their ticks: found by their readings, and read to a fraction of a step."""

import random
from array import array

import numpy as np
import pytest
from fake_device import identity
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_run import OPS, manifest, trials

from profiler.measure.clock import Clock
from profiler.measure.schedule import Policy
from profiler.measure.statistics import lowest_agree, mad, median, quiet
from profiler.measure.trust import Verdict, examine
from profiler.store_merged import figures

#: A counter of 100, 54 and 19.2 MHz, told in nanoseconds.
STEPS_NS = (10.0, 1e3 / 54, 1e3 / 19.2)


def readings(duration_ns, step_ns, count, seed, busy=0.1):
    """What such a clock tells of an op that begins at any moment and now and then is disturbed."""
    chance = random.Random(seed)
    told = []
    for _ in range(count):
        begin = chance.uniform(0, 1e6)
        end = begin + duration_ns + (chance.expovariate(1 / 50) if chance.random() < busy else 0)
        told.append(int(end // step_ns * step_ns) - int(begin // step_ns * step_ns))
    return told


def clock_of(*lists):
    clock = Clock()
    for values in lists:
        clock.add(values)
    return clock


@settings(deadline=None, max_examples=60)
@given(
    step_ns=st.floats(6, 60) | st.sampled_from(STEPS_NS),
    empty_ns=st.floats(15, 60),
    durations_ns=st.lists(st.floats(1, 3000), min_size=3, max_size=20),
    seed=st.integers(0, 1000),
)
def test_the_step_of_a_clock_is_found_from_its_readings(step_ns, empty_ns, durations_ns, seed):
    empty = readings(empty_ns, step_ns, 300, seed)
    ops = [readings(empty_ns + ns, step_ns, 60, seed + n) for n, ns in enumerate(durations_ns)]
    assert clock_of(empty, *ops).step_ticks == pytest.approx(step_ns, rel=0.01)


@settings(deadline=None, max_examples=60)
@given(
    empty_ns=st.floats(15, 60),
    durations_ns=st.lists(st.floats(1, 3000), min_size=1, max_size=20),
    seed=st.integers(0, 1000),
)
def test_a_clock_of_whole_ticks_has_no_coarser_step(empty_ns, durations_ns, seed):
    empty = readings(empty_ns, 1, 300, seed)
    assert clock_of(empty, *(readings(empty_ns + ns, 1, 60, seed) for ns in durations_ns)).step_ticks == 1


@pytest.mark.parametrize("values", [[], [0, 0], [20] * 50, [20, 21] * 50, [5000, 6000], [38] * 90 + [76]])
def test_too_few_different_readings_show_no_step(values):
    assert clock_of(values).step_ticks == 1


@pytest.mark.parametrize("step_ns", STEPS_NS)
def test_ops_shorter_than_a_step_are_known_to_a_part_of_it_and_as_well_as_is_said(step_ns):
    empty = readings(23.3, step_ns, 2000, 0)
    overhead, overhead_error = quiet(empty, step_ns)
    errors, relative = [], []
    for seed, extra in enumerate(np.linspace(0.5, 2 * step_ns, 50)):
        value, error = quiet(readings(23.3 + extra, step_ns, 300, seed + 1), step_ns)
        errors.append(value - overhead - extra)
        relative.append(errors[-1] / np.hypot(error, overhead_error))
    assert np.sqrt(np.mean(np.square(errors))) < 0.1 * step_ns
    assert abs(np.mean(errors)) < 0.03 * step_ns
    assert np.sqrt(np.mean(np.square(relative))) < 3


@settings(deadline=None)
@given(
    step=st.sampled_from((1.0, *STEPS_NS)),
    values=st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=40), min_size=1, max_size=6),
)
def test_figures_of_all_ops_at_once_are_those_of_each_alone(step, values):
    for one, its in zip(values, figures([array("d", v) for v in values], step), strict=True):
        assert its == pytest.approx((median(one), mad(one), *quiet(one, step)))


def test_two_steps_apart_are_no_disagreement_by_a_coarse_clock_and_are_by_a_fine_one():
    values = [20] * 5 + [30] * 5 + [40] * 50
    assert not lowest_agree(values, 0.02)
    assert lowest_agree(values, 0.02, clock_of([20, 30, 40, 50, 110]))


def test_on_linux_short_ops_are_repeated_more_often_in_each_trial():
    policy = Policy.for_device(identity(board="linux-native", ticks_per_instruction=(0, 1)))
    counts = [policy.repetitions_of(s) for s in (None, 1.0, 1e-5, 2e-6, 1e-8, 0.0)]
    assert counts[:3] == [policy.repetitions] * 3
    assert policy.repetitions < counts[3] < counts[4] == counts[5] == policy.repetitions_most
    assert Policy.for_device(identity()).repetitions_of(1e-8) == Policy.for_device(identity()).repetitions
    asked = Policy.for_device(identity(board="linux-native", ticks_per_instruction=(0, 1)), repetitions=30)
    assert asked.repetitions_of(1e-8) == asked.repetitions


def test_a_run_by_a_coarse_timer_says_so_and_which_ops_take_few_of_its_steps():
    chance = random.Random(0)

    def reading(op, ticks):
        ticks = 85 + 8.3 * op.macs / OPS[0].macs if op.macs < OPS[10].macs else ticks
        return 10 * (ticks // 10 + (chance.random() < ticks / 10 % 1))

    made = list(trials(reading=reading, noise=0))
    for t in made:
        if t["type"] == "empty":
            t["ticks"] = [10, 20, 10, 10, 20, 30]
    linux = manifest(policy=manifest()["policy"] | {"quiet_target": 0.02})
    found = {f.name: f for f in examine(linux, made).findings}
    assert "goes in steps of 59.5 ns, though it tells 5.95: 10 of 40 ops" in found["coarse timer"].sentence
    assert set(found["coarse timer"].ops) == {op.key for op in OPS[:10]}
    assert examine(linux, made).verdict is Verdict.TRUSTWORTHY
    assert "coarse timer" not in {f.name for f in examine(manifest(), trials()).findings}
