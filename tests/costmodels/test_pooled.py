"""Ops of kernels that were never fitted: their intervals say how far off such are. Costs are synthetic."""

import numpy as np
import pytest
import synthetic

from costmodels.calibration import Calibration
from costmodels.features import group_key
from costmodels.pooled import LEVELS, UNTOLD, PooledTerms, interval
from costmodels.step_energy import StepEnergy
from costmodels.target import TargetModel

OPS = synthetic.random_ops(400)
KERNELS = np.array([f"{op.kind}/{op.pass_}" for op in OPS])


def costs(seed, spread=0.8):
    """Of :data:`OPS`: each kernel has a price of its own."""
    rng = np.random.default_rng(seed)
    price = {kernel: np.exp(spread * rng.normal()) for kernel in np.unique(KERNELS)}
    return np.array([synthetic.latency_us(op) * price[kernel] for op, kernel in zip(OPS, KERNELS, strict=True)])


def ops_of(rows):
    return [OPS[i] for i in np.flatnonzero(rows)]


def test_nine_of_ten_ops_of_a_kernel_that_was_not_fitted_lie_in_the_interval():
    inside, reach = [], []
    for seed in range(4):
        y = costs(seed)
        for kernel in np.unique(KERNELS):
            own = kernel == KERNELS
            low, high = interval(*PooledTerms.fit(ops_of(~own), y[~own]).predict(ops_of(own)))
            inside.append(np.mean((low <= y[own]) & (y[own] <= high)))
            reach.append(np.log(high / low)[0] / 2)
    assert np.mean(inside) > 0.8
    assert np.median(reach) < 3 * 1.645 * 0.8


def test_a_model_states_that_interval_and_keeps_it_when_it_is_saved():
    y = costs(0)
    missing = KERNELS == "depthwise/grad_weight"
    model = TargetModel(work=synthetic.work, method="terms").fit(ops_of(~missing), y[~missing])
    foreseen = model.predict(ops_of(missing))
    width = model.pooled.widths["pass/dtype"]
    assert width > 0.8
    np.testing.assert_allclose(np.log(foreseen.high_90 / foreseen.mean), width)
    np.testing.assert_allclose(np.log(foreseen.low_90 / foreseen.mean), -width)
    np.testing.assert_allclose(foreseen.mean + 1.645 * foreseen.std, foreseen.high_90, rtol=1e-3)
    arrays = {}
    record = model.to_record("", arrays)
    again = TargetModel.from_record(record, arrays, work=synthetic.work).predict(ops_of(missing))
    np.testing.assert_array_equal(again.high_90, foreseen.high_90)
    del record["pooled_widths"]  # as models of earlier versions are
    older = TargetModel.from_record(record, arrays, work=synthetic.work).predict(ops_of(missing))
    np.testing.assert_allclose(older.high_90 / older.mean, 10)


def test_where_too_few_kernels_were_fitted_a_factor_of_ten_is_taken_at_least():
    few = np.isin(KERNELS, ["linear/forward", "conv2d/forward", "add/forward"])
    pooled = PooledTerms.fit(ops_of(few), costs(1, spread=0.1)[few])
    assert dict(pooled.widths) == dict.fromkeys(LEVELS, UNTOLD)


def test_what_is_further_from_what_was_fitted_is_known_no_better():
    y = costs(2) * np.array([30.0 if op.pass_ == "update" else 1.0 for op in OPS])
    widths = [PooledTerms.fit(OPS, y).widths[level] for level in LEVELS]
    assert widths == sorted(widths)
    assert widths[-1] > 3


def test_held_out_ops_of_a_kernel_that_was_not_fitted_do_not_widen_the_intervals_of_others():
    y = costs(3) * np.exp(0.02 * np.random.default_rng(0).normal(size=len(OPS)))
    missing = KERNELS == "conv2d/grad_input"
    held_out = np.arange(len(OPS)) % 4 == 0
    fitted = ~missing & ~held_out
    model = TargetModel(work=synthetic.work, method="terms").fit(ops_of(fitted), y[fitted])
    with_missing, without = (
        model.uncalibrated().calibrate(ops_of(rows), y[rows]).intervals for rows in (held_out, held_out & ~missing)
    )
    assert with_missing == without
    assert without.calibrated_on == "held-out ops"
    assert {group_key(op) for op in ops_of(missing)}.isdisjoint(with_missing.widths)


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_good_forecasts_of_steps_do_not_make_kernels_known_that_were_not_fitted(scale):
    calibration = Calibration(scale=scale)
    assert calibration.std(100.0, 0.0, 40.0) == pytest.approx(40 * max(scale, 1))
    energy = StepEnergy("power", power_w=0.5, calibration=calibration)
    assert energy.of(None, (100.0, 0.0, 40.0)) == (50, pytest.approx(20 * max(scale, 1)))
