"""What is put together for a study and made of it: scaled costs, tasks' information, factors one by one, a plot."""

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import MadeUpCosts
from PIL import Image
from test_study import METHODS, NETWORK, SETTINGS, SOURCES, tasks
from torch import nn

from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from tinytrain import baselines, episodes, study_frozen, study_run
from tinytrain.study import Methods, StudySettings, factorial
from tinytrain.study_plots import SHOWN, write_plot
from tinytrain.study_store import Study
from tinytrain.study_tables import choice_table, factor_table, measured_table
from tinytrain.tasks import Loaded

TIMER = "emulated: time = instructions"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = Study(tmp_path_factory.mktemp("study"), METHODS)
    study.choose(tasks(3))
    return study


@pytest.mark.parametrize("images", [1, 4])
def test_macs_are_scaled_so_that_training_everything_costs_what_the_model_says(images):
    settings = StudySettings(**{**vars(SETTINGS), "images": images})
    sources = study_run.cost_sources(MadeUpCosts(), NETWORK, settings)
    layers = {x.name: LayerPlan(tuple(range(x.geometry.channels("out"))), "out", bool(x.geometry.bias_elements))
              for x in NETWORK.trainable}  # fmt: skip
    whole = StepPlan.for_network(NETWORK, layers, head=Head(classes=5), images=images)
    costs = {name: source.step(NETWORK, whole).latency_ms for name, source in sources.items()}
    assert costs["own"] == pytest.approx(costs["measured"]) == pytest.approx(costs["chain"])
    last = StepPlan.for_network(NETWORK, {"linear": LayerPlan((0,))}, head=Head(classes=5), images=images)
    single = {name: source.step(NETWORK, last).latency_ms for name, source in sources.items()}
    assert len({round(value, 9) for value in single.values()}) == 3


def test_a_tasks_information_is_that_of_the_episode_of_its_name(images, small):
    loaded = {"noise": Loaded(small, lower(small, (3, 12, 12), "five_layers:Small"), images, "made up")}
    told: list[str] = []
    given = study_run.task_information(loaded, ["grouped", "linear"], tasks=2, ways=3, shots=2, advance=told.append)
    assert list(given) == ["noise-0", "noise-1"] and told == []
    found = given["noise-1"]()
    ready = loaded["noise"].ready(episodes.draw(images, 1, ways=3, shots=2))
    expected = baselines.task_information(ready, ["grouped", "linear"])
    assert told == ["noise-1"] and set(found) == {"grouped", "linear"}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_each_factor_is_changed_alone(study):
    table = factor_table(study).set_index(["factor", "to"])
    rows = 3 * 3  # tasks and budgets
    assert table.pairs.to_dict() == {
        ("denominator", "device"): 3 * 2 * rows,
        ("accounting", "chain"): 7 * rows,
        ("accounting", "measured"): 7 * rows,
        ("frontier", "seen"): 3 * 3 * rows,
        ("solver", "marginal"): 3 * 2 * 2 * rows,
        ("solver", "exact"): 3 * 2 * rows,
    }
    choices = choice_table(study).set_index(["task", "budget_ms", "method"])
    share = choices.fisher_share.unstack("method")
    names = [m.name for m in factorial()]
    before = [n for n in names if "/chain" in n]
    changes = pd.concat([share[n.replace("/chain", "/measured")] - share[n] for n in before])
    row = table.loc["accounting", "measured"]
    assert row.fisher_points == pytest.approx(100 * changes.mean())
    assert row.low_95_points <= row.fisher_points <= row.high_95_points
    plans = choices.plan.unstack("method")
    same = np.mean([(plans[n.replace("/chain", "/measured")] == plans[n]).mean() for n in before])
    assert row.same_plan_percent == pytest.approx(100 * same)
    assert row.broken_to_percent == 0 < row.broken_from_percent  # the judge keeps its own budgets
    assert table.loc["solver", "exact"].fisher_points >= -1e-9  # by each accounting its own


def test_what_was_measured_stands_beside_what_was_predicted(study, monkeypatch):
    choice = next(c for c in study.choices() if c.method == "exact/measured")
    monkeypatch.setattr(study, "measured_ms", lambda: {choice.step: choice.expected_ms / 1.25})
    (row,) = measured_table(study).to_dict("records")
    assert row["step"] == choice.step and row["trained_layers"] == len(study.plan(choice.plan).layers)
    assert row["predicted_ms"] == pytest.approx(choice.expected_ms) and row["error_percent"] == pytest.approx(25)


def test_a_limit_of_memory_holds_beside_every_budget():
    sources = SOURCES | {"measured": MadeUpCosts(arena=True)}
    free = Methods(SETTINGS, NETWORK, sources)
    exact = next(m for m in factorial() if m.name == "exact/measured")
    information = tasks(1)["task0"]()
    budget_ms = free.budgets_ms()[-1]
    unlimited = free.choose(exact, information, budget_ms)
    limit = int(0.9 * unlimited.cost.memory_bytes)
    settings = StudySettings(**{**vars(SETTINGS), "memory_bytes": limit})
    limited = Methods(settings, NETWORK, sources).choose(exact, information, budget_ms)
    assert limited.cost.memory_bytes <= limit < unlimited.cost.memory_bytes
    assert limited.gain < unlimited.gain


def test_the_plot_has_a_line_for_every_method_shown(study, tmp_path, monkeypatch):
    names = {m.name for m in factorial()}
    assert set(SHOWN) <= names
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn: list[str] = []
    legend = Figure.legend

    def keep(figure, *args, **options):
        drawn.extend(label for panel in figure.axes for label in panel.get_legend_handles_labels()[1])
        return legend(figure, *args, **options)

    monkeypatch.setattr(Figure, "legend", keep)
    write_plot(choice_table(study), tmp_path / "study.png", TIMER)
    assert set(drawn) == set(SHOWN.values())
    with Image.open(tmp_path / "study.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_frozen_accuracies_are_those_of_each_episodes_own_images(images):
    model = nn.Sequential(nn.AvgPool2d(3), nn.Flatten()).eval()
    told: list[None] = []
    features = study_frozen.all_features(model, images, (12, 12), batch=7, advance=lambda: told.append(None))
    assert features.shape == (60, 48) and len(told) == 9
    found = study_frozen.accuracies_percent(features, images, episodes_count=3, ways=4, shots=2, queries=4)
    for seed in range(3):
        task = episodes.draw(images, seed, ways=4, shots=2, queries=4).load(images, (12, 12))
        assert found[seed] == pytest.approx(100 * episodes.accuracy(model, task, 4))
