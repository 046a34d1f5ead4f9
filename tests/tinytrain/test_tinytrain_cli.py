import json
import sys
from pathlib import Path

import pytest
from made_up import MadeUpCosts

from costmodels.model import CostModel
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head, StepPlan
from profiler.workloads.step import network_ops
from tinytrain import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "costmodels"))
import synthetic

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
    assert {"layer", "potential", "parameters", "cost_MACs", "score", "channels"} <= set(record["layers"][0])


def test_adapt_trains_the_plans_task_and_prints_accuracy_before_and_after(plan_file, capsys):
    status = run("adapt", "--plan", plan_file[0], "--data", "embedded", "--steps", 2, "--json")
    assert status == 0
    record = json.loads(capsys.readouterr().out)
    assert record["steps"] == 2
    assert record["trained_parameters"] > 0
    assert 0 <= record["accuracy_before_percent"] <= 100
    assert record["data"].startswith("embedded")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--latency-ms", 0.001, *ANALYTICAL], 1, "no plan fits a training step of 0.001 ms: the least is"),
        (["--latency-ms", -1, *ANALYTICAL], 2, "a budget of nothing"),
        (["--latency-ms", 20, "--costs", "analytical"], 2, "give one of --scale-from MODEL_DIR and --us-per-mac"),
        (["--latency-ms", 20, "--costs", "nowhere.model"], 1, "nowhere.model"),
        (["--latency-ms", 20, "--costs", "nowhere.model", "--us-per-mac", 1], 2, "belong to --costs analytical"),
        (["--latency-ms", 20, *ANALYTICAL, "--accounting", "wishful"], 2, "there is no accounting 'wishful'"),
        (["--latency-ms", 20, *ANALYTICAL, "--ratios", "half"], 2, "is no list of shares"),
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
        (["--costs", "analytical"], 2, "--latency-ms"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_a_status(arguments, status, says, capsys, tmp_path):
    out = tmp_path / "plan.json"
    assert run("select", *COMMON, *arguments, "--out", out) == status
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert not out.exists()


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


@pytest.mark.parametrize("arguments", [(), ("select",), ("adapt",)], ids=" ".join)
def test_help_shows_an_example(arguments, capsys):
    assert run(*arguments, "--help") == 0
    assert "Example: tinytrain" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--images", "--shots", "--steps"])
def test_adapt_refuses_a_count_of_nothing(option, plan_file, capsys):
    assert run("adapt", "--plan", plan_file[0], "--data", "embedded", option, 0) == 2
    assert option in capsys.readouterr().err
