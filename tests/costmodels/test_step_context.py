"""What ops cost in a step, learned from made-up steps whose truth is known."""

import dataclasses
import json

import numpy as np
import pytest

from costmodels.calibration import Calibration
from costmodels.context import StepContext, StepObservation
from costmodels.step_energy import StepEnergy

KEYS = ("conv2d/forward/f32", "conv2d/grad_weight/f32", "depthwise/forward/f32", "relu/forward/f32")
TRUTH = StepContext(
    factors=dict(zip(KEYS, (1.0, 1.1, 0.95, 1.04), strict=True)), common_factor=1.02, cold_share=0.4, overhead_us=0.7
)


def steps(n, *, noise=0.0, cold=True, seed=0, truth=TRUTH):
    """Steps of random ops, measured as ``truth`` says, each with an error of its own of relative size ``noise``."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        keys = tuple(rng.choice(KEYS, 40).tolist())
        warm = rng.lognormal(3, 1, 40)
        cold_us = warm * rng.uniform(1.0, 1.6, 40) if cold else None
        counts = np.full(40, float(rng.integers(1, 5)))
        measured = counts * truth.latency_us(keys, warm, cold_us) * (1 + noise * rng.normal())
        found.append(StepObservation(keys, counts, warm, cold_us, measured, std_us=0.005 * float(counts @ warm)))
    return found


def errors(context, judged):
    return np.array([context.step_us(step) / step.total_us - 1 for step in judged])


@pytest.mark.parametrize("cold", [True, False])
def test_a_context_learned_from_some_steps_holds_for_others(cold):
    truth = dataclasses.replace(TRUTH, cold_share=0.4 if cold else 1.0)
    context = StepContext.fit(steps(12, cold=cold, truth=truth))
    judged = steps(30, seed=1, cold=cold, truth=truth)
    assert np.abs(errors(context, judged)).max() < 0.004
    assert np.abs(errors(StepContext(), judged)).mean() > 0.02
    assert context.figures["mape_percent"] < context.figures["mape_without_context_percent"] / 4


def test_before_any_step_is_measured_ops_cost_what_they_cost_alone_and_cold_where_that_is_known():
    (warm_only,), (both,) = steps(1, cold=False), steps(1)
    assert StepContext().step_us(warm_only) == pytest.approx(warm_only.counts @ warm_only.warm_us)
    assert StepContext().step_us(both) == pytest.approx(both.counts @ both.cold_us)


def test_too_few_steps_change_no_cost_but_show_how_far_off_they_are():
    few = steps(3)
    context = StepContext.fit(few)
    assert context.factors == {}
    assert context.calibration.spread > 0.02
    assert context.n_steps == 3


def network_steps(name, n, *, op_error, noise=0.001, seed=0, truth=TRUTH):
    """Steps of one network: each runs most of its 60 ops, whose costs alone are foreseen with errors of relative size
    ``op_error`` that all its steps share, half of them by kind and pass."""
    rng = np.random.default_rng(seed)
    keys, warm = rng.choice(KEYS, 60), rng.lognormal(3, 1, 60)
    cold = warm * rng.uniform(1.0, 1.6, 60)
    of_key = dict(zip(KEYS, rng.normal(size=len(KEYS)), strict=True))
    error = op_error * np.sqrt(0.5) * (np.array([of_key[key] for key in keys]) + rng.normal(size=60))
    found = []
    for _ in range(n):
        runs = rng.random(60) < 0.8
        own, counts = tuple(keys[runs].tolist()), np.full(runs.sum(), float(rng.integers(1, 5)))
        measured = counts * truth.latency_us(own, warm[runs], cold[runs]) * (1 + noise * rng.normal())
        foreseen = (warm[runs] * (1 + error[runs]), cold[runs] * (1 + error[runs]))
        step = StepObservation(own, counts, *foreseen, measured, 0.0, {}, name)
        by_key = {key: 2 * op_error * value for key, value in step.by_key(counts * foreseen[0]).items()}
        found.append(dataclasses.replace(step, std_us=float(np.hypot.reduce(list(by_key.values()))), key_std_us=by_key))
    return found


@pytest.mark.parametrize(("networks", "least"), [(1, 0.76), (4, 0.86)])
@pytest.mark.parametrize("truth", [TRUTH, StepContext(cold_share=0.0)], ids=["context", "as alone"])
def test_nine_of_ten_steps_of_networks_that_were_never_measured_lie_in_the_interval(networks, least, truth):
    inside, reaches, op_error = [], [], 0.02
    for seed in range(8):
        own = {"op_error": op_error, "truth": truth}
        measured = [network_steps(f"n{i}", 20 // networks, seed=100 * seed + i, **own) for i in range(networks)]
        context = StepContext.fit([step for of_network in measured for step in of_network])
        for i in range(20):
            for step in network_steps("new", 3, seed=100 * seed + 50 + i, **own):
                error = context.step_us(step) / step.total_us - 1
                reach = 1.645 * context.calibration.std(context.step_us(step), step.std_us) / step.total_us
                inside.append(abs(error) <= reach)
                reaches.append(reach)
    assert least < np.mean(inside) < 0.98
    assert np.median(reaches) < 2 * op_error


def test_what_the_errors_of_ops_explain_is_not_learned_as_a_context():
    alone = StepContext(cold_share=0.0)
    steps_of_one = network_steps("a", 20, op_error=0.01, truth=alone)
    one = StepContext.fit([dataclasses.replace(step, cold_us=None) for step in steps_of_one])
    assert one.common_factor == pytest.approx(1.0, abs=1e-3)
    assert all(factor == pytest.approx(1.0, abs=1e-3) for factor in one.factors.values())
    assert one.overhead_us < 0.01
    # What several networks agree on is one, however small.
    slower = StepContext(dict.fromkeys(KEYS, 1.005), 1.005, cold_share=0.0)
    many = [step for i in range(6) for step in network_steps(str(i), 6, op_error=0.001, truth=slower, seed=i)]
    large = {key: 0.05 * many[0].total_us for key in KEYS}
    many = [dataclasses.replace(step, cold_us=None, key_std_us=large) for step in many]
    assert StepContext.fit(many).common_factor == pytest.approx(1.005, abs=2e-3)


def test_ops_of_which_nothing_is_known_do_not_hide_what_the_others_tell_of_the_context():
    def unfitted(step):
        """With the first key's ops foreseen too short, and an error that says so."""
        own = np.array([key == KEYS[0] for key in step.keys])
        warm = np.where(own, step.warm_us / 1.2, step.warm_us)
        stds = step.key_std_us | {KEYS[0]: 2.4 * float(step.counts[own] @ warm[own])}
        return dataclasses.replace(step, cold_us=None, warm_us=warm, key_std_us=stds)

    slower = StepContext(dict.fromkeys(KEYS, 1.1), 1.1, cold_share=0.0)
    measured = [unfitted(step) for step in network_steps("a", 20, op_error=0.01, truth=slower)]
    context = StepContext.fit(measured)
    assert all(context.factors[key] == pytest.approx(1.1, abs=0.03) for key in KEYS[1:])


def test_on_a_device_with_a_clock_of_its_own_steps_are_believed_though_errors_of_ops_could_explain_them():
    slower = StepContext(dict.fromkeys(KEYS, 1.1), 1.1, cold_share=0.0)
    measured = [
        dataclasses.replace(step, cold_us=None, std_us=0.2 * step.total_us)
        for step in network_steps("a", 20, op_error=0.1, truth=slower)
    ]
    of_errors = StepContext.fit(measured)
    believed = StepContext.fit(measured, counts_instructions=False)
    assert abs(of_errors.common_factor - 1) < 0.01
    assert np.abs(errors(of_errors, measured)).mean() > 2 * np.abs(errors(believed, measured)).mean()


def test_no_interval_is_narrower_than_the_noise_floor():
    context = StepContext.fit(steps(12), floor=0.02)
    assert context.calibration.std(100.0, 0.0) == pytest.approx(2.0)
    assert Calibration(spread=0.03, floor=0.02).std(100.0, 4.0) == pytest.approx(5.0)


def energies(n, *, per_op, per_time, seed=0):
    """(measured uJ, sums of ops and std, latencies and std) of steps whose energy follows one of the two."""
    rng = np.random.default_rng(seed)
    ops, latency = rng.lognormal(8, 0.7, n), rng.lognormal(7, 0.7, n)
    measured = (per_op * ops + per_time * latency) * (1 + 0.01 * rng.normal(size=n))
    return measured, (ops, 0.01 * ops), (latency, 0.01 * latency)


@pytest.mark.parametrize(("method", "per_op", "per_time"), [("ops", 1.08, 0.0), ("power", 0.0, 0.35)])
def test_energy_is_predicted_by_what_is_closer_on_steps_left_out(method, per_op, per_time):
    measured, ops, latency = energies(15, per_op=per_op, per_time=per_time)
    energy = StepEnergy.fit(measured, ops=ops, latency=latency)
    assert energy.method == method
    assert energy.figures[f"{method}_mape_percent"] < 2
    assert max(energy.figures.values()) > 10
    mean, std = energy.of((1000.0, 10.0, 0.0), (2000.0, 20.0, 0.0))
    assert mean == pytest.approx(1080 if method == "ops" else 700, rel=0.01)
    assert 0.003 * mean < std < 0.03 * mean


def test_without_energies_of_ops_a_step_has_its_power_and_without_any_nothing():
    measured, _, latency = energies(15, per_op=0.0, per_time=0.35)
    assert StepEnergy.fit(measured, ops=None, latency=latency).method == "power"
    assert StepEnergy().of(None, (2000.0, 20.0, 0.0)) is None
    assert StepEnergy().of((1000.0, 10.0, 0.0), (2000.0, 20.0, 0.0)) == (1000.0, 10.0)


def test_what_was_learned_survives_json():
    context = StepContext.fit(steps(12))
    assert StepContext.from_record(json.loads(json.dumps(context.to_record()))) == context
    measured, ops, latency = energies(15, per_op=1.0, per_time=0.0)
    for energy in (StepEnergy(), StepEnergy.fit(measured, ops=ops, latency=latency)):
        again = StepEnergy.from_record(json.loads(json.dumps(energy.to_record(), allow_nan=False)))
        assert again.to_record() == energy.to_record()
