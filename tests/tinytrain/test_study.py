"""The study's machinery at toy size: a network of four layers, made-up costs, three tasks."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from five_layers import Small
from made_up import MadeUpCosts, measured_run

from costmodels.analytical import AnalyticalCosts
from profiler.errors import UserError
from profiler.workloads.lower import lower
from tinytrain import step_command
from tinytrain.study import ACCOUNTINGS, Method, Methods, StudySettings, factorial, step_key
from tinytrain.study_store import Study
from tinytrain.study_tables import choice_table, identical_plans, method_table

SHAPE = (3, 10, 10)
NAME = "five_layers:Small"
NETWORK = lower(Small(), SHAPE, NAME)
SETTINGS = StudySettings(
    NAME, SHAPE, "made up", inspected_share=1.0, ratios=(0.25, 0.5, 1.0), random_plans=30, budget_shares=(0.1, 0.4, 0.7)
)
#: Own MACs of these are worth less than the device takes: budgets by them are broken.
SOURCES = {"own": AnalyticalCosts(0.01, "own"), "chain": AnalyticalCosts(0.02, "chain"), "measured": MadeUpCosts()}
METHODS = Methods(SETTINGS, NETWORK, SOURCES)


def information(task: str) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(int(task.removeprefix("task")))
    return {x.name: torch.tensor(rng.random(x.geometry.channels("out")) ** 3) for x in NETWORK.trainable}


def tasks(count: int, asked: list[str] | None = None) -> dict:
    def give(name: str):
        if asked is not None:
            asked.append(name)
        return information(name)

    return {f"task{i}": lambda i=i: give(f"task{i}") for i in range(count)}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = Study(tmp_path_factory.mktemp("study"), METHODS)
    study.choose(tasks(3))
    return study


def test_the_factorial_has_every_combination_once():
    methods = factorial()
    assert len({m.name for m in methods}) == len(methods) == 3 * (2 * 2 + 2 + 1)
    assert Method("greedy", "own", "published", False) in methods  # TinyTrain's
    assert {m.accounting for m in methods} == set(ACCOUNTINGS)


def test_every_method_chooses_for_every_task_and_budget_and_equal_plans_are_kept_once(study):
    choices = study.choices()
    assert len({(c.task, c.budget_ms, c.method) for c in choices}) == len(choices) == 3 * 3 * 21
    for task in ("task0", "task1", "task2"):
        keys = study.distinct_plans(task)
        assert len(keys) == len(set(keys)) < 3 * 21
    for c in choices:
        if c.plan:
            plan = study.plan(c.plan)
            assert step_key(plan.layers) == c.step
            delta = information(c.task)
            assert sum(float(delta[n][list(p.channels)].sum()) for n, p in plan.layers.items()) == pytest.approx(c.gain)
            source = SOURCES[c.method.split("/")[1]]
            assert source.step(NETWORK, plan).latency_ms == pytest.approx(c.expected_ms)
            assert c.expected_ms <= c.budget_ms


def test_what_is_counted_by_the_judge_keeps_its_budget_and_exact_regrets_nothing(study):
    table = choice_table(study)
    assert set(table.latency_is) <= {"predicted", ""}
    judged = table[table.method.str.contains("measured")]
    assert judged.kept.all() and (judged.over_budget_percent <= 1e-9).all()
    exact = table[table.method == "exact/measured"]
    assert exact.regret.abs().max() < 1e-9
    assert (table.regret.dropna() >= -1e-9).all() and table.regret.max() > 0.01
    broken = table[(table.plan != "") & ~table.kept]
    assert len(broken) and (broken.over_budget_percent > 0).all() and broken.regret.isna().all()
    summary = method_table(study).set_index("method")
    assert summary.broken_percent["exact/measured"] == 0 < summary.broken_percent["exact/own"]
    assert summary.n.eq(9).all()
    own = table[(table.method == "exact/own") & (table.plan != "")]
    assert summary.broken_percent["exact/own"] == pytest.approx(100 * (~own.kept).mean())
    assert len(method_table(study, by_budget=True)) == 21 * 3
    same = identical_plans(study)
    assert same.loc["exact/own", "exact/own"] == 1
    assert same.loc["exact/own", "exact/measured"] == same.loc["exact/measured", "exact/own"] < 1


def test_regret_is_that_to_the_best_of_all_plans_and_the_random_ones_within_the_budget(study):
    table = choice_table(study)
    totals = study.random_gains()
    for (task, budget_ms), group in table.groupby(["task", "budget_ms"]):
        total, gains = totals[task]
        delta = information(task)
        assert total == pytest.approx(sum(float(d.sum()) for d in delta.values()))
        best = 0.0
        for key, layers in study.random.items():
            top = {n: sorted(torch.topk(delta[n], len(p.channels)).indices.tolist()) for n, p in layers.items()}
            gain = sum(float(delta[n][channels].sum()) for n, channels in top.items())
            assert gains[key] == pytest.approx(gain)
            if SOURCES["measured"].step(NETWORK, METHODS.judge.plan(layers)).latency_ms <= budget_ms:
                best = max(best, gain)
        best = max([best, *table[(table.task == task) & (table.latency_ms <= budget_ms)].gain])
        assert group.best_gain.to_numpy() == pytest.approx(best)


def test_measured_latencies_come_before_predicted_ones(study, monkeypatch):
    step = next(c.step for c in study.choices() if c.method == "exact/measured")
    monkeypatch.setattr(study, "measured_ms", lambda: {step: 1e6})
    table = choice_table(study)
    hit = table[table.step == step]
    assert (hit.latency_is == "measured").all() and not hit.kept.any() and (hit.latency_ms == 1e6).all()


def test_a_study_goes_on_where_it_was_also_behind_a_line_that_was_cut_off(tmp_path):
    asked: list[str] = []
    done: list[str] = []
    first = Study(tmp_path, METHODS)
    some = factorial()[:4]
    first.choose(tasks(1, asked), some)
    path = tmp_path / "choices.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 12
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    again = Study(tmp_path, METHODS)
    again.choose(tasks(2, asked), some, advance=done.append)
    assert asked == ["task0", "task0", "task1"] and done == ["task0", "task1"]
    again.choose(tasks(2, asked), some)
    assert len(asked) == 3  # nothing was missing
    choices = [json.loads(json.dumps(vars(c))) for c in again.choices()]
    assert len(choices) == 24
    restored = {k: v for k, v in choices[11].items() if k != "seconds"}
    assert restored == {k: v for k, v in json.loads(lines[-1]).items() if k != "seconds"}


def test_a_folder_of_another_study_is_refused(tmp_path):
    Study(tmp_path, METHODS)
    other = Methods(StudySettings(**{**vars(SETTINGS), "confidence": 0.5}), NETWORK, SOURCES)
    with pytest.raises(UserError, match=r"has confidence 0\.95, this one 0\.5"):
        Study(tmp_path, other)
    dearer = Methods(SETTINGS, NETWORK, SOURCES | {"measured": MadeUpCosts(mw=1.0, arena=True)})
    Study(tmp_path, dearer)  # the same latencies
    with pytest.raises(UserError, match="made with another cost model"):
        Study(tmp_path, Methods(SETTINGS, NETWORK, SOURCES | {"measured": MadeUpCosts(std_share=0.3)}))
    with pytest.raises(UserError, match="no cost source for 'chain'"):
        Methods(SETTINGS, NETWORK, {"own": SOURCES["own"], "measured": SOURCES["measured"]})


@pytest.mark.parametrize("text", ["{", "[]", '{"settings": {}}', '{"settings": {}, "budgets_ms": 3}'])
def test_a_damaged_description_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError, match="is no study"):
        Study(tmp_path, METHODS)


def test_a_step_that_the_device_cannot_run_is_asked_for_once(tmp_path, monkeypatch):
    study = Study(tmp_path, METHODS)
    study.choose(tasks(1), factorial()[:3])
    first, second, *_ = study.steps_to_measure()
    commands: list[list[str]] = []

    def answer(command, **_):
        commands.append(command)
        said = {"failures": [f"plan {first} cannot run on small-board: it wants 9 bytes more"]}
        return subprocess.CompletedProcess(command, 1, json.dumps(said), "")

    monkeypatch.setattr(step_command.subprocess, "run", answer)
    assert study.measure("qemu://small-board", most=1) == 1
    assert str(tmp_path / "steps" / f"{first}.json") in commands[0] and second not in " ".join(commands[0])
    assert first not in study.steps_to_measure() and second in study.steps_to_measure()
    assert "9 bytes more" in (tmp_path / "refused.jsonl").read_text()
    assert study.measured_ms() == {}

    def fail(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "error: there is no port there\n")

    monkeypatch.setattr(step_command.subprocess, "run", fail)
    with pytest.raises(UserError, match="could not be measured on nowhere: error: there is no port there"):
        study.measure("nowhere", most=1)
    assert second in study.steps_to_measure()


@pytest.mark.parametrize(("asked", "said"), [(None, []), (1, ["--repetitions", "1"]), (7, ["--repetitions", "7"])])
def test_repetitions_are_those_of_profile_step_unless_they_are_asked_for(tmp_path, monkeypatch, asked, said):
    study = Study(tmp_path, METHODS)
    study.choose(tasks(1), factorial()[:3])
    commands: list[list[str]] = []

    def answer(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, json.dumps({"failures": []}), "")

    monkeypatch.setattr(step_command.subprocess, "run", answer)
    study.measure("native://", most=1, repetitions=asked)
    (command,) = commands
    at = command.index("--repetitions") if "--repetitions" in command else len(command)
    assert command[at : at + 2] == said


@pytest.mark.parametrize(
    ("board", "expected_ms"), [("linux-native", 10.0), ("linux-rpi4", 10.0), ("qemu-stm32f405", 31.0)]
)
def test_of_linux_machines_the_least_disturbed_repetitions_count_and_of_others_the_median(tmp_path, board, expected_ms):
    study = Study(tmp_path, METHODS)
    measured_run(tmp_path / "run", board)
    assert study.measured_ms() == {"timed": pytest.approx(expected_ms)}  # not the one that the device could not run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_steps_are_measured_by_profile_step_each_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    study = Study(tmp_path, METHODS)
    study.choose(tasks(1), factorial()[:2])
    waiting = study.steps_to_measure(random=1)
    chosen = {c.step for c in study.choices() if c.step}
    assert chosen <= set(waiting) and len(waiting) <= len(chosen) + 1
    assert study.measure("qemu://stm32f405", most=1) == 1
    assert study.measure("qemu://stm32f405", most=1) == 1  # goes on in the same run
    measured = study.measured_ms()
    assert set(measured) == set(list(waiting)[:2])
    assert all(0 < ms < math.inf for ms in measured.values())
    assert set(study.steps_to_measure(random=1)) == set(waiting) - set(measured)
    table = choice_table(study)
    assert set(table[table.latency_is == "measured"].step) == set(measured) & chosen
