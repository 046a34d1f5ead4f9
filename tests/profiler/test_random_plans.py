"""Random plans: reproducible, all of them steps that can be lowered, spread over the network's depth."""

import pytest

from profiler.errors import UserError
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan
from profiler.workloads.random_plans import random_plans
from profiler.workloads.step import training_step


@pytest.fixture(scope="module")
def network():
    return load_network("mcunet-5fps", (3, 16, 16))[1]


def frontier(network, plan):
    return next(i for i, layer in enumerate(network.trainable) if layer.name in plan.layers)


@pytest.mark.parametrize("dtype", ["f32", "s8"])
def test_every_plan_is_a_step_and_frontiers_reach_from_the_first_to_the_last_layers(network, dtype):
    plans = random_plans(network, 16, 3, dtype=dtype)
    assert len(plans) == 16
    for plan in plans.values():
        assert plan.dtype == dtype
        assert training_step(network, plan).ops
    depths = sorted(frontier(network, plan) for plan in plans.values())
    assert depths[0] < len(network.trainable) / 8
    assert depths[-1] >= len(network.trainable) * 7 / 8
    trained = [layer_plan for plan in plans.values() for layer_plan in plan.layers.values()]
    assert {p.axis for p in trained} == {"in", "out"}
    assert LayerPlan(bias=True) in trained
    assert {plan.images for plan in plans.values()} == {1, 2, 3}


def test_the_seed_decides(network):
    first, again, other = (random_plans(network, 4, seed) for seed in (3, 3, 4))
    assert [plan.layers for plan in first.values()] == [plan.layers for plan in again.values()]
    assert list(first) == ["random-3-00", "random-3-01", "random-3-02", "random-3-03"]
    assert [plan.layers for plan in first.values()] != [plan.layers for plan in other.values()]


def test_plans_that_cannot_be_run_are_drawn_again(network):
    refused = []

    def runs(name, plan):
        fits = plan.images == 1
        refused.extend([] if fits else [name])
        return fits

    plans = random_plans(network, 6, 0, runs=runs)
    assert {plan.images for plan in plans.values()} == {1}
    assert refused
    assert set(refused) <= set(plans)
    with pytest.raises(UserError, match=r"of .* random plans of mcunet-5fps the device can run 0"):
        random_plans(network, 2, 0, runs=lambda name, plan: False)
