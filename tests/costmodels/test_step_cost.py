"""Cost of whole training steps: the sum of the ops that a step runs. The model is fitted to a synthetic table."""

import numpy as np
import pytest
import synthetic

from costmodels.measured_steps import MeasuredStep
from costmodels.model import CostModel
from profiler.errors import UserError
from profiler.ops import Conv2d, Depthwise, GlobalAvgPool, Layer
from profiler.workloads.arena import place
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.random_plans import random_plan
from profiler.workloads.step import training_step


@pytest.fixture(scope="module")
def network():
    layers = (
        Layer("first", Conv2d(8, 8, 3, 8, 3, 3, 2, 2, 1, 1), ("input",)),
        Layer("depthwise", Depthwise(4, 4, 8, 3, 3, 1, 1, 1, 1), ("first",)),
        Layer("last", Conv2d(4, 4, 8, 12, 1, 1), ("depthwise",)),
        Layer("pool", GlobalAvgPool(4, 4, 12), ("last",)),
    )
    return Network("small", (3, 8, 8), layers, "pool")


@pytest.fixture(scope="module")
def model():
    table = synthetic.table(synthetic.random_ops(300))
    return CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)


def plan_of(network, images, **layers):
    return StepPlan.for_network(network, layers, images=images, head=Head(classes=3))


def test_a_step_is_the_sum_of_its_ops_once_an_image_or_once_a_step(network, model):
    plan = plan_of(network, 4, last=LayerPlan((0, 1, 5)))
    step = training_step(network, plan)
    expected = sum(model.op_latency_us(s.op) * (4 if s.per_image else 1) for s in step.ops)
    cost = model.step(network, plan)
    assert cost.latency_ms == pytest.approx(expected / 1e3)
    assert list(cost.table["layer"]) == [s.layer for s in step.ops]
    assert cost.table["latency_ms"].sum() == pytest.approx(cost.latency_ms)
    assert set(cost.table["count"][cost.table["pass"] == "update"]) == {1}


def test_images_multiply_everything_but_the_update(network, model):
    one, four = (model.step(network, plan_of(network, n, last=LayerPlan((0, 1)))).table for n in (1, 4))
    ratio = (four["latency_ms"] / one["latency_ms"]).to_numpy()
    np.testing.assert_allclose(ratio, np.where(one["pass"] == "update", 1, 4))


def test_the_quick_latency_is_the_steps_also_after_another_fit(network):
    plans = [
        plan_of(network, images, **layers)
        for images in (1, 4)
        for layers in ({}, {"last": LayerPlan((0, 1, 5))}, {"first": LayerPlan((0,)), "last": LayerPlan()})
    ]
    model, table = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0), synthetic.table(synthetic.random_ops(80))
    for factor in (1, 3):
        model.fit(table.assign(latency_us=factor * table["latency_us"]))
        for plan in plans:
            assert model.step_latency_ms(network, plan) == pytest.approx(model.step(network, plan).latency_ms)


@pytest.mark.parametrize("savings", [(), ("stream", "in_place"), ("stream", "in_place", "fused_update")])
def test_the_quick_latency_of_an_int8_step_is_the_steps(network, model, savings):
    layers = {"depthwise": LayerPlan(), "last": LayerPlan((0, 1, 2), "in")}
    settings = {"dtype": "s8", "optimizer": "sgd", "savings": frozenset(savings), "head": Head(classes=3)}
    plan = StepPlan.for_network(network, layers, **settings)
    cost = model.step(network, plan)
    assert model.step_latency_ms(network, plan) == pytest.approx(cost.latency_ms)
    assert set(cost.table["dtype"]) == {"f32", "s8"}
    same = StepPlan.for_network(network, layers, head=Head(classes=3), optimizer="sgd")
    assert model.step_latency_ms(network, same) != pytest.approx(cost.latency_ms, rel=1e-3)


def test_a_deeper_frontier_costs_more(network, model):
    shallow = model.step(network, plan_of(network, 1, last=LayerPlan((0,))))
    deep = model.step(network, plan_of(network, 1, first=LayerPlan((0,))))
    assert deep.latency_ms > shallow.latency_ms


def test_errors_of_ops_that_share_a_kernel_add_up_and_others_do_not(network, model):
    cost = model.step(network, plan_of(network, 2, last=LayerPlan((0,))))
    parts = cost.table["latency_std_ms"]
    assert np.sqrt((parts**2).sum()) <= cost.latency_std_ms <= parts.sum()


def test_memory_is_the_planned_arena_and_the_measured_stack(network, model):
    plan = plan_of(network, 1, last=LayerPlan((0, 1)))
    stack = 208  # every op of the synthetic table has this
    assert model.step(network, plan).memory_bytes == place(training_step(network, plan)).peak_bytes + stack


def test_a_plan_for_another_network_is_refused(network, model):
    other = Network("other", (3, 8, 8), network.layers[:-1], "last")
    with pytest.raises(UserError, match="fingerprint"):
        model.step(other, plan_of(network, 1, last=LayerPlan((0,))))


def test_energy_of_a_step_is_not_invented(network, model):
    assert model.step(network, plan_of(network, 1, last=LayerPlan((0,)))).energy_mj is None


def measured_step(network, model, plan, factor):
    """As a device would have measured it on which everything takes ``factor`` times as long in a step as alone."""
    step = training_step(network, plan)
    counts = np.array([plan.images if item.per_image else 1 for item in step.ops], dtype=float)
    ops = tuple(item.op for item in step.ops)
    latency = factor * counts * model.latencies_us(ops)
    return MeasuredStep("made up", plan, ops, counts, latency, 0.2 * latency.sum(), "simulated", 1000, "sram")


def test_measured_steps_move_the_costs_of_others_also_after_saving(network, model, tmp_path):
    rng = np.random.default_rng(0)
    plans = [random_plan(network, rng, head=Head(classes=3)) for _ in range(30)]
    fitted = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(synthetic.table(synthetic.random_ops(300)))
    fitted.fit_steps([measured_step(network, model, plan, 1.2) for plan in plans[:12]])
    assert fitted.steps.context.n_steps == 12  # of the others none is judged by what it was fitted to
    for plan in plans[12:]:
        cost = fitted.step(network, plan)
        assert cost.latency_ms == pytest.approx(1.2 * model.step(network, plan).latency_ms, rel=0.005)
        assert cost.energy_mj == pytest.approx(0.2 * cost.latency_ms, rel=0.005)  # no energy of any op was measured
        assert cost.latency_upper_ms(0.5) == pytest.approx(cost.latency_ms)
        assert cost.latency_upper_ms(0.95) == pytest.approx(cost.latency_interval_ms[1])
    fitted.save(tmp_path / "model")
    again = CostModel.load(tmp_path / "model", work=synthetic.work, scratch_bytes=lambda op: 0)
    for plan in plans[12:]:
        saved, cost = again.step(network, plan), fitted.step(network, plan)
        for name in ("latency_ms", "latency_std_ms", "energy_mj", "energy_std_mj", "memory_bytes"):
            assert getattr(saved, name) == pytest.approx(getattr(cost, name), rel=1e-9)
