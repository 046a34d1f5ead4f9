import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_benchmark import METHODS, SHAPE, benchmark, results, run, working_folder

from profiler import store_lines
from profiler.errors import UserError
from profiler.workloads.entries import DoesNotFit
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import adaptation
from tinytrain.benchmark import Cell, Device, Settings, chosen_rates
from tinytrain.benchmark_plans import plan_key, step_key
from tinytrain.benchmark_store import Results, read_records


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return working_folder(tmp_path, monkeypatch, {"fast": 1.0, "slow": 3.0})


def test_every_method_gets_the_same_tasks_on_every_device(folder, capsys):
    assert benchmark("--json", costs=("fast", "slow")) == 0
    record = json.loads(capsys.readouterr().out)
    table = results()
    assert len(table) == 4 * 2 * 2
    assert set(table.method) == set(METHODS.split(","))
    assert (table.status == "ok").all()
    # The same images: what frozen features say is the same for all, and of `none` it is the result.
    assert (table.groupby(["device", "task"]).accuracy_before_percent.nunique() == 1).all()
    none = table[table.method == "none"]
    assert (none.accuracy_after_percent == none.accuracy_before_percent).all()
    assert none.plan.isna().all() and none.predicted_latency_ms.isna().all()
    drawn = json.loads((folder / "out" / "tasks" / "digits.json").read_text())["episodes"]
    assert [len(episode["support"]) for episode in drawn] == [6, 6]
    assert drawn[0]["support"] != drawn[1]["support"]
    # Limits are each device's own share of its own full step.
    chosen = table[table.method == "tinytrain"].set_index(["device", "task"])
    assert (chosen.predicted_latency_ms <= chosen.budget_latency_ms).all()
    assert chosen.budget_latency_ms["slow"].values == pytest.approx(
        3 * chosen.budget_latency_ms["fast"].values, rel=0.05
    )
    last = table[table.method == "last"]
    assert last.groupby("task").accuracy_after_percent.nunique().eq(1).all()  # one plan, trained once
    pairs = {(row["method"], row["device"]): row for row in record["differences"]}
    assert pairs["tinytrain", "fast"]["pairs"] == 2
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in record["plots"])


def test_a_benchmark_that_was_killed_goes_on_and_comes_to_the_same(folder):
    assert benchmark(out="whole") == 0
    assert benchmark(out="killed") == 0
    lines = Path("killed/results.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 8
    Path("killed/results.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:40])
    assert benchmark(out="killed") == 0
    again = Path("killed/results.jsonl").read_bytes().splitlines(keepends=True)
    assert again[:3] == lines[:3]
    assert len([store_lines.decode(line) for line in again]) == 8  # what was cut off is gone
    pd.testing.assert_frame_equal(results("killed"), results("whole"))


def test_more_tasks_methods_and_devices_are_added_to_what_is_there(folder):
    assert benchmark(methods="none,last") == 0
    first = Path("out/results.jsonl").read_bytes()
    assert benchmark("--tasks", "3", methods="none,last,biases", costs=("fast", "slow")) == 0
    assert Path("out/results.jsonl").read_bytes().startswith(first)
    assert len(results()) == 3 * 3 * 2
    assert benchmark(methods="none,last") == 0  # tables are of what is asked for
    assert len(results()) == 2 * 2


def test_a_damaged_line_is_said_and_done_again(folder, capsys):
    assert benchmark(methods="none,last") == 0
    lines = Path("out/results.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"task":0', b'"task":7')
    Path("out/results.jsonl").write_bytes(b"".join(lines))
    whole = results()
    assert benchmark(methods="none,last") == 0
    assert "1 damaged line" in capsys.readouterr().err
    pd.testing.assert_frame_equal(results(), whole)


def test_plans_that_were_trained_under_another_budget_are_not_trained_again(folder, capsys, monkeypatch):
    assert benchmark("--latency-share", "0.3", methods="none,last,biases", out="tight") == 0
    trained = []
    own = adaptation.adapt
    monkeypatch.setattr(
        adaptation, "adapt", lambda ready, plan, **rest: trained.append(plan) or own(ready, plan, **rest)
    )
    assert benchmark("--reuse", "tight", methods="none,last,tinytrain") == 0
    assert [bool(plan.layers) for plan in trained] == [
        False,
        True,
    ] * 2  # `last` is there; `none` has no plan to know by
    last, before = (table[table.method == "last"] for table in (results(), results("tight")))
    pd.testing.assert_series_equal(
        last.accuracy_after_percent, before.accuracy_after_percent, check_index=False, check_names=False
    )
    trained.clear()
    assert benchmark("--tasks", "3", "--reuse", "tight", methods="none,last") == 0
    assert len(trained) == 2  # a task that is not there
    assert benchmark("--steps", "1", "--reuse", "tight", methods="none,last", out="shorter") == 1
    assert "has steps" in capsys.readouterr().err
    known = json.loads((folder / "tight" / "benchmark.json").read_text())
    known["weights"] = dict.fromkeys(known["weights"], "of another seed")
    (folder / "tight" / "benchmark.json").write_text(json.dumps(known))
    assert benchmark("--reuse", "tight", methods="none,last", out="otherwise") == 1
    assert "tight was made with other weights of smallnet:create" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_come_to_what_one_does(folder):
    assert benchmark(out="one") == 0
    assert benchmark("--jobs", "2", out="two") == 0
    pd.testing.assert_frame_equal(results("one"), results("two"))


@pytest.mark.slow
def test_a_dask_cluster_comes_to_what_one_process_does(folder):
    distributed = pytest.importorskip("distributed")
    assert benchmark(out="here") == 0
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        assert benchmark("--scheduler", cluster.scheduler_address, out="there") == 0
    pd.testing.assert_frame_equal(results("here"), results("there"))


def test_a_folder_has_one_writer(folder, capsys):
    assert benchmark(methods="none") == 0
    settings = json.loads(Path("out/benchmark.json").read_text())["settings"]
    with Results(Path("other"), Settings(), ()):
        assert benchmark(methods="none", out="other") == 1
    assert "another process is writing the benchmark other" in capsys.readouterr().err
    assert settings["steps"] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--steps", "3"), "has steps 2, and now 3 is asked for"),
        (("--seed", "1"), "has seed 0, and now 1 is asked for"),
        (("--latency-share", "0.5"), "has limits"),
    ],
)
def test_other_settings_are_refused(words, says, folder, capsys):
    assert benchmark(methods="none") == 0
    assert benchmark(*words, methods="none") == 1
    printed = capsys.readouterr().err
    assert says in printed
    assert "another --out" in printed


def test_another_cost_model_of_the_same_device_is_refused(folder, capsys):
    assert benchmark(methods="none") == 0
    model = json.loads(Path("fast.model/model.json").read_text())
    Path("fast.model/model.json").write_text(json.dumps(model))  # spelt otherwise: another file
    assert benchmark(methods="none") == 1
    assert "another cost model of fast" in capsys.readouterr().err


def test_a_network_of_other_weights_is_refused(folder, capsys, monkeypatch):
    assert benchmark(methods="none") == 0
    lines = Path("out/results.jsonl").read_bytes()
    text = Path("smallnet.py").read_text()
    Path("smallnet.py").write_text(text.replace("manual_seed(0)", "manual_seed(12)"))
    monkeypatch.delitem(sys.modules, "smallnet")
    assert benchmark("--tasks", "3", methods="none") == 1
    assert "was made with other weights of smallnet:create" in capsys.readouterr().err
    assert Path("out/results.jsonl").read_bytes() == lines


def test_other_contributions_are_refused(folder, capsys):
    Path("c.json").write_text("{}")
    words = ("--contributions", "smallnet:create=c.json")
    assert benchmark(*words, methods="none") == 0
    Path("c.json").write_text("{ }")
    assert benchmark(*words, methods="none") == 1
    assert "was made with other contributions of smallnet:create" in capsys.readouterr().err


def test_damaged_files_of_a_benchmark_end_in_one_sentence(folder, capsys):
    assert benchmark(methods="none") == 0
    with Path("out/results.jsonl").open("ab") as file:
        file.write(store_lines.encode({"schema": 1, "method": "none"}))  # whole, and no result
    assert benchmark(methods="none") == 0
    assert "1 damaged lines of out/results.jsonl" in capsys.readouterr().err
    Path("out/tasks/digits.json").write_text("[]")
    assert benchmark(methods="none") == 1
    assert "is no file of episodes" in capsys.readouterr().err


def test_learning_rates_that_are_none_are_refused(tmp_path):
    with Results(tmp_path, Settings(), ()) as opened:
        for text in ('[{"method": "none"}]', "[1]", "{"):
            (tmp_path / "learning_rates.json").write_text(text)
            with pytest.raises(UserError, match=r"holds no learning rates .*remove it"):
                opened.keep_rates({})


def test_no_plan_within_the_budget_is_a_result_of_its_own(folder, capsys):
    assert benchmark("--memory-bytes", "10", methods="none,tinytrain") == 0
    assert "tinytrain has no plan for 2 tasks on fast: no plan fits" in capsys.readouterr().err
    table = results().set_index("method")
    assert (table.loc["tinytrain", "status"] == "no plan").all()
    assert table.loc["tinytrain", "reason"].str.contains("no plan fits").all()
    assert table.loc["tinytrain", "accuracy_after_percent"].isna().all()
    summary = pd.read_csv("out/summary.csv").set_index("method")
    assert summary.loc["tinytrain", "no_plan"] == 2


def test_without_the_method_none_the_first_is_what_others_are_compared_with(folder, capsys):
    assert benchmark(methods="last,tinytrain") == 0
    assert set(pd.read_csv("out/differences.csv").method) == {"tinytrain"}
    assert "Accuracy less that of last" in capsys.readouterr().out
    assert benchmark(methods="last") == 0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("--methods", "none,magic"), 2, "there is no method 'magic'"),
        (("--methods", "none,none"), 2, "a method is named twice"),
        (("--against", "full"), 2, "--against full is none of the methods compared"),
        (("--latency-share", "1.5"), 2, "a budget of 1.5 of a full step"),
        (("--sampling", "wild"), 2, "there is no sampling 'wild'"),
        (("--optimizer", "lion"), 2, "there is no optimizer 'lion'"),
        (("--jobs", "0"), 2, "--jobs 0"),
        (("--learning-rate", "0"), 2, "a learning rate of 0"),
        (("--port", "qemu://mps2-an500"), 2, "1 cost models and 1 ports with --no-device"),
        (("--costs", "nowhere.model"), 1, "nowhere.model"),
        (("--costs", "fast.model"), 1, "two of the cost models are of the same device"),
        (("--weights", "smallnet:create"), 2, "names no network and file"),
        (("--weights", "smallnet:create=nowhere.npz"), 1, "there is no file nowhere.npz, as --weights says"),
        (("--weights", "mcunet-5fps=smallnet.py"), 2, "--weights is given for mcunet-5fps, which is none of the netw"),
        (("--contributions", "other=smallnet.py"), 2, "--contributions is given for other, which is none"),
        (("--weights", "smallnet:create=smallnet.py"), 2, "smallnet:create brings its own"),
        (("--domain", "mini-imagenet", "--choose-lr"), 2, "learning rates are chosen on mini-imagenet"),
        (("--domain", "birds"), 1, "no data set 'birds'"),
        (("--ways", "9"), 1, "9 ways"),
        (("--inspect", "0"), 2, "the share of layers to inspect is 0"),
        (("--input", "1x16x16"), 2, "3 channels"),
        (("--scheduler", "tcp://127.0.0.1:9"), 1, "Dask"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_a_status(words, status, says, folder, capsys):
    assert benchmark(*words) == status
    printed = capsys.readouterr().err
    assert says in printed
    assert "Traceback" not in printed


def test_a_budgeted_method_asks_for_a_budget_and_a_model(folder, capsys):
    common = ("benchmark", "--methods", "none,tinytrain", "--out", "out")
    assert run(*common, "--costs", "fast.model", "--no-device") == 2
    assert "the method tinytrain asks for a budget" in capsys.readouterr().err
    assert run(*common, "--latency-ms", "5", "--no-device") == 2
    assert "there is no cost model" in capsys.readouterr().err


def test_methods_are_listed(capsys):
    assert run("benchmark", "--list-methods", "--json") == 0
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"none", "full", "last", "biases", "static", "tinytrain-analytical", "tinytrain"} <= set(rows)
    assert rows["tinytrain"]["asks_for_a_budget"] and not rows["full"]["asks_for_a_budget"]


def write_images(folder: Path, seed: int = 0) -> None:
    """Mini-ImageNet's layout with six classes of eight pictures; classes 2, 3 and 4 are to validate with."""
    rng = np.random.default_rng(seed)
    (folder / "weights").mkdir(parents=True)
    (folder / "images").mkdir()
    for part in (0, 1):
        streams = []
        labels = np.repeat(np.arange(6), 4)
        for label in labels:
            pixels = np.clip(40 * label + rng.integers(0, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            path = folder / "one.jpg"
            Image.fromarray(pixels).save(path)
            streams.append(path.read_bytes())
        np.savez(
            folder / "images" / f"mini_imagenet_100x100_84_part{part}.npz",
            blob=np.frombuffer(b"".join(streams), np.uint8),
            offset=np.cumsum([0, *map(len, streams)]),
            label=labels,
            class_names=np.array(list("abcdef")),
            split=np.array(["train", "train", "val", "val", "val", "test"]),
        )


def test_learning_rates_are_chosen_on_validation_classes_and_kept(folder):
    write_images(folder / "data")
    words = ("--data", "data", "--choose-lr", "--lr-tasks", "1", "--tasks", "1")
    assert benchmark(*words, methods="none,last") == 0
    tasks = json.loads(Path("out/tasks/mini-imagenet.json").read_text())["episodes"]
    assert [sorted(task["classes"]) for task in tasks] == [[2, 3, 4]]
    chosen = {row["method"]: row["learning_rate"] for row in json.loads(Path("out/learning_rates.json").read_text())}
    tried = [r for r in read_records(Path("out")) if r["domain"] == "mini-imagenet"]
    assert sorted(r["learning_rate"] for r in tried) == [1e-4, 1e-3, 1e-2]
    best = max(tried, key=lambda r: (r["accuracy_after_percent"], -r["learning_rate"]))
    assert chosen == {"last": best["learning_rate"]}
    table = results()
    assert set(table.domain) == {"digits"}
    assert table.set_index("method").learning_rate.to_dict() == {"none": 1e-3, "last": best["learning_rate"]}
    before = Path("out/results.jsonl").read_bytes()
    assert benchmark(*words, methods="none,last") == 0
    assert Path("out/results.jsonl").read_bytes() == before


def test_the_best_rate_is_that_of_the_best_mean_and_the_lowest_of_equals():
    def record(rate, accuracy, status="ok", method="last"):
        return {"method": method, "network": "n", "learning_rate": rate, "status": status,
                "accuracy_after_percent": accuracy}  # fmt: skip

    records = [record(1e-2, 90), record(1e-2, 40), record(1e-3, 70), record(1e-3, 68), record(1e-4, 69)]
    assert chosen_rates(records, ["last"], ["n"]) == {("last", "n"): 1e-4}
    assert chosen_rates([*records, record(1e-3, 72)], ["last"], ["n"]) == {("last", "n"): 1e-3}
    assert chosen_rates([record(1e-3, None, "no plan")], ["last"], ["n"]) == {}


def test_keys_of_plans_tell_channels_apart_and_keys_of_steps_count_them(folder):
    network = load_network("smallnet:create", SHAPE)[1]
    plans = [StepPlan.for_network(network, {"2": LayerPlan(channels)}) for channels in ((0, 1), (2, 3), (0, 1, 2))]
    assert len({plan_key(plan) for plan in plans}) == 3
    assert step_key(plans[0]) == step_key(plans[1]) != step_key(plans[2])
    adam, sgd = (StepPlan.for_network(network, plans[0].layers, optimizer=name) for name in ("adam", "sgd"))
    assert step_key(adam) != step_key(sgd)


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(UserError("no such thing", hint="look", exit_status=2)))
    assert (str(error), error.exit_status) == ("no such thing; look", 2)
    error = pickle.loads(pickle.dumps(DoesNotFit("the step", 10, 5)))
    assert isinstance(error, DoesNotFit)
    assert str(error) == str(DoesNotFit("the step", 10, 5))


def test_missing_cells_are_those_without_a_line(folder):
    devices = (Device("fast", folder / "fast.model"), Device("slow", folder / "slow.model"))
    assert benchmark(methods="none") == 0
    settings = json.loads(Path("out/benchmark.json").read_text())["settings"]
    limits = Settings().limits.__class__(**settings.pop("limits"))
    own = Settings(**settings | {"limits": limits, "input_shape": SHAPE, "ratios": tuple(settings["ratios"])})
    assert json.loads(json.dumps(asdict(own))) == json.loads(Path("out/benchmark.json").read_text())["settings"]
    with Results(Path("out"), own, devices) as there:
        known = Cell("none", "smallnet:create", "digits", 0, 1e-3)
        assert there.missing(known, devices) == devices[1:]
        assert there.missing(Cell("last", *list(asdict(known).values())[1:]), devices) == devices
