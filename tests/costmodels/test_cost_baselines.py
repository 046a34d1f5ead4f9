"""Baselines learn what they say they learn, from the ops that they are given."""

import numpy as np
import pytest

from costmodels.accuracy import best_scalar
from costmodels.baselines import (
    NN_METER_FEATURES,
    ConstantPower,
    InputAndOutput,
    LinearBaseline,
    NnMeterForest,
    ScalarBaseline,
    baselines_of,
    nn_meter_features,
)
from profiler.ops import Add, Conv2d, Depthwise, GlobalAvgPool, Linear, MaxPool2d, Op, Pass, Relu


def features(op):
    row = nn_meter_features([op])[0]
    return {name: value for name, value in zip(NN_METER_FEATURES, row, strict=True) if value}


def test_no_other_scalar_has_a_smaller_mean_error():
    rng = np.random.default_rng(0)
    amount = rng.uniform(1, 100, 51)
    cost = amount * np.exp(rng.normal(size=51))
    best = best_scalar(amount, cost)

    def mape(c):
        return np.abs(c * amount / cost - 1).mean()

    assert all(mape(best) <= mape(c) + 1e-12 for c in np.geomspace(best / 10, best * 10, 200))


def test_ops_without_macs_are_charged_by_words_in_the_scalar_baseline():
    ops = [Op(Linear(8, 4), Pass.FORWARD), Op(Add(100), Pass.FORWARD), Op(Add(50), Pass.FORWARD)]
    baseline = ScalarBaseline().fit(ops, np.array([64.0, 600.0, 300.0]))
    assert baseline.cost_per_mac_ == pytest.approx(2)
    np.testing.assert_allclose(baseline.predict(ops), [64, 600, 300])


def test_linear_baseline_finds_overhead_and_slope_of_each_kind_and_pass():
    ops = [Op(Linear(8 * i, 4), Pass.FORWARD) for i in range(1, 9)] + [Op(Add(10 * i), Pass.FORWARD) for i in (1, 2, 5)]
    latency = np.array([7 + 0.5 * op.macs if op.macs else 3 + 0.1 * op.geometry.elements * 3 for op in ops])
    np.testing.assert_allclose(LinearBaseline().fit(ops, latency).predict(ops), latency, rtol=1e-3)


def test_linear_baseline_takes_the_line_of_the_pass_for_a_kind_that_it_never_saw():
    seen = [Op(Linear(8 * i, 4), Pass.FORWARD) for i in range(1, 9)]
    baseline = LinearBaseline().fit(seen, np.array([7 + 0.5 * op.macs for op in seen]))
    other = Op(Conv2d(4, 4, 2, 3, 1, 1), Pass.FORWARD)
    assert baseline.predict([other])[0] == pytest.approx(7 + 0.5 * other.macs, rel=1e-3)


def test_nn_meters_features_are_those_that_it_publishes_for_each_kind():
    conv = Op(Conv2d(12, 10, 8, 16, 3, 5, 2, 1, 1, 2), Pass.FORWARD)
    assert features(conv) == {
        **{"H": 12, "W": 10, "CIN": 8, "COUT": 16, "KERNEL_SIZE_H": 3, "KERNEL_SIZE_W": 5},
        **{"STRIDES_H": 2, "STRIDES_W": 1, "FLOPS": conv.macs / 1e6, "PARAMS": (16 * 15 * 8 + 16) / 1e6},
    }
    assert features(Op(Depthwise(6, 6, 8, 3, 3, 1, 1, 1, 1), Pass.FORWARD))["PARAMS"] == (8 * 9 + 8) / 1e6
    assert set(features(Op(MaxPool2d(8, 8, 4, 2, 2, 2, 2), Pass.FORWARD))) == {
        *("H", "W", "CIN", "COUT", "KERNEL_SIZE_H", "KERNEL_SIZE_W", "STRIDES_H", "STRIDES_W")
    }
    linear = features(Op(Linear(20, 5), Pass.FORWARD))
    assert (linear["CIN"], linear["COUT"], linear["FLOPS"], linear["PARAMS"]) == (20, 5, 1e-4, 105e-6)
    assert features(Op(GlobalAvgPool(4, 5, 6), Pass.FORWARD)) == {"H": 4, "W": 5, "CIN": 6}
    assert features(Op(Relu(30), Pass.FORWARD))["CIN"] == 30


def test_the_forest_tells_passes_and_trained_channels_apart():
    geometry = Linear(16, 12)
    op = Op(geometry, Pass.GRAD_WEIGHT, trained_channels=3, trained_axis="in")
    assert features(op)["trained_channels"] == 3 and features(op)["trained_axis_in"] == 1
    assert features(op)["PARAMS"] == features(Op(geometry, Pass.FORWARD))["PARAMS"]


def test_the_forest_repeats_what_it_saw_and_cannot_go_beyond_it():
    ops = [Op(Linear(8 * i, 16), Pass.FORWARD) for i in range(1, 60)]
    latency = np.array([3.0 + op.macs for op in ops])
    forest = NnMeterForest().fit(ops, latency)
    np.testing.assert_allclose(forest.predict(ops)[5:], latency[5:], rtol=0.1)
    assert forest.predict([Op(Linear(8000, 16), Pass.FORWARD)])[0] <= latency.max()


def test_constant_power_is_energy_over_the_models_own_time():
    ops = [Op(Add(10 * i), Pass.FORWARD) for i in range(1, 9)]

    def latencies_us(asked):
        return np.array([2.0 * op.geometry.elements for op in asked])

    baseline = ConstantPower(latencies_us).fit(ops, 0.25 * latencies_us(ops))
    assert baseline.power_w_ == pytest.approx(0.25)
    assert baseline.predict(ops[:1]) == pytest.approx(0.25 * 20)


def test_input_and_output_are_what_an_op_reads_and_writes_without_weights_in_flash():
    g = Conv2d(4, 4, 2, 3, 1, 1)
    forward, grad_weight, update = (
        Op(g, Pass.FORWARD),
        Op(g, Pass.GRAD_WEIGHT, trained_channels=3),
        Op(g, Pass.UPDATE, trained_channels=3),
    )
    maps, weights = 4 * (4 * 4 * 2 + 4 * 4 * 3), 4 * 6
    np.testing.assert_array_equal(
        InputAndOutput().fit([], np.empty(0)).predict([forward, grad_weight, update]),
        [maps, maps + weights, 2 * weights],
    )


def test_each_target_has_its_own_baselines():
    names = {target: [b.name for b in baselines_of(target, lambda ops: np.ones(len(ops)))] for target in TARGETS}
    assert names["latency"] == ["c × MACs", "linear in MACs", "random forest, nn-Meter's features"]
    assert names["energy"] == ["constant power × time", *names["latency"]]
    assert "c × MACs" not in names["memory"]


TARGETS = ("latency", "energy", "memory")
