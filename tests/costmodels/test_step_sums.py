"""Quick costs of whole steps are those of the step's ops, added up one by one; memory is the planner's."""

import dataclasses
import time

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from costmodels.features import group_key
from costmodels.model import CostModel
from costmodels.sums import OpSums
from profiler.errors import UserError
from profiler.workloads.lower import load_network, lower
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import DeviceMemory
from profiler.workloads.program_size import ProgramSizes
from profiler.workloads.random_plans import random_plan
from profiler.workloads.step import training_step


class Forked(nn.Module):
    """Two residual blocks, one with a convolution in its shortcut, and reductions between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, padding=1)
        self.expand, self.depthwise = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project, self.shortcut = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 1)
        self.wide, self.deep = nn.Conv2d(8, 24, 1), nn.Conv2d(24, 24, 5, 2, padding=2, groups=24)
        self.last = nn.Conv2d(24, 12, 1)

    def forward(self, x):
        x = nn.functional.relu(self.stem(x))
        y = self.project(nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x)))))
        x = y + self.shortcut(x) + x
        y = nn.functional.relu(self.deep(nn.functional.relu(self.wide(x))))
        return self.last(y).mean((2, 3))


NETWORKS = {
    "forked": lower(Forked().eval(), (3, 16, 16), "forked"),
    "mcunet": load_network("mcunet-5fps", (3, 16, 16))[1],
}
#: Of a device without a blob, where there is most to fill; entries of an odd size, so that no other sum gives theirs.
PROGRAMS = ProgramSizes(DeviceMemory(arena_bytes=1 << 40, blob_bytes=0, blob_seed=0, blob_segments=(), entry_bytes=101))
PLANS = st.tuples(st.sampled_from(sorted(NETWORKS)), st.sampled_from(["f32", "s8"]), st.integers(0, 10**6))


def drawn(case):
    name, dtype, seed = case
    network = NETWORKS[name]
    return network, random_plan(network, np.random.default_rng(seed), dtype=dtype)


def latency(op):
    """Differs with everything that an op is."""
    return 1 + sum(ord(c) * (i % 7 + 1) for i, c in enumerate(op.key)) % 1009 + op.macs / 1e3


@pytest.fixture(scope="module")
def sums():
    """One for all plans: parts learned from one plan serve the others."""
    return OpSums(lambda ops: [latency(op) for op in ops], lambda op: len(op.key), lambda: PROGRAMS)


@settings(deadline=None, max_examples=120)
@given(PLANS)
def test_sums_of_parts_are_those_of_the_steps_ops(sums, case):
    network, plan = drawn(case)
    step = training_step(network, plan)
    expected = sum(latency(item.op) * (plan.images if item.per_image else 1) for item in step.ops)
    costs, peak, program_bytes = sums.step_costs(network, plan)
    assert costs[0] == pytest.approx(expected, rel=1e-12)
    assert peak == max(len(item.op.key) for item in step.ops)
    assert program_bytes == PROGRAMS.step_bytes(network, step)


@pytest.fixture(scope="module")
def model():
    table = synthetic.table(synthetic.random_ops(300), noise=0.01)
    table["energy_uj"] = 0.3 * table["latency_us"]
    return CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)


@settings(deadline=None, max_examples=30)
@given(PLANS)
def test_a_steps_cost_is_that_of_its_rows_and_its_uncertainty_adds_up_within_groups(model, case):
    network, plan = drawn(case)
    cost, rows = model.step(network, plan), model.step(network, plan).rows
    assert cost.latency_ms == pytest.approx(sum(row["latency_ms"] for row in rows), rel=1e-9)
    assert cost.energy_mj == pytest.approx(sum(row["energy_mj"] for row in rows), rel=1e-9)
    assert model.step_latency_ms(network, plan) == pytest.approx(cost.latency_ms, rel=1e-12)
    fitted, of_group = model.targets["latency"].groups, {}
    for item, row in zip(training_step(network, plan).ops, rows, strict=True):
        group = key if (key := group_key(item.op)) in fitted else "not fitted"
        of_group[group] = of_group.get(group, 0) + row["latency_std_ms"]
    assert cost.latency_std_ms == pytest.approx(np.sqrt(sum(std**2 for std in of_group.values())), rel=1e-9)


def test_single_channels_of_int8_weights_have_no_cost_whatever_was_asked_for_before(model):
    network = NETWORKS["forked"]
    plan = StepPlan.for_network(network, {"last": LayerPlan((0, 1))}, dtype="s8")
    model.step(network, plan)
    with pytest.raises(UserError, match="first so many"):
        model.step(network, dataclasses.replace(plan, layers={"last": LayerPlan((1, 3))}))


@pytest.mark.parametrize("dtype", ["f32", "s8"])
def test_a_new_plan_from_known_choices_costs_about_a_millisecond_at_most(model, dtype):
    """Of processor time, since other work on this machine takes its own, with room for a slow one."""
    network, rng = NETWORKS["mcunet"], np.random.default_rng(0)
    settings_ = {"dtype": dtype, "optimizer": "sgd", "images": 2}

    def plan():
        depth = int(rng.integers(1, len(network.trainable)))
        layers = {}
        for layer in network.trainable[-depth:]:
            if rng.random() < 0.5:
                count = layer.geometry.channels("out")
                layers[layer.name] = LayerPlan(tuple(range(max(1, int(rng.choice([1 / 8, 1 / 4, 1 / 2, 1]) * count)))))
        return StepPlan.for_network(network, layers, **settings_)

    spent = []
    for _ in range(400):
        candidate = plan()
        before = time.process_time()
        model.step_sums(network, candidate)
        spent.append(time.process_time() - before)
    assert np.median(spent[200:]) < 2e-3
    assert np.median(spent[200:]) < np.median(spent[:5]) / 5
