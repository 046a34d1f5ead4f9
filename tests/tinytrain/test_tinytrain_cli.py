import json
import sys

import pytest
import synthetic
from made_up import MadeUpCosts

from costmodels.model import CostModel
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head, StepPlan
from profiler.workloads.step import network_ops, training_step
from tinytrain import cli, data, weights

COMMON = ["--network", "mcunet-5fps", "--input", "3x32x32", "--data", "embedded"]
ANALYTICAL = ["--costs", "analytical", "--us-per-mac", "0.01"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(a) for a in arguments])
    return leaving.value.code


@pytest.fixture
def plan_file(tmp_path, capsys):
    path = tmp_path / "plan.json"
    status = run("select", *COMMON, *ANALYTICAL, "--latency-ms", 80, "--images", 5, "--episode", 3, "--out", path)
    assert status == 0
    return path, capsys.readouterr()


def test_select_writes_a_plan_that_keeps_its_budget_and_says_what_it_rests_on(plan_file):
    path, printed = plan_file
    plan = StepPlan.load(path)
    plan.check(load_network("mcunet-5fps", (3, 32, 32))[1])
    assert (plan.images, plan.optimizer, plan.head.classes) == (5, "adam", 5)
    assert plan.notes["predicted"]["latency_ms"] <= plan.notes["budget"]["latency_ms"] == 80
    assert plan.notes["episode"] == {"dataset": "digits", "seed": 3, "ways": 5, "shots": 5}
    assert plan.notes["data"].startswith("embedded: scikit-learn's digits")
    assert set(plan.layers) <= set(plan.notes["scores"])
    assert "embedded: scikit-learn's digits" in printed.out
    assert "analytical (own MACs)" in printed.out
    for name in plan.layers:
        assert name in printed.out


def test_equal_commands_give_equal_plans(plan_file, tmp_path):
    again = tmp_path / "again.json"
    run("select", *COMMON, *ANALYTICAL, "--latency-ms", 80, "--images", 5, "--episode", 3, "--out", again)
    assert again.read_text() == plan_file[0].read_text()


def test_json_on_stdout_is_json_alone(tmp_path, capsys):
    status = run(
        "select", *COMMON, *ANALYTICAL, "--latency-ms", 80, "--images", 5, "--json", "--out", tmp_path / "p.json"
    )
    assert status == 0
    record = json.loads(capsys.readouterr().out)
    assert record["predicted"]["latency_ms"] <= 80
    assert record["data"].startswith("embedded")
    assert {"layer", "potential", "weights", "cost_MACs", "score", "channels", "gain"} <= set(record["layers"][0])
    assert record["gain_bound"] == pytest.approx(record["gain"])
    parts = {part["name"]: part for part in record["task"]}
    assert list(parts) == ["prototypes", "Fisher pass", "training"]
    assert parts["training"]["images"] == 40 * 5
    assert parts["training"]["latency_ms"] == pytest.approx(40 * record["predicted"]["latency_ms"])
    assert 0 < parts["prototypes"]["latency_ms"] <= parts["Fisher pass"]["latency_ms"]
    assert "why" not in record


def test_adapt_trains_the_plans_task_and_prints_accuracy_before_and_after(plan_file, capsys):
    status = run("adapt", "--plan", plan_file[0], "--data", "embedded", "--steps", 2, "--json")
    assert status == 0
    record = json.loads(capsys.readouterr().out)
    assert record["steps"] == 2
    assert record["trained_parameters"] > 0
    assert 0 <= record["accuracy_before_percent"] <= 100
    assert record["data"].startswith("embedded")


def test_only_what_was_trained_is_saved_and_applied_again(plan_file, tmp_path, capsys):
    delta, common = tmp_path / "delta.npz", ["--data", "embedded", "--json"]
    assert run("adapt", "--plan", plan_file[0], "--steps", 3, "--learning-rate", 0.01, "--out", delta, *common) == 0
    trained = json.loads(capsys.readouterr().out)
    # Four bytes a value, and the plan with its lists of channels.
    plan_bytes = 4 * len(plan_file[0].read_text())  # as numpy keeps text
    assert trained["delta_bytes"] == delta.stat().st_size < 4 * trained["trained_parameters"] + plan_bytes + 20_000
    assert run("adapt", "--apply", delta, *common) == 0
    applied = json.loads(capsys.readouterr().out)
    assert applied["applied_values"] == trained["trained_parameters"]
    for key in ("accuracy_before_percent", "accuracy_after_percent"):
        assert applied[key] == trained[key]
    assert run("adapt", "--apply", delta, "--plan", plan_file[0], *common) == 2
    assert "what to train is not clear" in capsys.readouterr().err
    delta.write_bytes(delta.read_bytes()[:3000])
    assert run("adapt", "--apply", delta, *common) == 1
    assert "is no delta" in capsys.readouterr().err


def test_a_baseline_is_trained_by_name_and_its_added_modules_are_applied_again(tmp_path, capsys):
    delta, common = tmp_path / "delta.npz", ["--data", "embedded", "--json"]
    trained = ["--method", "tinytl", "--input", "3x32x32", "--steps", 2, "--images", 5, "--episode", 2, "--out", delta]
    assert run("adapt", *trained, *common) == 0
    first = json.loads(capsys.readouterr().out)
    assert run("adapt", "--apply", delta, *common) == 0
    again = json.loads(capsys.readouterr().out)
    assert first["accuracy_after_percent"] == again["accuracy_after_percent"]
    assert again["applied_values"] == first["trained_parameters"]
    assert run("adapt", "--method", "magic", *common) == 2
    assert "there is no method 'magic'" in capsys.readouterr().err


def test_a_pool_of_augmented_images_trains_as_well(plan_file, capsys):
    assert run("adapt", "--plan", plan_file[0], "--data", "embedded", "--steps", 2, "--pool", 2, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--latency-ms", 0.001, *ANALYTICAL], 1, "no plan fits a training step of 0.001 ms: the least is"),
        (["--latency-ms", -1, *ANALYTICAL], 2, "a budget of nothing"),
        (["--latency-ms", 20, "--costs", "analytical"], 2, "give one of --scale-from MODEL_OR_RUN and --us-per-mac"),
        (["--latency-ms", 20, "--costs", "nowhere.model"], 1, "nowhere.model"),
        (["--latency-ms", 20, "--costs", "nowhere.model", "--us-per-mac", 1], 2, "belong to --costs analytical"),
        (["--latency-ms", 20, *ANALYTICAL, "--accounting", "wishful"], 2, "there is no accounting 'wishful'"),
        (["--latency-ms", 20, *ANALYTICAL, "--ratios", "half"], 2, "--ratios holds 'half'"),
        (["--latency-ms", 20, *ANALYTICAL, "--ratios", "1/2,2"], 2, "--ratios holds '2'"),
        (["--latency-ms", 20, *ANALYTICAL, "--ratios=-1/2"], 2, "--ratios holds '-1/2'"),
        (["--latency-ms", 20, *ANALYTICAL, "--ratios", "0,1"], 2, "--ratios holds '0'"),
        (["--latency-ms", 20, *ANALYTICAL, "--optimizer", "lion"], 2, "no optimizer 'lion'"),
        (["--latency-ms", 20, *ANALYTICAL, "--images", 0], 2, "--images"),
        (["--latency-ms", 20, *ANALYTICAL, "--episode", -1], 2, "--episode"),
        (["--latency-ms", 20, *ANALYTICAL, "--shots", 0], 2, "--shots"),
        (["--latency-ms", 20, *ANALYTICAL, "--learning-rate", -1], 2, "a learning rate of -1"),
        (["--latency-ms", 20, "--costs", "analytical", "--us-per-mac", "nan"], 2, "nan us a MAC"),
        (["--latency-ms", 20, *ANALYTICAL, "--ways", 6], 1, "6 ways"),
        (["--latency-ms", 20, *ANALYTICAL, "--dataset", "omniglot"], 1, "no data set 'omniglot'"),
        (["--latency-ms", 20, *ANALYTICAL, "--input", "1x32x32"], 2, "3 channels"),
        (["--latency-ms", 20, *ANALYTICAL, "--network", "mbv2-w0.35"], 1, "no embedded weights of 'mbv2-w0.35'"),
        (["--latency-ms", 20, *ANALYTICAL, "--network", "lenet"], 2, "no network 'lenet'"),
        (["--costs", "analytical"], 2, "no budget"),
        (["--memory-bytes", 0, *ANALYTICAL], 2, "a budget of nothing"),
        (["--energy-mj", 5, *ANALYTICAL], 1, "the budget limits energy, and the cost source predicts none"),
        (["--latency-ms", 20, *ANALYTICAL, "--solver", "oracle"], 2, "there is no solver 'oracle'"),
        (["--latency-ms", 20, *ANALYTICAL, "--denominator", "x"], 2, "there is no denominator 'x'"),
        (["--latency-ms", 20, *ANALYTICAL, "--dtype", "f16"], 2, "there is no dtype 'f16'"),
        (["--latency-ms", 20, *ANALYTICAL, "--savings", "stream"], 2, "--savings are for --dtype s8"),
        (["--latency-ms", 20, *ANALYTICAL, "--dtype", "s8", "--savings", "x"], 2, "there is no saving 'x'"),
        (
            ["--latency-ms", 20, *ANALYTICAL, "--dtype", "s8", "--savings", "fused_update", "--images", 2],
            2,
            "wants --images 1",
        ),
        (["--latency-ms", 20, *ANALYTICAL, "--last-biases", 50], 2, "the biases of the last 50 layers cannot train"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_a_status(arguments, status, says, capsys, tmp_path):
    out = tmp_path / "plan.json"
    assert run("select", *COMMON, *arguments, "--out", out) == status
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert not out.exists()


@pytest.mark.parametrize("verb", [("adapt", "--method", "last"), ("select", *ANALYTICAL, "--latency-ms", 80)])
def test_where_the_result_goes_is_looked_at_before_anything_else(verb, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tinytrain.tasks.prepare", lambda *_, **__: pytest.fail("it had begun"))
    assert run(*verb, "--out", tmp_path) == 2
    assert f"{tmp_path} is a folder; give --out a file that you can write" in capsys.readouterr().err
    assert run(*verb, "--out", tmp_path / "none" / "out") == 2
    assert "none is not there; give --out a file that you can write" in capsys.readouterr().err


def test_images_of_other_than_three_channels_are_refused_before_anything_is_loaded(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tinytrain.selection", None)  # which takes seconds
    options = ("--network", "mlperf-tiny-kws", "--input", "1x49x10", *ANALYTICAL, "--latency-ms", 5)
    assert run("select", *options) == 2
    assert "the images have 3 channels, --input asks for 1" in capsys.readouterr().err


def test_a_plan_is_chosen_and_trained_with_the_weights_of_a_file(tmp_path, capsys):
    state = data.EmbeddedSource("in a test").weights("mcunet-5fps")
    weights.write_half(tmp_path / "own.npz", {name: 1.02 * value for name, value in state.items()})
    own = ["--weights", tmp_path / "own.npz"]
    plan = tmp_path / "plan.json"
    assert run("select", *COMMON, *own, *ANALYTICAL, "--latency-ms", 80, "--out", plan) == 0
    assert f"weights: {tmp_path / 'own.npz'}" in capsys.readouterr().out
    first = StepPlan.load(plan).notes["gain"]
    assert run("select", *COMMON, *ANALYTICAL, "--latency-ms", 80, "--out", plan) == 0
    assert StepPlan.load(plan).notes["gain"] != pytest.approx(first, rel=1e-3)
    assert run("select", "--network", "smallnet:create", *own, *ANALYTICAL, "--latency-ms", 80, "--out", plan) == 2
    assert "weights from a file are for backbones" in capsys.readouterr().err


def test_notes_that_name_no_task_are_passed_over(plan_file, tmp_path, capsys):
    record = json.loads(plan_file[0].read_text())
    record["notes"]["episode"] = {"dataset": 5, "seed": -1, "shots": "many"}
    (tmp_path / "odd.json").write_text(json.dumps(record))
    assert run("adapt", "--plan", tmp_path / "odd.json", "--data", "embedded", "--steps", 1) == 0
    assert "digits episode 0" in capsys.readouterr().out


def test_an_int8_plan_trains_in_float32_and_that_is_said(tmp_path, capsys):
    plan = tmp_path / "plan.json"
    assert run("select", *COMMON, *ANALYTICAL, "--latency-ms", 80, "--dtype", "s8", "--out", plan) == 0
    assert run("adapt", "--plan", plan, "--data", "embedded", "--steps", 1) == 0
    assert "the plan's step is s8 on the device; here its channels are trained in float32" in capsys.readouterr().err


def test_a_users_own_network_is_selected_for_with_its_own_weights(tmp_path, monkeypatch, capsys):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def create():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3),\n"
        "                         nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    monkeypatch.chdir(tmp_path)
    own = ["--network", "mynet:create", "--input", "3x16x16", "--data", "embedded", "--inspect", 1]
    assert run("select", *own, *ANALYTICAL, "--latency-ms", 100, "--out", "plan.json") == 0
    assert "weights: those that mynet:create brings" in capsys.readouterr().out
    assert set(StepPlan.load(tmp_path / "plan.json").layers) == {"0", "3"}
    assert run("adapt", "--plan", "plan.json", "--data", "embedded", "--steps", 2) == 0
    for part in ("weights", "images"):
        (tmp_path / "data" / part).mkdir(parents=True)
    capsys.readouterr()
    assert run("adapt", "--plan", "plan.json", "--data", "data", "--dataset", "digits", "--steps", 1) == 0
    assert "data: images: scikit-learn's digits; weights: those that mynet:create brings" in capsys.readouterr().out


def test_both_cost_sources_of_one_fitted_model_select_and_say_who_they_are(tmp_path, capsys):
    shape = (3, 32, 32)
    ops = network_ops(load_network("mcunet-5fps", shape)[1], Head(), ratios=(1,))
    measured = synthetic.table(ops)
    made_up = MadeUpCosts()
    measured["latency_us"] = [made_up.op_latency_us(op) for op in ops]
    CostModel().fit(measured).save(tmp_path / "model")
    budget = ["--latency-ms", 60, "--json", "--out", tmp_path / "plan.json"]
    records = []
    for costs in (["--costs", tmp_path / "model"], ["--costs", "analytical", "--scale-from", tmp_path / "model"]):
        assert run("select", *COMMON, *costs, *budget) == 0
        records.append(json.loads(capsys.readouterr().out))
        assert records[-1]["predicted"]["latency_ms"] <= 60
        assert "timer: made-up" in records[-1]["cost_source"]
    assert "cost_us" in records[0]["layers"][0]
    assert "cost_MACs" in records[1]["layers"][0]
    assert records[0]["predicted"]["latency_std_ms"] > 0


@pytest.mark.parametrize("solver", ["greedy", "exact"])
def test_explain_says_of_each_layer_what_it_costs_and_why_it_was_taken(solver, tmp_path, capsys):
    out = tmp_path / "plan.json"
    words = ["--latency-ms", 80, "--images", 5, "--solver", solver, "--explain", "--out", out]
    assert run("select", *COMMON, *ANALYTICAL, "--accounting", "chain", *words, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    _, network = load_network("mcunet-5fps", (3, 32, 32))
    why = {row["layer"]: row for row in record["why"]}
    plan = StepPlan.load(out)
    assert list(why) == [layer.name for layer in network.trainable][-19:]
    assert set(plan.layers) == {name for name, row in why.items() if row["why"].startswith("taken")}
    assert why[next(iter(plan.layers))]["why"].startswith("taken, the frontier")
    assert sum(row["potential_percent"] for row in why.values()) == pytest.approx(100)
    refused = [row["why"] for row in why.values() if "the step would take" in row["why"]]
    assert refused and all("allowed are 80 ms" in text for text in refused)
    for name, row in why.items():
        assert row["own_macs"] == network[name].geometry.forward_macs
        # What the layer adds to 5 images, and what being the frontier adds: by MACs, 0.01 us each.
        assert row["own_ms"] == pytest.approx(5 * row["own_macs"] * 1e-5)
        assert row["chain_ms"] == pytest.approx(5 * row["chain_macs"] * 1e-5)
    assert run("select", *COMMON, *ANALYTICAL, *words) == 0
    assert "Layer by layer" in capsys.readouterr().out


def test_an_int8_plan_trains_slices_from_the_first_channel_on_and_the_biases_asked_for(tmp_path, capsys):
    out = tmp_path / "plan.json"
    words = ["--latency-ms", 80, "--dtype", "s8", "--savings", "stream,in_place", "--last-biases", 24, "--out", out]
    assert run("select", *COMMON, *ANALYTICAL, "--accounting", "chain", *words, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    plan = StepPlan.load(out)
    assert (plan.dtype, plan.optimizer, plan.savings) == ("s8", "sgd", {"stream", "in_place"})
    assert len(plan.layers) == 24
    trained = [p for p in plan.layers.values() if p.channels]
    assert trained and all(p.channels == tuple(range(len(p.channels))) for p in trained)
    assert record["gain"] > 0
    training_step(load_network("mcunet-5fps", (3, 32, 32))[1], plan)


def test_biases_alone(tmp_path, capsys):
    out = tmp_path / "plan.json"
    words = ["--latency-ms", 40, "--solver", "biases", "--accounting", "chain", "--out", out, "--json"]
    assert run("select", *COMMON, *ANALYTICAL, *words) == 0
    record = json.loads(capsys.readouterr().out)
    assert all(not p.channels and p.bias for p in StepPlan.load(out).layers.values())
    assert record["predicted"]["latency_ms"] <= 40
    assert [part["name"] for part in record["task"]] == ["prototypes", "training"]


@pytest.mark.parametrize("arguments", [(), ("select",), ("adapt",)], ids=" ".join)
def test_help_shows_an_example(arguments, capsys):
    assert run(*arguments, "--help") == 0
    assert "Example: tinytrain" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--images", "--shots", "--steps"])
def test_adapt_refuses_a_count_of_nothing(option, plan_file, capsys):
    assert run("adapt", "--plan", plan_file[0], "--data", "embedded", option, 0) == 2
    assert option in capsys.readouterr().err
