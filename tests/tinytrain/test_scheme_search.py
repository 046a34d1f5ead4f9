"""SparseUpdate's search: contributions measured one part at a time, schemes beside trying every one."""

import copy
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from five_layers import Small
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import MadeUpCosts
from small_benchmark import SHAPE, benchmark, run, working_folder

from costmodels.analytical import AnalyticalCosts
from profiler.errors import UserError
from profiler.workloads.lower import load_network, lower
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import adaptation, episodes, tasks
from tinytrain.budget import Budget
from tinytrain.contributions import FROZEN, Analysis, AnalysisSettings, Contributions, Part, parts_of
from tinytrain.delta import weights_hash
from tinytrain.gain import can_train
from tinytrain.scheme_search import search
from tinytrain.selection import last_biases

NETWORK = lower(Small(), (3, 10, 10), "small")
PARTS = parts_of(NETWORK, ratios=(1 / 2, 1.0), share=1.0)
QUICK = AnalysisSettings(ways=3, shots=2, queries=4, steps=2, images=4)


def contributions_of(points: list[float], network=NETWORK, parts=PARTS) -> Contributions:
    accuracies = {FROZEN: [40.0]} | {part.name: [40.0 + x] for part, x in zip(parts, points, strict=True)}
    return Contributions(network.name, network.fingerprint, "", "", "made up", QUICK, accuracies)


# ---------------------------------------------------------------- the parts


def test_parts_are_biases_of_last_layers_and_input_slices_where_kernels_train_those():
    biases = [part.last_biases for part in PARTS if not part.layer]
    assert biases == [1, 2, 3, 4]
    slices = [(p.layer, p.axis, p.channels) for p in PARTS if p.layer]
    assert slices == [
        ("stem", "in", 2), ("stem", "in", 3), ("depthwise", "out", 4), ("depthwise", "out", 8),
        ("grouped", "out", 4), ("grouped", "out", 8), ("linear", "in", 4), ("linear", "in", 8),
    ]  # fmt: skip
    for part in PARTS:
        assert Part.named(part.name) == part
        StepPlan.for_network(NETWORK, part.layers(NETWORK))
    assert PARTS[-1].layers(NETWORK) == {"linear": LayerPlan(tuple(range(8)), "in", bias=False)}
    mcunet = load_network("mcunet-5fps", (3, 32, 32))[1]
    found = parts_of(mcunet)
    assert [p.last_biases for p in found if not p.layer] == [5, 10, 16, 21, 26, 32, 37, 42]
    assert len({p.layer for p in found if p.layer}) == 19
    with pytest.raises(ValueError, match="no part"):
        Part.named("weights:linear")


# ---------------------------------------------------------------- the search


class Every:
    """All schemes of the network under a cost source, each asked for whole."""

    def __init__(self, source, **of_plan) -> None:
        self.source, self.of_plan = source, of_plan
        by_layer: dict[str, list[Part]] = {}
        for part in PARTS:
            if part.layer and can_train(NETWORK[part.layer], of_plan.get("dtype", "f32")):
                by_layer.setdefault(part.layer, []).append(part)
        self.schemes = []
        for k in (0, 1, 2, 3, 4):
            biases = last_biases(NETWORK, k)
            for picked in itertools.product(*[(None, *parts) for parts in by_layer.values()]):
                parts = [part for part in picked if part is not None]
                layers = biases | {
                    p.layer: LayerPlan(tuple(range(p.channels)), p.axis, p.layer in biases) for p in parts
                }
                if layers:
                    plan = StepPlan.for_network(NETWORK, layers, **of_plan)
                    self.schemes.append((k, parts, source.step(NETWORK, plan)))

    def best(self, contributions: Contributions, budget: Budget) -> float:
        def points(k, parts):
            return sum(map(contributions.points, parts)) + (contributions.points(Part(k)) if k else 0.0)

        return max((points(k, parts) for k, parts, cost in self.schemes if budget.allows(cost)), default=-math.inf)


EVERY = {
    "made up": Every(MadeUpCosts(std_share=0.05, mw=20.0), images=2),
    "arena": Every(MadeUpCosts(arena=True)),
    "chain": Every(AnalyticalCosts(0.01, "chain"), images=3),
    "int8": Every(MadeUpCosts(std_share=0.05), dtype="s8", optimizer="sgd"),
}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(EVERY)),
    points=st.lists(st.floats(-5, 20), min_size=len(PARTS), max_size=len(PARTS)),
    share=st.floats(0, 1),
    limited=st.sampled_from(["latency_ms", "memory_bytes", "both"]),
)
def test_no_scheme_under_the_budget_contributes_more(name, points, share, limited):
    every, contributions = EVERY[name], contributions_of(points)
    budget = Budget()
    for quantity in ("latency_ms", "memory_bytes"):
        if limited in (quantity, "both"):
            values = [budget.upper(cost, quantity) for *_, cost in every.schemes]
            limit = min(values) + share * (max(values) - min(values))
            budget = replace(budget, **{quantity: int(limit) if quantity == "memory_bytes" else limit})
    best = every.best(contributions, budget)
    try:
        found = search(contributions, NETWORK, every.source, budget, **every.of_plan)
    except UserError as error:
        assert "no update scheme" in str(error)
        assert best <= 0 or best == -math.inf
        return
    assert budget.allows(found.cost)
    assert budget.allows(every.source.step(NETWORK, found.plan))
    assert found.points == pytest.approx(best, abs=1e-6)
    assert found.bound >= found.points - 1e-9
    assert set(last_biases(NETWORK, found.last_biases)) <= {n for n, p in found.plan.layers.items() if p.bias}


def test_biases_that_make_it_worse_train_in_no_scheme():
    worse = contributions_of([-1.0] * len(PARTS))
    with pytest.raises(UserError, match="no update scheme of positive contribution"):
        search(worse, NETWORK, AnalyticalCosts(0.01), Budget(1e6))


def test_contributions_of_another_network_or_of_nothing_are_refused():
    other = load_network("mcunet-5fps", (3, 32, 32))[1]
    with pytest.raises(UserError, match="are of small, not of mcunet-5fps"):
        search(contributions_of([1.0] * len(PARTS)), other, AnalyticalCosts(0.01), Budget(1e6))
    empty = replace(contributions_of([1.0] * len(PARTS)), accuracies={})
    with pytest.raises(UserError, match="no contributions on any task"):
        search(empty, NETWORK, AnalyticalCosts(0.01), Budget(1e6))


def test_contributions_measured_at_one_input_search_for_another():
    parts = parts_of(load_network("mcunet-5fps", (3, 32, 32))[1])
    network = load_network("mcunet-5fps", (3, 64, 64))[1]
    source = AnalyticalCosts(0.001, "chain")
    found = search(contributions_of([1.0] * len(parts), network, parts), network, source, Budget(20.0))
    assert 0 < found.cost.latency_ms <= 20
    found.plan.check(network)


# ---------------------------------------------------------------- measuring


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    working_folder(tmp_path, monkeypatch, {"fast": 1.0})
    return tasks.load("smallnet:create", SHAPE, data_folder="embedded", dataset="digits")


def test_each_part_is_trained_alone_from_the_same_weights(loaded, tmp_path):
    parts = parts_of(loaded.network, ratios=(1.0,), share=1.0)
    before = weights_hash(loaded.model)
    found = Analysis(loaded, parts, tmp_path / "c.json", QUICK, None).run(2)
    assert weights_hash(loaded.model) == before
    assert found.tasks == 2 and set(found.parts) == set(parts)
    for task in range(2):
        ready = loaded.ready(episodes.draw(loaded.images, task, ways=3, shots=2, queries=4))
        frozen = 100 * episodes.accuracy(ready.model, ready.task, 3)
        assert found.accuracies[FROZEN][task] == pytest.approx(frozen, abs=1e-3)
        for part in parts:
            own = replace(ready, model=copy.deepcopy(ready.model))
            plan = StepPlan.for_network(own.network, part.layers(own.network), head=own.head, images=4)
            alone, _ = adaptation.adapt(own, plan, steps=2, pool=QUICK.pool)
            assert found.accuracies[part.name][task] == pytest.approx(alone.accuracy_after_percent, abs=1e-3)
    part = parts[0]
    differences = np.subtract(found.accuracies[part.name], found.accuracies[FROZEN])
    assert found.points(part) == pytest.approx(differences.mean())
    reach = found.half_interval(part)
    assert reach == pytest.approx(12.706 * differences.std(ddof=1) / math.sqrt(2), rel=1e-3)


def test_an_analysis_that_is_ended_goes_on_where_it_was(loaded, tmp_path):
    parts = parts_of(loaded.network, ratios=(1.0,), share=1.0)
    whole = Analysis(loaded, parts, tmp_path / "whole.json", QUICK, None).run(2)

    class EndedError(Exception):
        pass

    done = []

    def end(note):
        done.append(note)
        if len(done) == len(parts) + 3:  # in the second task
            raise EndedError

    path = tmp_path / "ended.json"
    with pytest.raises(EndedError):
        Analysis(loaded, parts, path, QUICK, None).run(2, end)
    going_on = Analysis(loaded, parts, path, QUICK, None)
    assert going_on.found.tasks == 1
    assert going_on.missing(2) == 2 * (len(parts) + 1) - len(done)
    assert going_on.run(2) == whole == Contributions.load(path)
    with pytest.raises(UserError, match="measured with other settings"):
        Analysis(loaded, parts, path, replace(QUICK, steps=3), None)
    record = json.loads(path.read_text())
    misspelt = {FROZEN: [1], "biases:01": [1]}
    for accuracies in ({"magic": [1]}, misspelt):
        path.write_text(json.dumps(record | {"accuracies": accuracies}))
        with pytest.raises(UserError, match=r"ended\.json holds no contributions"):
            Contributions.load(path)
    for damage in ("{", json.dumps(record | {"schema": 9})):
        path.write_text(damage)
        with pytest.raises(UserError, match=r"ended\.json holds no contributions"):
            Contributions.load(path)


# ---------------------------------------------------------------- commands

WORDS = ("--network", "smallnet:create", "--input", "3x16x16", "--data", "embedded", "--contributions", "c.json")
MEASURE = ("--tasks", "1", "--ways", "3", "--shots", "2", "--queries", "4", "--steps", "2", "--inspect", "1")


def test_more_ways_than_there_are_classes_are_refused_not_cut(loaded, tmp_path):
    parts = parts_of(loaded.network, ratios=(1.0,), share=1.0)
    with pytest.raises(UserError, match="50 ways"):
        Analysis(loaded, parts, tmp_path / "c.json", replace(QUICK, ways=50), None).run(1)


def test_the_command_measures_searches_and_does_nothing_twice(loaded, capsys):
    assert run("search", *WORDS, *MEASURE, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["scheme"] is None and record["tasks"] == 1
    kept = Path("c.json").read_bytes()
    budget = ("--costs", "fast.model", "--latency-ms", "1000", "--classes", "3")
    # Made-up gains, so that there is something to choose.
    content = json.loads(kept)
    for number, name in enumerate(content["accuracies"]):
        content["accuracies"][name] = [40.0 + number]
    Path("c.json").write_text(json.dumps(content))
    assert run("search", *WORDS, *MEASURE, *budget, "--json", "--out", "s.json") == 0
    record = json.loads(capsys.readouterr().out)
    plan = StepPlan.load("s.json")
    assert json.loads(Path("c.json").read_text()) == content
    assert plan.notes["method"] == "sparse-update-searched" and plan.head.classes == 3
    assert record["scheme"]["points"] == pytest.approx(record["scheme"]["points_bound"])
    assert record["scheme"]["latency_ms"] <= 1000
    chosen = [row["part"] for row in record["contributions"] if row["chosen"]]
    assert chosen and all(Part.named(name).layer in ("", *plan.layers) for name in chosen)
    assert run("search", *WORDS, *MEASURE, *budget, "--out", "s.json") == 0
    printed = capsys.readouterr()
    assert "the scheme of the most contribution" in printed.out and "Traceback" not in printed.err
    for words, says in (
        (("--costs", "fast.model", "--latency-ms", "1e-9"), "no update scheme of positive contribution"),
        (("--latency-ms", "10"), "nothing that says what steps cost"),
        (("--costs", "fast.model"), "no budget"),
    ):
        assert run("search", *WORDS, *MEASURE, *words) in (1, 2)
        assert says in capsys.readouterr().err


def test_a_benchmark_trains_the_searched_scheme_the_same_for_every_task(loaded, capsys):
    assert run("search", *WORDS, *MEASURE) == 0
    content = json.loads(Path("c.json").read_text())
    for number, name in enumerate(content["accuracies"]):
        content["accuracies"][name] = [40.0 + number]
    Path("c.json").write_text(json.dumps(content))
    capsys.readouterr()
    methods = "none,sparse-update-searched"
    assert benchmark(methods=methods) == 2
    assert "give --contributions NETWORK=FILE" in capsys.readouterr().err
    assert benchmark("--contributions", "smallnet:create=c.json", methods=methods) == 0
    table = pd.read_csv("out/results.csv")
    rows = table[table.method == "sparse-update-searched"]
    assert len(rows) == 2 and rows.plan.nunique() == 1 and (rows.status == "ok").all()
    assert (rows.predicted_latency_ms <= rows.budget_latency_ms).all()
    plan = StepPlan.load(next(Path("out/steps").iterdir()))
    assert any(p.axis == "in" for p in plan.layers.values())
