from pathlib import Path

import pandas as pd
import pytest
from made_up import measured_run
from small_benchmark import benchmark, results, working_folder

from costmodels.model import CostModel
from profiler.errors import UserError
from profiler.store import load_steps
from tinytrain import benchmark_device
from tinytrain.benchmark import Device

BOARD, NET = "qemu-mps2-an500", "smallnet-create"
WHERE = ("--port", "qemu://mps2-an500")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return working_folder(tmp_path, monkeypatch, {BOARD: 1.0, "fast": 1.0})


@pytest.mark.slow
def test_every_distinct_step_is_measured_once(folder):
    words = ("--repetitions", "1", "--energy", "emulated")
    assert benchmark(*words, costs=(BOARD,), where=WHERE) == 0
    table = results()
    steps = load_steps(folder / "out" / "measured" / BOARD / NET)
    assert sorted(steps.plan) == sorted(table.step.dropna().unique())
    assert steps.plan.is_unique
    trained = table[table.method != "none"]
    assert (trained.measured_status == "ok").all()
    assert (trained.timer == "instructions").all() and (trained.energy_source == "simulated").all()
    of_step = steps.set_index("plan")
    assert trained.measured_latency_ms.to_numpy() == pytest.approx(of_step.latency_ms[trained.step].to_numpy())
    assert trained.measured_memory_bytes.to_numpy() == pytest.approx(of_step.memory_peak_bytes[trained.step].to_numpy())
    assert table[table.method == "none"].measured_latency_ms.isna().all()
    summary = pd.read_csv("out/summary.csv").set_index("method")
    assert summary.loc["last", "costs_are"].startswith("measured")
    assert Path(f"out/predicted-smallnet-create-{BOARD}.png").exists()
    trials = Path(f"out/measured/{BOARD}/{NET}/trials.jsonl").read_bytes()
    assert benchmark(*words, "--tasks", "1", costs=(BOARD,), where=WHERE) == 0
    assert Path(f"out/measured/{BOARD}/{NET}/trials.jsonl").read_bytes() == trials


@pytest.mark.slow
def test_the_steps_of_two_networks_are_measured_in_a_run_each(folder):
    other = (folder / "smallnet.py").read_text().replace("nn.Conv2d(16, 16, 1)", "nn.Conv2d(16, 12, 1)")
    (folder / "othernet.py").write_text(other)
    words = ("--network", "othernet:create", "--repetitions", "1", "--tasks", "1")
    assert benchmark(*words, costs=(BOARD,), where=WHERE, methods="last,tinytrain") == 0
    table = results()
    assert set(table.network) == {"smallnet:create", "othernet:create"}
    assert table.measured_latency_ms.notna().all()
    for name in (NET, "othernet-create"):
        assert len(load_steps(folder / "out" / "measured" / BOARD / name)) > 0


@pytest.mark.slow
def test_the_steps_of_most_tasks_are_measured_where_not_all_are(folder):
    words = ("--repetitions", "1", "--measure")
    assert benchmark(*words, "1", costs=(BOARD,), where=WHERE) == 0
    table = results()
    assert table.measured_latency_ms.notna().any() and table.predicted_latency_ms[table.method != "none"].notna().all()
    (measured,) = load_steps(folder / "out" / "measured" / BOARD / NET).plan
    taken = table.step.value_counts()
    assert taken[measured] == taken.max()
    assert set(table.step[table.measured_latency_ms.notna()]) == {measured}
    assert benchmark(*words, "2", costs=(BOARD,), where=WHERE) == 0
    assert len(load_steps(folder / "out" / "measured" / BOARD / NET)) == 2


def test_a_device_of_another_kind_than_the_cost_model_is_refused_before_anything_is_trained(folder, capsys):
    assert benchmark("--repetitions", "1", methods="none,last", where=WHERE) == 1
    assert f"the device at qemu://mps2-an500 is {BOARD}, and the cost model is of fast" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_device_goes_by_what_it_is_and_not_by_the_name_that_a_run_gave_it(folder):
    """``profile --name desk`` names the run's device so, and the model that is fitted to it."""
    model = CostModel.load("fast.model")
    model.card_ |= {"device": "desk", "board": BOARD}
    model.save(folder / "desk.model")
    desk = Device("desk", folder / "desk.model")
    benchmark_device.check_device(folder, desk, WHERE[1])
    measured_run(benchmark_device.run_folder(folder, "desk", "net"), BOARD)
    benchmark_device.check_device(folder, desk, "/dev/nowhere")
    model.card_["board"] = "nucleo-f446re"
    model.save(folder / "desk.model")
    with pytest.raises(UserError, match=rf"is {BOARD}, and the cost model is of desk \(nucleo-f446re\)"):
        benchmark_device.check_device(folder, desk, "/dev/nowhere")


def test_a_device_that_is_not_there_is_one_sentence_before_anything_is_trained(folder, capsys):
    assert benchmark(methods="none,last", where=("--port", "/dev/nowhere")) == 1
    printed = capsys.readouterr().err
    assert "there is no port /dev/nowhere" in printed
    assert "Traceback" not in printed
    assert not Path("out").exists()


def test_a_device_that_goes_away_while_methods_are_trained_costs_no_training(folder, capsys, monkeypatch):
    monkeypatch.setattr(benchmark_device, "check_device", lambda *_: None)
    assert benchmark(methods="none,last", where=("--port", "/dev/nowhere")) == 1
    printed = capsys.readouterr().err
    assert "steps could not be measured on /dev/nowhere" in printed
    assert "Traceback" not in printed
    assert len(Path("out/results.jsonl").read_bytes().splitlines()) == 4


def test_what_was_measured_on_another_device_is_refused(folder):
    run = measured_run(benchmark_device.run_folder(folder, "fast", "net"), "slow")
    with pytest.raises(UserError, match=f"the device in {run} is slow, and the cost model is of fast"):
        benchmark_device.check_device(folder, Device("fast", folder / "fast.model"), "/dev/nowhere")
