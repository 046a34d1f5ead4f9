"""Whole steps in evaluations: measured beside foreseen, the baselines' sums, and what is left out."""

import math

import numpy as np
import pandas as pd
import pytest
import synthetic

from costmodels import evaluate_steps
from costmodels.accuracy import FIGURES
from costmodels.evaluate_steps import SUM_OF_OPS, judge_steps, step_points, step_summary
from costmodels.measured_steps import MeasuredStep
from costmodels.model import CostModel
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.step import training_step


@pytest.fixture
def table():
    """Three steps of two networks, the last without energy."""
    return pd.DataFrame(
        {
            "run": "r", "plan": ["a", "b", "c"], "network": ["x", "x", "y"], "images": 1,
            "latency_measured": [10.0, 20.0, 40.0], "latency_fitted": [10.1, 19.0, 40.0],
            "latency_low": [9.0, 18.0, 39.0], "latency_high": [11.0, 19.5, 41.0],
            "energy_measured": [1.0, 2.0, math.nan], "energy_fitted": [1.0, 2.2, 4.0],
            "energy_low": math.nan, "energy_high": math.nan,
            "memory_measured": [100.0, 100.0, 100.0], "memory_fitted": [100.0, 101.0, 100.0],
            "memory_low": math.nan, "memory_high": math.nan,
            "latency_c × MACs": [20.0, 20.0, 20.0],
        }
    )  # fmt: skip


def test_figures_of_steps_by_target_network_and_baseline(table):
    summary = step_summary(table)
    assert summary["n"] == 3
    assert summary["latency"]["mape_percent"] == pytest.approx((1 + 5 + 0) / 3)
    assert summary["latency"]["coverage_90_percent"] == pytest.approx(200 / 3)
    assert summary["energy"]["n"] == 2 and summary["energy"]["bias_percent"] == pytest.approx(5)
    assert np.isnan(summary["energy"]["coverage_90_percent"])
    assert summary["memory"]["max_percent"] == pytest.approx(1)
    assert [row["n"] for row in summary["by_network"]] == [2, 1]
    assert summary["baselines"]["c × MACs"]["latency"]["mape_percent"] == pytest.approx((100 + 0 + 50) / 3)
    assert summary["baselines"]["c × MACs"]["energy"]["n"] == 0
    assert all(set(FIGURES) <= set(summary[target]) for target in ("latency", "energy", "memory"))


def test_steps_that_lack_a_figure_are_not_judged_on_it(table):
    assert step_points(table)["energy"]["plan"].tolist() == ["a", "b"]


def test_runs_without_steps_have_no_summary():
    assert step_summary(pd.DataFrame()) is None


@pytest.fixture(scope="module")
def model():
    return CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(synthetic.table(synthetic.random_ops(120)))


@pytest.fixture(scope="module")
def measured():
    """Two steps of a made-up device on which ops cost in a step what they cost alone."""
    _, network = load_network("mcunet-5fps", (3, 16, 16))
    steps = []
    for n in (1, 2):
        plan = StepPlan.for_network(
            network, {layer.name: LayerPlan((0,)) for layer in network.trainable[-n:]}, images=n
        )
        step = training_step(network, plan)
        counts = np.array([plan.images if item.per_image else 1 for item in step.ops], dtype=float)
        alone = np.array([synthetic.latency_us(item.op) for item in step.ops])
        ops = tuple(item.op for item in step.ops)
        steps.append(MeasuredStep(f"plan-{n}", plan, ops, counts, counts * alone, np.nan, "", 123_456, "sram"))
    return steps


def judged(model, measured, monkeypatch):
    monkeypatch.setattr(evaluate_steps, "check_same_device", lambda runs, identity: None)
    monkeypatch.setattr(evaluate_steps, "read_steps", lambda runs: measured)
    return judge_steps(model, ["run"])


def test_a_step_is_judged_on_what_the_model_foresees_of_its_plan(model, measured, monkeypatch):
    table = judged(model, measured, monkeypatch)
    assert table["plan"].tolist() == ["plan-1", "plan-2"] and table["images"].tolist() == [1, 2]
    _, network = load_network("mcunet-5fps", (3, 16, 16))
    for row, step in zip(table.itertuples(), measured, strict=True):
        assert row.latency_measured == pytest.approx(step.latency_us.sum() / 1e3)
        assert row.latency_fitted == pytest.approx(model.step(network, step.plan).latency_ms)
        assert row.latency_low <= row.latency_fitted <= row.latency_high
        assert row.memory_measured == 123_456
    assert table["energy_measured"].isna().all()
    np.testing.assert_allclose(table[f"latency_{SUM_OF_OPS}"], table["latency_fitted"])
    assert (table["latency_c × MACs"] > 0).all()


def test_steps_that_the_model_was_fitted_to_are_not_judged(model, measured, monkeypatch):
    card = model.card_ | {"fitted_steps": [measured[0].key]}
    monkeypatch.setattr(model, "card_", card)
    with pytest.warns(UserWarning, match="1 of the measured steps are left out"):
        table = judged(model, measured, monkeypatch)
    assert table["plan"].tolist() == ["plan-2"]


def test_a_fitted_model_remembers_which_steps_it_was_fitted_to(model, measured, tmp_path):
    fitted = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(synthetic.table(synthetic.random_ops(40)))
    fitted.fit_steps(measured).save(tmp_path / "model")
    again = CostModel.load(tmp_path / "model", work=synthetic.work, scratch_bytes=lambda op: 0)
    assert again.card_["fitted_steps"] == sorted(step.key for step in measured)
