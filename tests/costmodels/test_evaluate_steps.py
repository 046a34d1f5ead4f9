"""Whole steps in evaluations: measured beside foreseen, on a step run that an emulated board wrote."""

import math

import numpy as np
import pandas as pd
import pytest

from costmodels.accuracy import FIGURES
from costmodels.evaluate_steps import step_points, step_summary


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
