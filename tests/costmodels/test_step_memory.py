"""Planned memory of steps: that of the program that a device runs, in the region where its arena lies."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_step_sums import NETWORKS, PLANS, drawn

from costmodels.memory import ArenaMemory
from profiler.devices.identity import Identity
from profiler.ops import Add, Op, Pass
from profiler.workloads.program import DeviceMemory, microbenchmark, step_program
from profiler.workloads.random_plans import random_plan
from profiler.workloads.step import training_step

RUNS = Path(__file__).parents[1] / "fixtures/runs"


def identity_of(run):
    return json.loads((RUNS / run / "manifest.json").read_text())["identity"]


IDENTITY = identity_of("schema-2-int8")
#: With frozen weights in the blob, in the arena, and of a device that is not known.
IDENTITIES = {"board": IDENTITY, "no blob": IDENTITY | {"blob_bytes": 0, "blob_segments": []}, "unknown": {}}


@pytest.fixture(scope="module")
def memory():
    """One for all plans: what was planned for one serves others."""
    return ArenaMemory(IDENTITY)


@pytest.fixture(scope="module")
def memories():
    return {name: ArenaMemory(identity) for name, identity in IDENTITIES.items()}


# Not shrunk: each smaller plan that still fails would be placed anew, for minutes.
@settings(deadline=None, max_examples=60, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(PLANS)
def test_bytes_of_a_plan_are_those_of_its_program_and_bounds_hold(memory, case):
    network, plan = drawn(case)
    step = training_step(network, plan)
    roomy = DeviceMemory(**{**vars(DeviceMemory.of(Identity.from_dict(IDENTITY))), "arena_bytes": 1 << 40})
    program = step_program(step, roomy)
    low, high = memory.plan_bounds(network, plan)
    assert memory.plan_bytes(network, plan) == memory.step_bytes(step) == program.arena_bytes
    assert low <= program.arena_bytes <= high
    assert memory.plan_bounds(network, plan) == (program.arena_bytes, program.arena_bytes)


def test_a_lower_bound_is_none_that_a_placement_undercuts_nor_far_below_the_tightest():
    """Plans one by one: a bound that is too high fails at once, with no other plan searched for."""
    network, slack = NETWORKS["forked"], []
    for seed in range(24):
        plan = dataclasses.replace(random_plan(network, np.random.default_rng(seed), dtype="s8"), savings=frozenset())
        low, high = ArenaMemory(IDENTITY).plan_bounds(network, plan)
        exact = ArenaMemory(IDENTITY).plan_bytes(network, plan)
        assert low <= exact <= high, f"seed {seed}"
        slack.append(exact - low)
    assert min(slack) < 16  # the alignment: most are as tight as that
    assert np.median(slack) < 16


def test_memory_is_planned_for_the_region_where_the_arena_lies():
    regions = [*IDENTITY["memory"], {"name": "large", "byte_count": 4 << 20, "region": 2, "cached": True}]
    identity = IDENTITY | {"memory": regions}
    # Its output may overwrite an input where they do not fit beside each other, which in the large region they do.
    op = Op(Add(12_000), Pass.FORWARD)
    for region in (None, "large"):
        memory = DeviceMemory.of(Identity.from_dict(identity), region)
        assert ArenaMemory(identity, region).op_bytes(op, 0) == microbenchmark(op, memory).arena_bytes
    assert ArenaMemory(identity, "large").op_bytes(op, 0) > ArenaMemory(identity).op_bytes(op, 0)


@settings(deadline=None, max_examples=80)
@given(PLANS, st.sampled_from(sorted(IDENTITIES)))
def test_bytes_of_a_plan_without_savings_are_known_at_once_and_are_those_of_its_placed_step(memories, case, name):
    network, plan = drawn(case)
    plan = dataclasses.replace(plan, savings=frozenset())
    expected = memories[name].step_bytes(training_step(network, plan))
    assert memories[name].plan_bounds(network, plan) == (expected, expected)
    assert memories[name].plan_bytes(network, plan) == expected


@settings(deadline=None, max_examples=60)
@given(PLANS, st.integers(0, 10**6))
def test_a_step_that_trains_more_behind_the_same_frontier_takes_no_less(memory, case, seed):
    network, plan = drawn(case)
    first = next(layer.name for layer in network.trainable if layer.name in plan.layers)
    rng = np.random.default_rng(seed)
    fewer = {name: p for name, p in plan.layers.items() if name == first or rng.random() < 0.5}
    least = memory.plan_moments(network, dataclasses.replace(plan, layers=fewer, dtype="f32", savings=frozenset()))
    assert list(least) == [()]
    assert least[()] <= memory.plan_bytes(network, dataclasses.replace(plan, dtype="f32", savings=frozenset()))


def test_no_plan_without_savings_is_lowered_and_placed_for_its_cost(memory, monkeypatch):
    monkeypatch.setattr("costmodels.memory.place", lambda *_, **__: pytest.fail("placed"))
    monkeypatch.setattr("costmodels.memory.training_step", lambda *_: pytest.fail("lowered"))
    for dtype in ("f32", "s8"):
        plan = random_plan(NETWORKS["mcunet"], np.random.default_rng(0), depth=20, dtype=dtype)
        memory.plan_bytes(NETWORKS["mcunet"], dataclasses.replace(plan, savings=frozenset()))
