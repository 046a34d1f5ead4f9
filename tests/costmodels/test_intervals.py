"""Conformal intervals: they hold what they promise, of few ops as of many, and never less than the noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.intervals import POOLED, Intervals, scores_of
from costmodels.sources import NORMAL_90


@pytest.mark.parametrize("n", [20, 60, 400])
def test_coverage_is_kept_whatever_the_errors_look_like(n):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        errors = 0.02 * rng.standard_t(3, n + 200)  # heavier tails than the stated normal deviation
        scores = scores_of(errors, np.full(n + 200, 0.01))
        intervals = Intervals.calibrated(["a"] * n, scores[:n], "held-out ops")
        low, high = intervals.around("a", np.ones(200), np.full(200, 0.01), 0.0)
        measured = np.exp(errors[n:])
        held.append(np.mean((low <= measured) & (measured <= high)))
    assert 0.88 < np.mean(held) < 0.94


def test_a_group_with_many_scores_has_its_own_width_and_one_with_none_that_of_all():
    scores = np.concatenate([np.full(200, 1.0), np.full(200, 5.0)])
    intervals = Intervals.calibrated(["a"] * 200 + ["b"] * 200, scores, "held-out ops")
    assert intervals.widths["a"] == 1 and intervals.widths["b"] == 5
    _, high = intervals.around("unknown", np.ones(1), np.full(1, 0.1), 0.0)
    assert high[0] == pytest.approx(np.exp(0.1 * intervals.widths[POOLED]))


def test_a_group_with_two_scores_leans_on_all():
    scores = np.concatenate([np.full(200, 3.0), np.full(2, 0.1)])
    assert Intervals.calibrated(["a"] * 200 + ["b"] * 2, scores, "").widths["b"] == 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=40), st.floats(0, 1), st.floats(1e-9, 1e9), st.floats(0, 0.3))
def test_no_interval_is_narrower_than_the_noise_floor(scores, relative_std, mean, floor):
    intervals = Intervals.calibrated(["a"] * len(scores), np.array(scores), "cross-validation")
    low, high = intervals.around("a", np.array([mean]), np.array([relative_std * mean]), floor)
    assert 0 <= low[0] <= mean <= high[0]
    assert np.log(high[0] / mean) >= NORMAL_90 * floor * (1 - 1e-9) - 1e-12


def test_a_record_is_read_back_and_a_damaged_one_refused():
    intervals = Intervals.calibrated(["a", "b"], np.array([1.0, 2.0]), "held-out ops")
    assert Intervals.from_record(intervals.to_record()) == intervals
    with pytest.raises(ValueError, match="no interval"):
        Intervals.from_record({"widths": {}, "n": 0, "calibrated_on": "nothing"})


def test_few_scores_beside_many_of_the_others_keep_the_coverage_and_not_much_more():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(400):
        scores = np.abs(rng.standard_normal(407))
        widths = Intervals.calibrated(["a"] * 7 + ["b"] * 400, scores, "held-out ops").widths
        held.append(np.mean(np.abs(rng.standard_normal(400)) <= widths["a"]))
    assert 0.89 < np.mean(held) < 0.915
