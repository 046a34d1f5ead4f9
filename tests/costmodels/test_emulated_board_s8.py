"""The commands on an int8 run of an emulated board: fit, evaluate, and whole int8 steps beside the device."""

import json

import numpy as np
import pytest
from test_emulated_board import HERE, NETWORK, PORT, command

from costmodels.model import CostModel
from profiler.store import load_steps
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("costmodels-board"), pytest.mark.timeout(300)]

SAVINGS = ((), ("stream", "in_place"), ("stream", "in_place", "fused_update"))


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A folder with a measured run and the model that was fitted to it."""
    folder = tmp_path_factory.mktemp("board-s8")
    options = ("--dtype", "s8", "--ratios", "1/4,1", "--repetitions", 1)
    command("profiler", "measure", "--port", PORT, *NETWORK, *options, "--out", folder / "run")
    command("costmodels", "fit", folder / "run", "--out", folder / "model")
    return folder


def test_held_out_int8_ops_are_within_3_percent_and_far_better_than_macs(board):
    text, _ = command("costmodels", "evaluate", board / "model", board / "run", "--json")
    result = json.loads(text)
    ours, scalar = result["overall"]["latency"], result["baselines"]["c × MACs"]["latency"]
    assert result["judged_on"] == "held-out ops"
    assert ours["n"] >= 50
    assert ours["mape_percent"] <= 3
    assert scalar["mape_percent"] > 10 * ours["mape_percent"]
    assert {row["dtype"] for row in result["by_op"] if row["kind"] == "conv2d"} == {"s8"}
    assert result["overall"]["memory"]["p95_percent"] <= 2


def test_whole_int8_steps_are_predicted_within_5_percent_of_the_device(board, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    _, network = load_network("vision_network:build", (3, 20, 20))
    model = CostModel.load(board / "model")
    rng = np.random.default_rng(0)
    options, predicted = [], {}
    for i, (depth, savings) in enumerate(zip((1, 8, len(network.trainable)), SAVINGS, strict=True)):
        layers = {}
        for layer in network.trainable[-depth:]:
            axis = "in" if layer.geometry.kind == "conv2d" and rng.random() < 0.5 else "out"
            count = int(rng.integers(0, layer.geometry.channels(axis) + 1))
            layers[layer.name] = LayerPlan(tuple(range(count)), axis)
        plan = StepPlan.for_network(network, layers, optimizer="sgd", dtype="s8", savings=frozenset(savings))
        plan.save(board / f"plan{i}.json")
        options += ["--plan", board / f"plan{i}.json"]
        predicted[f"plan{i}"] = model.step(network, plan)
    command("profiler", "step", "--port", PORT, *options, "--repetitions", 1, "--out", board / "steps")
    measured = load_steps(board / "steps").set_index("plan")
    assert set(measured["status"]) == {"ok"}
    for name, cost in predicted.items():
        assert cost.latency_ms == pytest.approx(measured["latency_ms"][name], rel=0.05)
        assert measured["memory_peak_bytes"][name] <= cost.memory_bytes <= 1.01 * measured["memory_peak_bytes"][name]
