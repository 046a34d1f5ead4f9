"""A model of one device as the beginning of another's. Both are synthetic (see synthetic.py)."""

import numpy as np
import pytest
import synthetic

from costmodels.accuracy import accuracy
from costmodels.model import CostModel
from costmodels.target import TargetModel
from costmodels.transfer import transferred

#: What the other device takes for each pass, over what the first one takes.
FACTORS = {"forward": 0.31, "grad_input": 0.33, "grad_weight": 0.29, "update": 0.30}


@pytest.fixture(scope="module")
def ops():
    return synthetic.random_ops(300)


@pytest.fixture(scope="module")
def first(ops):
    return TargetModel(work=synthetic.work, method="terms").fit(ops, costs(ops))


def costs(ops):
    return synthetic.table(ops, held_out=False)["latency_us"].to_numpy()


def on_the_other(ops):
    return costs(ops) * np.array([FACTORS[str(op.pass_)] for op in ops])


@pytest.mark.parametrize("seed", range(3))
def test_a_dozen_ops_are_enough(first, seed):
    few, others = synthetic.random_ops(12, seed=50 + seed), synthetic.random_ops(300, seed=90 + seed)
    model = transferred(TargetModel(work=synthetic.work, method="terms"), first, few, on_the_other(few))
    predicted = model.predict(others)
    ours = accuracy(on_the_other(others), predicted.mean)
    alone = TargetModel(work=synthetic.work, method="terms").fit(few, on_the_other(few)).predict(others).mean
    assert ours["mape_percent"] < 7 < accuracy(on_the_other(others), alone)["mape_percent"]
    assert set(model.groups) >= set(first.groups)


def test_one_wild_reading_does_not_move_the_factors(first):
    few, others = synthetic.random_ops(12, seed=51), synthetic.random_ops(300, seed=91)
    y = on_the_other(few)
    y[3] *= 30
    model = transferred(TargetModel(work=synthetic.work, method="terms"), first, few, y)
    assert accuracy(on_the_other(others), model.predict(others).mean)["mape_percent"] < 8


def test_the_other_model_stays_as_it_was_and_groups_with_many_ops_are_fitted_anew(first, ops):
    before = first.predict(ops[:20]).mean
    model = transferred(TargetModel(work=synthetic.work, method="terms"), first, ops, on_the_other(ops))
    np.testing.assert_array_equal(first.predict(ops[:20]).mean, before)
    np.testing.assert_allclose(model.predict(ops).mean, on_the_other(ops), rtol=0.03)


def test_a_model_begun_at_another_says_so_and_is_saved(ops, tmp_path):
    start = CostModel(work=synthetic.work).fit(synthetic.table(ops))
    table = synthetic.table(synthetic.random_ops(12, seed=52), held_out=False).assign(device="other", board="other")
    table["latency_us"] *= 0.3
    CostModel(work=synthetic.work).fit(table, start=start).save(tmp_path)
    model = CostModel.load(tmp_path, work=synthetic.work, scratch_bytes=lambda op: 0)
    assert model.card_["device"] == "other" and model.card_["started_from"]["device"] == "synthetic"
    unseen = synthetic.random_ops(100, seed=92)
    assert accuracy(0.3 * costs(unseen), model.latencies_us(unseen))["mape_percent"] < 5
