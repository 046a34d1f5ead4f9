"""One target's model: fitting, going on with more ops, its record. The costs are synthetic (see synthetic.py)."""

import numpy as np
import pytest
import synthetic

from costmodels import target as target_module
from costmodels.target import TargetModel


@pytest.fixture(scope="module")
def ops():
    return synthetic.random_ops(300)


@pytest.fixture(scope="module")
def costs(ops):
    return synthetic.table(ops, ripple=0.05, noise=0.002)["latency_us"].to_numpy()


@pytest.fixture(scope="module")
def target(ops, costs):
    return TargetModel(work=synthetic.work).fit(ops, costs)


def test_more_ops_change_only_the_groups_that_they_belong_to(ops, costs, target):
    going_on = TargetModel(work=synthetic.work).fit(ops[:250], costs[:250])
    before = {key: group.regressor_ for key, group in going_on.groups.items()}
    few = [i for i in range(250, 300) if ops[i].kind == "linear"]
    going_on.update([ops[i] for i in few], costs[few])
    changed = {key for key, group in going_on.groups.items() if group.regressor_ is not before.get(key)}
    assert {key.split("/")[0] for key in changed} == {"linear"}
    assert going_on.n_ops == 250 + len(few)
    going_on.update(ops, costs)
    np.testing.assert_allclose(going_on.predict(ops).mean, target.predict(ops).mean, rtol=1e-3)


def test_an_op_measured_again_has_its_new_cost(ops, costs):
    target = TargetModel(work=synthetic.work).fit(ops, costs)
    target.update(ops, 2 * costs)
    assert target.n_ops == len(ops)
    again = TargetModel(work=synthetic.work).fit(ops, 2 * costs)
    np.testing.assert_allclose(target.predict(ops).mean, again.predict(ops).mean)


def test_a_record_predicts_the_same(ops, target):
    arrays = {}
    record = target.to_record("here/", arrays)
    assert all(name.startswith("here/") for name in arrays)
    read = TargetModel.from_record(record, arrays, work=synthetic.work)
    ours, theirs = target.predict(ops), read.predict(ops)
    for name in ("mean", "std", "low_90", "high_90", "extrapolates"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name))


def test_intervals_are_never_narrower_than_the_noise_floor(ops, costs):
    target = TargetModel(work=synthetic.work).fit(ops, costs, np.full(len(ops), 0.04))
    predicted = target.predict(ops)
    assert (predicted.std >= 0.04 * predicted.mean).all()
    assert (predicted.high_90 - predicted.low_90 >= 2 * 0.04 * predicted.mean).all()


def test_groups_fitted_side_by_side_are_those_fitted_one_after_the_other(ops, costs, monkeypatch):
    chosen = [i for i, op in enumerate(ops) if op.kind in ("linear", "add")]
    few, their_costs = [ops[i] for i in chosen], costs[chosen]
    told = []
    alone = TargetModel().fit(few, their_costs).predict(ops)
    monkeypatch.setattr(target_module, "PARALLEL_OPS", 1)
    monkeypatch.setattr(target_module, "cpu_count", lambda: 2)
    beside = TargetModel().fit(few, their_costs, on_group=lambda *told_now: told.append(told_now)).predict(ops)
    for name in ("mean", "std", "low_90", "high_90", "extrapolates"):
        np.testing.assert_array_equal(getattr(beside, name), getattr(alone, name))
    assert [done for done, _, _ in told] == list(range(1, told[0][1] + 1))
