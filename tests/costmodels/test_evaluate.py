"""Evaluation: held-out ops only, beside the baselines, refusing what does not belong together."""

import dataclasses
import json

import numpy as np
import pytest
import synthetic

from costmodels import evaluate_tables as tables
from costmodels.accuracy import FIGURES, accuracy
from costmodels.baselines import LinearBaseline
from costmodels.evaluate import evaluate
from costmodels.features import geometry_key
from costmodels.measured import read
from costmodels.model import CostModel
from costmodels.plots import predicted_against_measured, timer_note
from profiler.errors import UserError
from profiler.ops import Linear, Op, Pass
from profiler.shown_values import json_ready


@pytest.fixture(scope="module")
def table():
    return synthetic.table(synthetic.random_ops(300, seed=1), noise=0.002)


@pytest.fixture(scope="module")
def small_table():
    """Enough to see which ops go where; models are fitted to it again and again."""
    return synthetic.table(synthetic.random_ops(60, seed=2))


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


def test_coverage_is_the_share_within_the_models_own_bounds():
    measured = np.array([100.0, 100, 100, 100])
    figures = accuracy(measured, measured, low=np.array([90, 99, 101, 100]), high=np.array([95, 101, 110, 100]))
    assert figures["coverage_90_percent"] == 50
    assert np.isnan(accuracy(measured, measured)["coverage_90_percent"])


def test_without_ops_there_are_no_figures_but_their_names():
    figures = accuracy(np.empty(0), np.empty(0))
    assert tuple(figures) == FIGURES and figures["n"] == 0
    assert all(np.isnan(value) for name, value in figures.items() if name != "n")


def test_only_ops_of_geometries_that_the_fit_never_saw_are_judged(evaluation, table):
    measured = read(table)
    held_out = measured.frame["held_out"].to_numpy()
    seen = set(measured.subset(~held_out).geometries)
    unseen = {op.key for op in measured.subset(held_out).ops if geometry_key(op) not in seen}
    assert evaluation.judged_on == "held-out ops"
    assert set(evaluation.points["latency"]["op_key"]) == unseen
    by_op = evaluation.to_dict()["by_op"]
    assert sum(row["latency"]["n"] for row in by_op) == len(unseen) > 40
    assert len({(row["kind"], row["pass"], row["dtype"]) for row in by_op}) == len(by_op)


def test_where_the_fit_saw_everything_geometries_are_left_out_in_turn(small_table):
    table = small_table
    fit_on_all = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table, include_held_out=True)
    evaluation = evaluate(fit_on_all, read(table))
    assert evaluation.judged_on == "ops left out in turn"
    points = evaluation.points["latency"].set_index("op_key")
    assert len(points) > 0.95 * len(table)
    # A model judged on what it was fitted to would look better than it is.
    seen = fit_on_all.predict([op for op in read(table).ops if op.key in points.index])["latency_us"].to_numpy()
    assert np.abs(points["fitted"].loc[[*points.index]].to_numpy() / points["measured"] - 1).mean() > 0
    assert not np.allclose(np.sort(points["fitted"].to_numpy()), np.sort(seen), rtol=1e-6)


def test_a_run_of_one_geometry_that_was_fitted_cannot_be_judged():
    table = synthetic.table([Op(Linear(8, 4), Pass.FORWARD), Op(Linear(8, 4), Pass.GRAD_INPUT)], held_out=False)
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    with pytest.raises(UserError, match="no kind has a second geometry"):
        evaluate(model, read(table))


def test_the_fitted_model_beats_every_baseline(evaluation):
    result = evaluation.to_dict()
    fitted = result["overall"]["latency"]["mape_percent"]
    assert fitted < 1
    others = [result["baselines"][name]["latency"]["mape_percent"] for name in evaluation.baselines[:3]]
    assert len(others) == 3 and fitted < min(others)


def test_intervals_cover_most_held_out_ops(evaluation):
    assert 75 <= evaluation.to_dict()["overall"]["latency"]["coverage_90_percent"] <= 100


def test_memory_is_judged_too(evaluation):
    memory = evaluation.to_dict()["overall"]["memory"]
    assert memory["mape_percent"] < 1e-9  # buffers and stack, as the synthetic device has them
    assert memory["under_predicted_percent"] == 0
    assert np.isnan(memory["coverage_90_percent"])  # no bounds are claimed


def test_baselines_learn_from_the_ops_that_the_model_was_fitted_to(table, evaluation):
    training = read(table[~table["held_out"]])
    points = evaluation.points["latency"]
    judged = [op for op in read(table).ops if op.key in set(points["op_key"])]
    expected = LinearBaseline().fit(training.ops, training.latency_us).predict(judged)
    np.testing.assert_allclose(points["linear in MACs"], expected)
    assert [op.key for op in judged] == points["op_key"].tolist()


def test_baselines_are_the_same_where_the_model_was_fitted_elsewhere(table, evaluation, tmp_path):
    """A model brings its training ops along: the run that it was fitted to need not be there."""
    CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table).save(tmp_path / "model")
    model = CostModel.load(tmp_path / "model", work=synthetic.work, scratch_bytes=lambda op: 0)
    again = evaluate(model, read(table[table["held_out"]]))
    assert again.judged_on == "held-out ops"
    for name in ("fitted", *evaluation.baselines[:3]):
        np.testing.assert_allclose(again.points["latency"][name], evaluation.points["latency"][name])


def test_the_json_has_the_same_figures_of_every_target_overall_by_op_and_for_the_baselines(evaluation):
    result = json_ready(evaluation.to_dict())
    json.dumps(result, allow_nan=False)
    for part in (result, *result["baselines"].values()):
        assert set(part) >= {"overall", "by_op"}
        for row in (part["overall"], *part["by_op"]):
            assert all(set(row[target]) >= set(FIGURES) for target in ("latency", "energy", "memory"))
    assert result["overall"]["energy"]["n"] == 0
    assert result["overall"]["energy"]["mape_percent"] is None
    assert result["baselines"]["c × MACs"]["latency"] == result["baselines"]["c × MACs"]["overall"]["latency"]


def test_intervals_are_not_judged_on_the_ops_that_they_were_calibrated_on(table):
    """Held-out ops that are far off widen the model's intervals, and cover themselves so; that may not count."""
    held_out = table.index[table["held_out"]]
    off = table.copy()
    off.loc[held_out[::2], "latency_us"] *= 3
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(off)
    measured = read(off[off["held_out"]])
    assert set(model.card_["calibrated_geometries"]) == set(measured.geometries)
    points = evaluate(model, measured).points["latency"].set_index("op_key")
    own = model.predict(measured.ops).set_index("op_key")
    assert not np.allclose(points["high"], own["latency_high_us"].loc[points.index])
    np.testing.assert_allclose(points["fitted"], own["latency_us"].loc[points.index])
    uncalibrated = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit_measured(read(off[~off["held_out"]]))
    plain = evaluate(uncalibrated, measured).points["latency"].set_index("op_key")
    expected = uncalibrated.predict(measured.ops).set_index("op_key")["latency_high_us"]
    np.testing.assert_allclose(plain["high"], expected.loc[plain.index])


def test_energy_is_judged_beside_constant_power():
    table = synthetic.table(synthetic.random_ops(120, seed=3))
    with_energy = table.assign(energy_uj=0.2 * table["latency_us"] + 3, energy_source="simulated")
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(with_energy)
    result = evaluate(model, read(with_energy)).to_dict()
    ours = result["overall"]["energy"]
    assert result["energy_source"] == "simulated"
    assert ours["n"] == result["overall"]["latency"]["n"]
    assert ours["mape_percent"] < 1.5
    assert result["baselines"]["constant power × time"]["energy"]["mape_percent"] > 3 * ours["mape_percent"]


def test_a_network_left_out_is_judged_by_a_model_that_saw_none_of_its_layers(small_table):
    table, measured = small_table, read(small_table)
    keys = measured.frame["op_key"]
    networks = {"a": frozenset(keys[:30]), "b": frozenset(keys[20:])}
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    result = evaluate(model, measured, networks, leave_one_network_out=True)
    assert result.judged_on == "held-out ops"
    assert {name: set(points["latency"]["op_key"]) for name, points in result.left_out.items()} == {
        name: set(own) for name, own in networks.items()
    }
    record = result.to_dict()["leave_one_network_out"]
    assert [row["n_ops"] for row in record["networks"]] == [30, 40]
    assert record["overall"]["latency"]["n"] == 70
    # Of the other network alone, without what both have.
    of_b = [op for op, key in zip(measured.ops, keys, strict=True) if key in networks["b"]]
    geometries = {geometry_key(op) for op in of_b}
    alone = measured.subset(np.array([geometry not in geometries for geometry in measured.geometries]))
    fitted = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit_measured(alone)
    np.testing.assert_allclose(result.left_out["b"]["latency"]["fitted"], fitted.latencies_us(of_b))


def test_where_the_fit_saw_every_op_of_two_networks_each_is_left_out(small_table):
    table = small_table
    keys = read(table).frame["op_key"]
    networks = {"a": frozenset(keys[:30]), "b": frozenset(keys[30:])}
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table, include_held_out=True)
    result = evaluate(model, read(table), networks)
    assert result.judged_on == "networks left out in turn"
    assert len(result.points["latency"]) == 60


def test_leaving_a_network_out_takes_two(small_table):
    table = small_table
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    with pytest.raises(UserError, match="takes two, and the runs are of a"):
        evaluate(model, read(table), {"a": frozenset(read(table).frame["op_key"])}, leave_one_network_out=True)


def test_tables_for_people_have_a_row_a_group_and_a_column_a_baseline(evaluation):
    rows = tables.by_op_rows(evaluation.points, "latency")
    assert len(rows) == len(evaluation.to_dict()["by_op"])
    assert all("c × MACs: mape_percent" in row and row["n"] for row in rows)
    assert tables.by_op_rows(evaluation.points, "energy") == []
    overall = tables.overall_rows(evaluation.points)
    assert next(row["predictor"] for row in overall if row["target"] == "latency") == "fitted"


def test_a_run_of_another_device_or_timer_is_refused(table):
    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(table)
    measured = read(table)
    for field in ("device", "timer"):
        with pytest.raises(UserError, match="other"):
            evaluate(model, dataclasses.replace(measured, **{field: "other"}))


def test_a_run_that_gave_the_models_device_another_name_is_judged_and_another_chip_is_not(table):
    def as_run(name, unique_id):
        return dataclasses.replace(read(table), device=name, identity={"board": "f446re", "unique_id": unique_id})

    model = CostModel(work=synthetic.work, scratch_bytes=lambda op: 0).fit(as_run("desk", "00c0ffee"))
    assert evaluate(model, as_run("shelf", "00c0ffee")).judged_on == "held-out ops"
    with pytest.raises(UserError, match=r"fitted to device 'f446re-c0ffee', the run was measured with 'f446re-00beef'"):
        evaluate(model, as_run("desk", "0000beef"))


def test_the_plot_is_a_png(evaluation, tmp_path):
    predicted_against_measured(evaluation, tmp_path / "plots" / "p.png")
    assert (tmp_path / "plots" / "p.png").read_bytes().startswith(b"\x89PNG")


def test_emulated_time_is_called_what_it_is():
    assert timer_note("instructions") == "emulated: time = instructions"
