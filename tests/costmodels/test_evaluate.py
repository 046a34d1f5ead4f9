"""Evaluation: held-out ops only, beside the baselines, refusing what does not belong together."""

import dataclasses

import numpy as np
import pytest
import synthetic

from costmodels.accuracy import LinearBaseline, ScalarBaseline, accuracy, best_scalar
from costmodels.evaluate import evaluate
from costmodels.measured import geometry_key, read
from costmodels.model import CostModel
from costmodels.plots import predicted_against_measured, timer_note
from profiler.errors import UserError
from profiler.ops import Add, Linear, Op, Pass


@pytest.fixture(scope="module")
def table():
    return synthetic.table(synthetic.random_ops(300, seed=1), noise=0.002)


@pytest.fixture(scope="module")
def evaluation(table):
    return evaluate(CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table), read(table))


def test_accuracy_figures_against_numbers_by_hand():
    figures = accuracy(np.array([100.0, 100, 100, 100]), np.array([100.0, 104, 92, 120]))
    assert figures["n"] == 4
    assert figures["mape_percent"] == pytest.approx((0 + 4 + 8 + 20) / 4)
    assert figures["bias_percent"] == pytest.approx((0 + 4 - 8 + 20) / 4)
    assert figures["within_5_percent"] == 50
    assert figures["within_10_percent"] == 75


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
    assert baseline.us_per_mac_ == pytest.approx(2)
    np.testing.assert_allclose(baseline.predict(ops), [64, 600, 300])


def test_linear_baseline_finds_overhead_and_slope_of_each_kind_and_pass():
    ops = [Op(Linear(8 * i, 4), Pass.FORWARD) for i in range(1, 9)] + [Op(Add(10 * i), Pass.FORWARD) for i in (1, 2, 5)]
    latency = np.array([7 + 0.5 * op.macs if op.macs else 3 + 0.1 * op.geometry.elements * 3 for op in ops])
    np.testing.assert_allclose(LinearBaseline().fit(ops, latency).predict(ops), latency, rtol=1e-3)


def test_only_ops_of_geometries_that_the_fit_never_saw_are_judged(evaluation, table):
    measured = read(table)
    held_out = measured.frame["held_out"].to_numpy()
    seen = set(measured.subset(~held_out).geometries)
    unseen = {op.key for op in measured.subset(held_out).ops if geometry_key(op) not in seen}
    assert evaluation.judged_on == "held-out ops"
    assert set(evaluation.points["op_key"]) == unseen
    assert sum(row["n"] for row in evaluation.by_op) == len(unseen) > 40


def test_where_the_fit_saw_everything_geometries_are_left_out_in_turn(table):
    fit_on_all = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table, include_held_out=True)
    evaluation = evaluate(fit_on_all, read(table))
    assert evaluation.judged_on == "ops left out in turn"
    points = evaluation.points.set_index("op_key")
    assert len(points) > 0.95 * len(table)
    # A model judged on what it was fitted to would look better than it is.
    seen = fit_on_all.predict([op for op in read(table).ops if op.key in points.index])["latency_us"].to_numpy()
    assert np.abs(points["fitted"].loc[[*points.index]].to_numpy() / points["measured_us"] - 1).mean() > 0
    assert not np.allclose(np.sort(points["fitted"].to_numpy()), np.sort(seen), rtol=1e-6)


def test_a_run_of_one_geometry_that_was_fitted_cannot_be_judged():
    table = synthetic.table([Op(Linear(8, 4), Pass.FORWARD), Op(Linear(8, 4), Pass.GRAD_INPUT)], held_out=False)
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    with pytest.raises(UserError, match="no kind has a second geometry"):
        evaluate(model, read(table))


def test_the_fitted_model_beats_both_baselines(evaluation):
    overall = evaluation.overall["all ops"]
    assert overall["fitted"]["mape_percent"] < 1
    assert overall["fitted"]["mape_percent"] < overall["linear in MACs"]["mape_percent"]
    assert overall["fitted"]["mape_percent"] < overall["c × MACs"]["mape_percent"]


def test_intervals_cover_most_held_out_ops(evaluation):
    assert 75 <= evaluation.overall["all ops"]["fitted"]["coverage_90_percent"] <= 100


def test_memory_is_judged_too(evaluation):
    assert evaluation.memory["mape_percent"] < 1e-9  # buffers and stack, as the synthetic device has them


def test_a_run_of_another_device_or_timer_is_refused(table):
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    measured = read(table)
    for field in ("device", "timer"):
        with pytest.raises(UserError, match="other"):
            evaluate(model, dataclasses.replace(measured, **{field: "other"}))


def test_the_plot_is_a_png(evaluation, tmp_path):
    predicted_against_measured(evaluation, tmp_path / "plots" / "p.png")
    assert (tmp_path / "plots" / "p.png").read_bytes().startswith(b"\x89PNG")


def test_emulated_time_is_called_what_it_is():
    assert timer_note("instructions") == "emulated: time = instructions"
