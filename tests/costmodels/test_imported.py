"""Cost models of somebody else's table: fitted, judged and asked like those of a run of our own."""

import csv
import dataclasses

import pytest
import synthetic

from costmodels.evaluate import evaluate
from costmodels.measured import read
from costmodels.model import CostModel
from costmodels.plots import timer_note
from profiler.errors import UserError
from profiler.ops import Conv2d, Op, Pass
from profiler.store_import import import_table
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan

#: What a made-up device takes: nothing in here was measured.
US_PER_MAC, US_PER_WORD, US_PER_CALL = 0.01, 0.02, 3.0


def latency_us(op):
    return US_PER_CALL + US_PER_MAC * op.macs + US_PER_WORD * op.bytes_touched / 4


def imported(path, ops):
    """A run of a table with a row an op."""
    rows = []
    for op in ops:
        record = op.to_dict()
        rows.append(record | record.pop("geometry") | {"latency_us": latency_us(op), "memory_peak_bytes": 4000})
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return import_table(path, "their-m4", path.with_suffix("")).folder


def test_an_imported_run_is_fitted_evaluated_saved_and_asked_for_a_step(tmp_path):
    run = imported(tmp_path / "theirs.csv", synthetic.random_ops(250, seed=3))
    CostModel().fit(run).save(tmp_path / "model")
    model = CostModel.load(tmp_path / "model")
    assert (model.card_["device"], model.card_["timer"]) == ("their-m4", "imported")
    assert "timer: imported" in model.label and timer_note(model.card_["timer"]) == "timer: imported"
    result = evaluate(model, read(run))
    # Not exact: the terms are those of kernels that did not run there.
    assert result.judged_on == "held-out ops"
    figures = result.to_dict()
    assert figures["overall"]["latency"]["mape_percent"] < 8
    assert figures["overall"]["latency"]["mape_percent"] < figures["baselines"]["c × MACs"]["latency"]["mape_percent"]
    assert figures["overall"]["memory"]["n"] > 0
    _, network = load_network("mcunet-5fps", (3, 32, 32))
    plan = StepPlan.for_network(network, {layer.name: LayerPlan((0, 1)) for layer in network.trainable[-2:]})
    cost = model.step(network, plan)
    assert cost.latency_ms > 0 and cost.memory_bytes > 0


def test_int8_convolutions_alone_are_enough_for_a_model(tmp_path):
    ops = [
        Op(Conv2d(size, size, c_in, c_out, kernel, kernel, 1, 1, kernel // 2, kernel // 2), Pass.FORWARD, "s8")
        for size in (4, 7, 9, 16)
        for c_in in (3, 8, 17)
        for c_out in (4, 16, 33)
        for kernel in (1, 3)
    ]
    model = CostModel().fit(imported(tmp_path / "theirs.csv", ops))
    other = dataclasses.replace(ops[0], geometry=Conv2d(12, 12, 12, 20, 3, 3, 1, 1, 1, 1))
    assert model.op_latency_us(other) == pytest.approx(latency_us(other), rel=0.1)
    assert set(model.targets["latency"].groups) == {"conv2d/forward/s8/blocked"}


def test_two_tables_are_not_fitted_together_unless_they_are_of_one_build(tmp_path):
    ops = synthetic.random_ops(20)
    runs = [imported(tmp_path / "a.csv", ops[:10]), imported(tmp_path / "b.csv", ops[10:])]
    with pytest.raises(UserError, match="different firmware builds"):
        CostModel().fit(runs)
