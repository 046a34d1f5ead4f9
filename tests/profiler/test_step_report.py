"""What `profile step` says of measured steps beside predicted ones."""

import math

import numpy as np
import pandas as pd
import pytest

from profiler import store
from profiler.commands.step_report import judged, report
from profiler.errors import UserError
from profiler.measure.steps import unresolved

#: A step that neighbours disturbed: alone it would have kept its budget, and been as predicted.
STEP = {
    "status": "ok",
    "latency_ms": 33.0,
    "latency_quiet_ms": 30.0,
    "predicted_latency_ms": 30.3,
    "budget_latency_ms": 31.0,
    "energy_mj": math.nan,
    "predicted_energy_mj": None,
    "budget_energy_mj": None,
    "memory_peak_bytes": 1001,
    "budget_memory_bytes": 1000,
}


@pytest.mark.parametrize(
    ("board", "error_percent", "budget"),
    [
        ("linux-native", 1.0, "kept"),
        ("linux-rpi5", 1.0, "kept"),
        ("nucleo-f446re", 100 * (30.3 / 33 - 1), "broken"),
        ("qemu-stm32f405", 100 * (30.3 / 33 - 1), "broken"),
    ],
)
def test_predictions_and_budgets_are_judged_by_what_cost_models_learn_of_the_board(board, error_percent, budget):
    result = judged(STEP | {"board": board})
    assert result["error_percent"] == pytest.approx(error_percent)
    assert result["latency_budget"] == budget
    assert result["memory_budget"] == "broken" and result["energy_budget"] is None


def test_nothing_is_said_of_a_step_that_was_not_timed():
    assert set(judged(STEP | {"board": "linux-native", "status": "wrong"}).values()) == {None}


def test_where_no_plan_could_run_there_is_no_table_of_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store, "iterate", lambda folder: iter(()))
    with pytest.raises(UserError, match="plan a cannot run"):
        report(tmp_path, "instructions", ["plan a cannot run on it"], {}, False)
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("steps measured: 0; run: ")


@pytest.mark.parametrize(("status", "hint"), [("wrong", "profile verify"), ("refused", "more memory")])
def test_what_to_do_about_a_failed_step_goes_by_how_it_failed(status, hint, tmp_path, monkeypatch):
    failed = pd.DataFrame([STEP | {"plan": "a", "board": "none", "status": status, "reason": "it says so"}])
    monkeypatch.setattr(store, "iterate", lambda folder: iter([{"type": "step"}]))
    monkeypatch.setattr(store, "load_steps", lambda folder: failed)
    with pytest.raises(UserError, match=f"a is {status}: it says so") as error:
        report(tmp_path, "instructions", [], {}, True)
    assert hint in error.value.hint


@pytest.mark.parametrize(("loss", "told"), [(6.5e-8, False), (1e-3, True), (1.6, True)])
def test_a_step_whose_gradients_float32_rounds_away_is_called_so(loss, told):
    assert (unresolved({"loss": np.array([loss])}) == "") is told
