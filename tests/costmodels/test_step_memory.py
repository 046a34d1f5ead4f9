"""Planned memory of steps: that of the program that a device runs, in the region where its arena lies."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
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


@pytest.fixture(scope="module")
def memory():
    """One for all plans: what was planned for one serves others."""
    return ArenaMemory(IDENTITY)


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


def test_bounds_of_plans_with_a_known_frontier_need_no_planning(monkeypatch):
    memory, network = ArenaMemory(IDENTITY), NETWORKS["mcunet"]
    plans = [random_plan(network, np.random.default_rng(seed), depth=20) for seed in range(30)]
    planned = []
    place = memory._placed
    monkeypatch.setattr(memory, "_placed", lambda step: planned.append(step) or place(step))
    for plan in plans:
        low, high = memory.plan_bounds(network, plan)
        assert low <= high
    assert len(planned) <= 12  # for each frontier's own plan (axis, bias, or bias alone), once, and the whole of it
