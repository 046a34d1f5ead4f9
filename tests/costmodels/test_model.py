"""The cost model: fitting a table, saving, loading, refusing. The tables are synthetic (see synthetic.py)."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from costmodels.accuracy import accuracy
from costmodels.baselines import ScalarBaseline
from costmodels.evaluate import check_same_device, evaluate
from costmodels.features import PLAIN_TERMS, plain_terms
from costmodels.measured import from_frame, of_a_quiet_host, read
from costmodels.model import CostModel
from costmodels.sources import CostSource
from profiler.errors import UserError
from profiler.model_cards import find_models
from profiler.ops import Add, Conv2d, Linear, Op, Pass, SoftmaxCrossEntropy


@pytest.fixture(scope="module")
def table():
    return synthetic.table(synthetic.random_ops(400), ripple=0.05, noise=0.002)


@pytest.fixture(scope="module")
def model(table):
    return CostModel(work=synthetic.work, scratch_bytes=lambda op: 16).fit(table)


def test_held_out_ops_are_predicted_far_better_than_by_macs(model, table):
    held_out = [op for i, op in enumerate(synthetic.random_ops(400)) if i % 5 == 0]
    measured = table["latency_us"][table["held_out"]].to_numpy()
    ours = accuracy(measured, model.predict(held_out)["latency_us"].to_numpy())
    training = [op for i, op in enumerate(synthetic.random_ops(400)) if i % 5]
    baseline = ScalarBaseline().fit(training, table["latency_us"][~table["held_out"]].to_numpy())
    theirs = accuracy(measured, baseline.predict(held_out))
    assert ours["n"] == 80
    assert ours["mape_percent"] < 2.5
    assert theirs["mape_percent"] > 5 * ours["mape_percent"]


def test_the_card_tells_the_accuracy_on_ops_that_the_fit_never_saw(model):
    assert 60 < model.card_["held_out_accuracy"]["n"] < 80  # some held-out shapes were fitted in another pass
    assert model.card_["held_out_accuracy"]["mape_percent"] < 2.5
    assert model.card_["n_ops"] == 320


def test_the_card_and_an_evaluation_of_the_same_ops_state_the_same(model, table):
    evaluated = evaluate(model, read(table)).to_dict()["overall"]["latency"]
    card = model.card_["held_out_accuracy"]
    assert {name: evaluated[name] for name in card} == pytest.approx(card)
    assert 75 < card["coverage_90_percent"] < 100


def test_held_out_ops_change_the_fit_only_when_asked_to():
    ops = synthetic.random_ops(80)
    table = synthetic.table(ops)
    twisted = table.copy()
    twisted.loc[twisted["held_out"], "latency_us"] *= 3

    def fit(data, **options):
        model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(data, **options)
        return model.predict(ops)["latency_us"].to_numpy()

    np.testing.assert_array_equal(fit(twisted), fit(table))
    assert not np.allclose(fit(twisted, include_held_out=True), fit(table, include_held_out=True), rtol=1e-3)


def test_a_saved_model_predicts_the_same(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = CostModel.load(tmp_path / "m", work=synthetic.work, scratch_bytes=lambda op: 16)
    ops = synthetic.random_ops(300, seed=9)
    ours, theirs = model.predict(ops), loaded.predict(ops)
    for column in ("latency_us", "latency_std_us"):
        np.testing.assert_allclose(theirs[column], ours[column], rtol=1e-12)
    assert (theirs["extrapolates"] == ours["extrapolates"]).all()
    assert any("process" in group.regressor_.method_ for group in loaded.targets["latency"].groups.values())


def test_a_saved_model_is_json_and_plain_arrays(model, tmp_path):
    model.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "arrays.npz"}
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["device"] == "synthetic" and card["timer"] == "made-up" and card["us_per_mac"] > 0
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert {arrays[name].dtype for name in arrays.files} == {np.dtype(np.float64), np.dtype(np.uint8)}


def test_a_file_with_pickled_objects_is_refused(model, tmp_path):
    model.save(tmp_path)
    np.savez(tmp_path / "arrays.npz", evil=np.array([{"run": "me"}], dtype=object))
    with pytest.raises(UserError, match=r"arrays\.npz"):
        CostModel.load(tmp_path)


def test_a_run_in_a_models_place_is_called_so():
    run = Path(__file__).parents[2] / "measurements" / "qemu-stm32f405" / "mcunet-5fps-64"
    with pytest.raises(UserError, match="mcunet-5fps-64 is a run and no cost model; fit one"):
        CostModel.load(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 99}, "schema 99"),
        ({"geometry_features": {"weight": "kg"}}, "geometry_features"),
        ({"targets": {"latency": {}}}, r"has no '\w+': another version of this program wrote it, or it is damaged"),
        ({"targets": {"latency": 5}}, "is damaged"),
        ({"targets": {}}, "it has no latency"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_the_reason(model, tmp_path, change, said):
    model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(card | change))
    with pytest.raises(UserError, match=said):
        CostModel.load(tmp_path)


@pytest.mark.parametrize("field", ["device", "timer", "identity", "geometry_features", "targets", "stack_peak_bytes"])
@pytest.mark.parametrize("value", [None, []])
def test_a_damaged_card_is_refused_by_the_field_that_is_wrong(model, tmp_path, field, value):
    model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text()) | {field: value}
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=f"is damaged: its card has no {field}"):
        CostModel.load(tmp_path)


@pytest.mark.parametrize("field", ["n_plain", "std_scale", "arrays", "parts"])
def test_a_card_of_another_version_is_refused_by_what_it_lacks(model, tmp_path, field):
    model.save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    del next(iter(card["targets"]["latency"]["groups"].values()))[field]
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=f"has no '{field}': another version") as refused:
        CostModel.load(tmp_path)
    assert "fit the model again with this version" in str(refused.value.hint)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="costmodels fit"):
        CostModel.load(tmp_path / "nothing")


@pytest.mark.parametrize(("column", "value"), [("device", "other"), ("timer", "cycles"), ("board", "other")])
def test_tables_of_different_devices_boards_or_timers_are_refused(table, column, value):
    mixed = table.copy()
    mixed.loc[3, column] = value
    with pytest.raises(UserError, match=f"different {column}s"):
        CostModel(work=synthetic.work).fit(mixed)


def test_ops_timed_warm_and_ops_timed_cold_are_targets_of_their_own(table):
    cold = table.assign(caches="cold", latency_us=3 * table.latency_us)
    both = pd.concat([table.assign(caches="warm"), cold], ignore_index=True)
    with pytest.raises(UserError, match=r"cold and with warm caches.*--caches cold or --caches warm"):
        from_frame(both, {})
    op = synthetic.random_ops(5)[1]
    model = CostModel(work=synthetic.work).fit(both)
    assert model.caches == "warm"
    assert model.costs("latency_cold", [op])[0].mean == pytest.approx(3 * model.op_latency_us(op), rel=1e-3)
    models = {c: CostModel(work=synthetic.work).fit(both, caches=c) for c in ("warm", "cold")}
    assert models["cold"].op_latency_us(op) == pytest.approx(3 * models["warm"].op_latency_us(op), rel=1e-3)
    assert models["warm"].caches == CostModel(work=synthetic.work).fit(table).caches == "warm"
    with pytest.raises(UserError, match="no op was timed with cold caches"):
        CostModel(work=synthetic.work).fit(table, caches="cold")
    with pytest.raises(UserError, match="fitted to caches 'cold'"):
        check_same_device(models["cold"], from_frame(table, {}))


def test_a_table_without_measurements_is_refused(table):
    with pytest.raises(UserError, match="no measured ops"):
        CostModel(work=synthetic.work).fit(table[:0])
    with pytest.raises(UserError, match="no column latency_us"):
        CostModel(work=synthetic.work).fit(table.drop(columns="latency_us"))


def test_other_kernels_than_the_fitted_ones_are_refused(model, tmp_path):
    model.save(tmp_path)
    other = CostModel.load(tmp_path, work=lambda op: {"calls": 1, "loops": 2}, scratch_bytes=lambda op: 0)
    with pytest.raises(UserError, match="loops"):
        other.predict(synthetic.random_ops(1))


def test_kernels_that_count_differently_under_the_same_names_are_refused(model, tmp_path):
    model.save(tmp_path)

    def changed(op):
        return synthetic.work(op) | {"blocks": synthetic.work(op)["blocks"] + 1}

    other = CostModel.load(tmp_path, work=changed, scratch_bytes=lambda op: 0)
    with pytest.raises(UserError, match=r"other work .* \(blocks\)"):
        other.predict(synthetic.random_ops(1))


def test_a_kind_that_was_never_measured_gets_the_pass_average_and_is_flagged(model):
    cost = model.predict([Op(SoftmaxCrossEntropy(5), Pass.FORWARD)])
    assert cost["latency_us"][0] > 0
    assert cost["extrapolates"][0]


def test_an_int8_kind_that_was_never_measured_is_foretold_by_int8_ops_of_its_pass():
    int8 = [Op(Conv2d(4, 4, 3 + i, 5 + 3 * i, 1, 1), Pass.FORWARD, "s8") for i in range(30)]
    floats = synthetic.random_ops(80)
    measured = synthetic.table([*floats, *int8], held_out=False)
    measured.loc[measured["dtype"] == "s8", "latency_us"] /= 7
    both = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(measured)
    unseen = Op(Linear(30, 20), Pass.FORWARD, "s8")
    truth_us = synthetic.latency_us(unseen) / 7
    assert truth_us / 2 < both.op_latency_us(unseen) < 2 * truth_us
    assert both.predict([unseen])["extrapolates"].all()


def test_int8_elements_are_a_byte_each_in_the_terms_of_every_op():
    forward = Op(Conv2d(4, 4, 8, 6, 1, 1), Pass.FORWARD, "s8")
    words = dict(zip(PLAIN_TERMS, plain_terms([forward])[0], strict=True))
    # input and weights of a byte, biases and pairs of multiplier and shift of four; the output of a byte
    assert words == {"calls": 1, "macs": 768, "words_read": (128 + 48) / 4 + 6 + 12, "words_written": 96 / 4}


def test_ops_beyond_the_training_range_are_flagged_and_stay_sane(model):
    inside = synthetic.random_ops(400)[1]
    far = Op(Conv2d(64, 64, 256, 256, 3, 3, 1, 1, 1, 1), Pass.FORWARD)
    cost = model.predict([inside, far])
    truth = sum(synthetic.UNIT_COSTS_US[name] * count for name, count in synthetic.work(far).items())
    assert list(cost["extrapolates"]) == [False, True]
    assert cost["latency_us"][1] == pytest.approx(truth, rel=0.15)


def test_energy_stands_empty_until_it_is_measured(model):
    assert model.predict([Op(Add(64), Pass.FORWARD)])["energy_uj"].isna().all()


def test_energy_is_a_target_of_its_own_and_says_what_measured_it(table, tmp_path):
    energies = table.assign(energy_uj=0.05 * table["latency_us"], energy_source="simulated")
    energies.loc[energies.index[1::2], ["energy_uj", "energy_source"]] = np.nan, None
    CostModel(work=synthetic.work).fit(energies).save(tmp_path)
    model = CostModel.load(tmp_path, work=synthetic.work, scratch_bytes=lambda op: 0)
    assert model.card_["energy_source"] == "simulated"
    assert model.label.endswith("energy: simulated)")  # which goes wherever its figures are shown
    assert model.targets["energy"].n_ops < model.targets["latency"].n_ops
    cost = model.predict(synthetic.random_ops(400)[1:2]).iloc[0]
    assert cost["energy_uj"] == pytest.approx(0.05 * cost["latency_us"], rel=0.05)
    assert cost["energy_low_uj"] < cost["energy_uj"] < cost["energy_high_uj"]


def test_energies_of_different_sources_are_refused(table):
    mixed = table.assign(energy_uj=table["latency_us"], energy_source="simulated")
    mixed.loc[3, "energy_source"] = "joulescope-js220"
    with pytest.raises(UserError, match="different sources of energy: joulescope-js220, simulated"):
        CostModel(work=synthetic.work).fit(mixed)


def test_predicting_one_op_and_many_agree(model):
    ops = synthetic.random_ops(50, seed=3)
    np.testing.assert_array_equal(model.predict(ops)["latency_us"], [model.op_latency_us(op) for op in ops])


def test_a_fitted_model_is_a_cost_source(model):
    assert isinstance(model, CostSource)
    assert "made-up" in model.label


def test_the_same_op_measured_twice_counts_once(table):
    twice = CostModel(work=synthetic.work).fit(pd.concat([table, table], ignore_index=True))
    assert twice.card_["n_ops"] == 320


def test_what_is_saved_is_found_again_by_whoever_only_looks_at_cards(model, tmp_path):
    model.save(tmp_path / "models" / "here")
    cards, problems = find_models([tmp_path])
    assert not problems
    assert [(card.path, card.device, card.timer, card.n_ops) for card in cards] == [
        (tmp_path / "models" / "here", model.card_["device"], model.card_["timer"], 320)
    ]
    assert cards[0].typical_error_percent == model.card_["typical_error_percent"]
    assert set(cards[0].dtypes) == {key.split("/")[2] for key in model.targets["latency"].groups}


def test_a_busy_host_s_medians_do_not_count_where_its_quiet_readings_are_known(table):
    quiet = table["latency_us"]
    busy = table.assign(
        latency_us=quiet * np.random.default_rng(1).uniform(1, 2, len(table)),
        latency_quiet_us=quiet.where(table.index != 3),
        latency_quiet_spread_us=0.01 * quiet,
    )
    measured = of_a_quiet_host(busy)["latency_us"]
    assert measured[3] == busy["latency_us"][3]
    np.testing.assert_array_equal(measured.drop(3), quiet.drop(3))
