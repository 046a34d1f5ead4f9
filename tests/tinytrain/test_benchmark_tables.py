import json
import math

import numpy as np
import pandas as pd
import pytest
from made_up import measured_run
from scipy import stats

from profiler import store_lines
from profiler.errors import UserError
from tinytrain.benchmark_device import run_folder
from tinytrain.benchmark_plots import write_plots
from tinytrain.benchmark_store import KEY
from tinytrain.benchmark_tables import COLUMNS, costs_of, difference_table, interval, results_table, summary_table

GAINS = {"none": 0.0, "last": 2.0, "tinytrain": 5.0}


@pytest.fixture
def table() -> pd.DataFrame:
    """Two domains of six and four tasks; tasks differ by far more than methods do. One step was not measured."""
    rng = np.random.default_rng(0)
    rows = []
    for domain, count in (("omniglot", 6), ("dtd", 4)):
        for task in range(count):
            ease = rng.uniform(40, 90)
            for method, gain in GAINS.items():
                row = dict.fromkeys(COLUMNS, math.nan) | {
                    "network": "net", "domain": domain, "device": "board", "method": method, "task": task,
                    "learning_rate": 1e-3, "status": "ok", "reason": math.nan, "timer": math.nan,
                    "energy_source": math.nan, "step": None,
                    "accuracy_after_percent": ease + gain + rng.normal(),
                }  # fmt: skip
                if method != "none":
                    slow = method == "tinytrain"
                    row |= {
                        "step": f"{method}-step",
                        "predicted_latency_ms": 19.0 if slow else 1.0,
                        "measured_latency_ms": 21.0 if slow else math.nan,
                        "predicted_memory_bytes": 2048.0,
                        "timer": "instructions" if slow else math.nan,
                        "budget_latency_ms": 20.0,
                    }
                rows.append(row)
    return pd.DataFrame.from_records(rows)


def test_the_interval_of_one_stratum_is_students():
    values = np.random.default_rng(1).normal(3, 2, 12)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval([values]) == pytest.approx((values.mean(), low, high))


def test_the_interval_of_two_strata_is_welchs():
    rng = np.random.default_rng(2)
    first, second = rng.normal(3, 2, 9), rng.normal(1, 5, 6)
    welch = stats.ttest_ind(first, -second, equal_var=False).confidence_interval(0.95)
    mean, low, high = interval([first, second])
    assert mean == pytest.approx((first.mean() + second.mean()) / 2)
    assert (2 * low, 2 * high) == pytest.approx(tuple(welch))


@pytest.mark.parametrize(("strata", "mean"), [([[4.0]], 4.0), ([[]], math.nan), ([[1.0, 3.0], [4.0]], 3.0)])
def test_an_interval_of_too_few_values_has_no_ends(strata, mean):
    found = interval([np.array(values) for values in strata])
    assert found[0] == pytest.approx(mean, nan_ok=True)
    assert math.isnan(found[1]) and math.isnan(found[2])


def test_differences_are_paired_task_by_task(table):
    rows = difference_table(table, "last").set_index(["domain", "method"])
    wide = table.pivot(index=["domain", "task"], columns="method", values="accuracy_after_percent")
    pairs = wide["tinytrain"] - wide["last"]
    for domain in ("omniglot", "dtd"):
        row = rows.loc[domain, "tinytrain"]
        low, high = stats.ttest_rel(wide.loc[domain].tinytrain, wide.loc[domain]["last"]).confidence_interval(0.95)
        assert (row.low_95_points, row.high_95_points) == pytest.approx((low, high))
        assert row.pairs == len(wide.loc[domain])
    everything = rows.loc["all", "tinytrain"]
    assert everything.difference_points == pytest.approx(pairs.groupby("domain").mean().mean())
    assert everything.low_95_points > 0  # three points are found although tasks lie fifty apart
    assert rows.loc[("omniglot", "none"), "difference_points"] < 0


def test_a_task_that_one_method_lacks_is_no_pair(table):
    table.loc[(table.method == "tinytrain") & (table.task == 1), ["status", "accuracy_after_percent"]] = (
        "no plan",
        math.nan,
    )
    rows = difference_table(table, "none").set_index(["domain", "method"])
    assert rows.loc[("omniglot", "tinytrain"), "pairs"] == 5
    assert rows.loc[("omniglot", "last"), "pairs"] == 6
    summary = summary_table(table).set_index(["domain", "method"])
    assert summary.loc[("omniglot", "tinytrain"), ["tasks", "no_plan"]].tolist() == [6, 1]


def test_a_method_without_results_cannot_be_compared_with(table):
    with pytest.raises(UserError, match="no result of 'full'"):
        difference_table(table, "full")


def test_measured_costs_go_before_predicted_ones_and_budgets_are_judged_by_them(table):
    costs, labels = costs_of(table, "latency")
    assert costs[table.method == "tinytrain"].eq(21).all()
    assert labels[table.method == "last"].eq("predicted").all()
    made_up = table.assign(measured_energy_mj=1.0, energy_source="simulated")
    assert costs_of(made_up, "energy")[1].eq("simulated").all()
    summary = summary_table(table).set_index(["domain", "method"])
    broken = summary.loc[("dtd", "tinytrain")]
    assert (broken.budget_broken_percent, broken.over_budget_percent_most) == pytest.approx((100, 5))
    assert broken.costs_are == "measured and predicted"  # its latency and its memory
    assert summary.loc[("dtd", "last"), "budget_broken_percent"] == 0
    assert math.isnan(summary.loc[("dtd", "none"), "budget_broken_percent"])


@pytest.mark.parametrize(("board", "expected_ms"), [("linux-native", 10.0), ("qemu-stm32f405", 31.0)])
def test_a_step_took_what_the_least_disturbed_repetitions_did_on_linux_and_elsewhere_the_median(
    tmp_path, board, expected_ms
):
    (tmp_path / "benchmark.json").write_text(json.dumps({"settings": {}}))
    record = dict.fromkeys(KEY, "x") | {"device": board, "task": 0, "status": "ok", "step": "timed"}
    (tmp_path / "results.jsonl").write_bytes(store_lines.encode({"schema": 1} | record))
    measured_run(run_folder(tmp_path, board, "net"), board)
    (row,) = results_table(tmp_path).to_dict("records")
    assert row["measured_latency_ms"] == pytest.approx(expected_ms)
    assert (row["measured_memory_bytes"], row["measured_status"], row["timer"]) == (14, "ok", "made up")


def test_plots_are_written_of_what_there_is(table, tmp_path):
    paths = write_plots(table, tmp_path)
    assert [p.name for p in paths] == ["accuracy-net-board.png", "predicted-net-board.png", "budget-net-board.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    table["measured_latency_ms"] = math.nan
    names = [path.name for path in write_plots(table, tmp_path)]
    assert names == ["accuracy-net-board.png", "budget-net-board.png"]
    with pytest.raises(UserError, match="cannot write the plot"):
        write_plots(table, tmp_path / "nowhere")
