"""Statistics of repetitions, order of trials, and when an op is measured well enough."""

import math
import random

import numpy as np
from fake_device import OPS, identity
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from profiler.measure.schedule import Caches, Policy, reference_op, round_slots
from profiler.measure.statistics import identical, mad, median, median_interval, quiet, relative_interval

WARM = [(op, Caches.WARM) for op in OPS]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_median_and_mad_are_numpys(values):
    assert median(values) == np.median(values)
    assert mad(values) == np.median(np.abs(np.array(values) - np.median(values)))


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_the_interval_covers_the_median_with_95_percent_and_no_narrower_one_does(n):
    interval = median_interval(list(range(n)))
    if interval is None:
        assert n < 6
        return
    rank = int(interval[0]) + 1
    assert interval[1] == n - rank
    assert 1 - 2 * binom.cdf(rank - 1, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(rank, n, 0.5) < 0.95


def test_few_or_scattered_values_are_not_tight_and_equal_ones_are():
    assert relative_interval([5, 6, 7]) == float("inf")
    assert relative_interval([5, 5]) == 0
    assert relative_interval([100] * 20 + [101]) == 0
    assert relative_interval(list(range(50, 150))) > 0.05
    assert not identical([7])
    assert identical([7, 8], tolerance=1)


def test_the_same_seed_gives_the_same_order_and_another_seed_or_round_another():
    def order(seed, round_=0):
        return [slot.name for slot in round_slots(WARM, OPS[0], round_, Policy(), seed)]

    assert order(1) == order(1)
    names = {tuple(name.split("|")[1] for name in order(*key)) for key in ((1, 0), (2, 0), (1, 1))}
    assert len(names) == 3


def test_every_op_is_in_a_round_once_the_empty_op_first_and_the_reference_op_throughout():
    slots = list(round_slots(WARM, OPS[0], 0, Policy(reference_every=10), 1))
    assert len({slot.name for slot in slots}) == len(slots)
    assert slots[0].type == "empty"
    assert sorted(slot.op.key for slot in slots if slot.type == "op") == sorted(op.key for op in OPS)
    places = [index for index, slot in enumerate(slots) if slot.type == "reference"]
    assert places[0] == 1
    assert places[-1] == len(slots) - 1
    assert max(np.diff(places)) <= 11


def test_ops_timed_warm_and_cold_are_in_a_round_once_each_and_so_is_the_empty_op():
    slots = list(round_slots([(op, c) for op in OPS for c in Caches], OPS[0], 0, Policy(), 1))
    assert len({slot.name for slot in slots}) == len(slots)
    for type_, ops in (("op", OPS), ("empty", [slots[0].op])):
        found = sorted((slot.op.key, slot.caches) for slot in slots if slot.type == type_)
        assert found == sorted((op.key, c) for op in ops for c in Caches)
    assert {slot.caches for slot in slots if slot.type == "reference"} == {Caches.WARM}


def test_the_reference_op_has_macs_where_any_has():
    assert reference_op(OPS).kind == "conv2d"
    assert reference_op(OPS[:4]) in OPS[:4]


def test_emulated_ops_are_done_after_one_round_of_identical_ticks_and_not_before_three_otherwise():
    policy = Policy.for_device(identity())
    assert policy.done([50, 50, 50], 1, 0.0)
    assert not policy.done([50, 60, 70], 1, 0.0)
    assert policy.done([50, 60, 70], 3, 0.0)


def test_on_linux_the_repetitions_are_spread_over_ten_rounds_or_more_and_end_with_the_time():
    linux = identity(board="linux-native", ticks_per_instruction=(0, 1))
    policy = Policy.for_device(linux)
    assert policy.rounds_min >= 10
    assert not policy.done([50] * 27, 9, 0.0)
    assert policy.done([50] * 30, 10, 0.0)
    scattered = list(range(10, 60))
    assert not policy.done(scattered, 10, 0.1)
    assert policy.done(scattered, 10, policy.time_per_op_s)
    asked = Policy.for_device(linux, repetitions=30)
    assert asked.repetitions * asked.rounds_min == 30


def disturbed_rounds(rounds, share, seed):
    """Six readings a round of an op of 10,000 ticks, half as long again in rounds in which a neighbour is busy."""
    chance = random.Random(seed)
    busy = [chance.random() < share for _ in range(rounds)]
    return [round((15_000 if slow else 10_000) * chance.uniform(1, 1.01)) for slow in busy for _ in range(6)]


@given(share=st.floats(0, 0.7), seed=st.integers(0, 1000))
def test_readings_of_a_quiet_host_are_found_among_those_of_a_busy_one(share, seed):
    readings = disturbed_rounds(24, share, seed)
    lowest, apart = quiet(readings)
    if sum(r < 11_000 for r in readings) >= 12:
        assert 10_000 - 0.5 <= lowest <= 10_100  # to less than a tick where readings are equal
    if apart < 1000:
        assert sum(abs(r - lowest) < 1000 for r in readings) > 0.15 * (len(readings) - 1)


def test_an_op_of_few_ticks_is_read_to_a_fraction_of_one_beside_the_empty_op():
    chance = random.Random(0)

    def readings(duration):
        begun = [chance.random() for _ in range(700)]
        return [math.floor(at + duration + chance.random()) - math.floor(at) for at in begun]

    errors, whole = [], []
    for extra in np.linspace(0.3, 9, 60):
        ticks, empty = readings(29.4 + extra), readings(29.4)
        errors.append(abs(quiet(ticks)[0] - quiet(empty)[0] - extra))
        whole.append(abs(sorted(ticks)[35] - sorted(empty)[35] - extra))
    assert np.mean(errors) < 0.25 < np.mean(whole)
    assert max(errors) < 0.6


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_equal_readings_are_taken_apart_by_half_a_tick_at_most(readings):
    lowest = quiet(readings)[0]
    assert abs(lowest - sorted(readings)[int(0.05 * (len(readings) - 1))]) < 0.5
    assert quiet([7] * len(readings)) == (7, 0)  # an exact timer's


def test_on_linux_an_op_whose_lowest_readings_agree_needs_no_further_round_and_another_does():
    policy = Policy.for_device(identity(board="linux-native", ticks_per_instruction=(0, 1)))
    once = [10_000] * 6 + [15_000 + 40 * i for i in range(60)]
    assert not policy.done(once, 11, spent_s=0.1)
    assert policy.done([*once, *[10_050] * 12], 13, spent_s=0.1)
    assert not policy.done([10_000] * 30, 5, spent_s=0.1)


def test_steps_of_a_linux_host_are_repeated_until_the_lowest_agree():
    linux = identity(board="linux-native", ticks_per_instruction=(0, 1))
    policy = Policy.for_steps(linux)
    assert policy.rounds_min * policy.repetitions == 20
    busy = [10_000, *range(15_000, 15_000 + 41 * 19, 41)]
    assert not policy.done(busy, 10, spent_s=0.1)
    assert policy.done([*busy, 10_050, 10_020, 10_010, 10_000], 12, spent_s=0.1)
    assert policy.done(busy, 10, policy.time_per_op_s)
    assert Policy.for_steps(linux, 20).done(busy, 10, spent_s=0.1)
    assert Policy.for_steps(identity()).repetitions == 3
