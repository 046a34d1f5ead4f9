"""scripts/reproduce_study in its quick form: every part leaves its figures, and a second time nothing is done again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from profiler.store import load_steps

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reproduce(tmp_path_factory):
    """Runs the script; what it says, and where its work and its figures lie."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    out = tmp_path_factory.mktemp("study")

    def run(*words: str) -> str:
        # Not scripts/reproduce_study itself: that sets up .venv first, and tests run in whatever they were started in.
        command = [sys.executable, "scripts/reproduce_study.py", "--quick", "--out", out, "--models", out / "models"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run, out


def test_parts_are_compared_over_the_tasks_that_both_have(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from study_figures import Figures  # noqa: PLC0415

    figures = Figures(tmp_path, "last")
    accuracies = {("a", "one"): [1, 2, 3], ("a", "two"): [5, 5], ("b", "one"): [0, 0], ("b", "two"): [1, 3, 9]}
    figures.write(
        "tasks",
        pd.DataFrame(
            {"part": part, "network": "net", "method": "last", "domain": domain, "task": task}
            | {"accuracy_after_percent": float(accuracy)}
            for (part, domain), found in accuracies.items()
            for task, accuracy in enumerate(found)
        ),
    )
    (row,) = figures.between("a", "b").to_dict("records")
    assert (row["method"], row["pairs"]) == ("last", 4)
    assert row["difference_points"] == ((1 + 2) / 2 + (4 + 2) / 2) / 2
    assert row["low_95_points"] < row["difference_points"] < row["high_95_points"]
    assert figures.between("a", "c").empty


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_part_leaves_figures_and_is_not_done_again(reproduce):
    run, out = reproduce
    run()
    read = {path.stem: pd.read_csv(path) for path in (out / "figures").glob("*.csv")}
    assert set(read["frozen"].shots) == {1, 5} and (read["frozen"].episodes == 20).all()
    summary, differences = read["summary"], read["differences"]
    parts = set(summary.part)
    assert {part.split("-mcunet")[0] for part in parts} == {
        "table", "meta-dataset", "batch-25", "head-to-head",
    }  # fmt: skip
    table = summary[summary.part.str.startswith("table")].set_index("method")
    assert set(table.index) == {"none", "last", "tinytl", "tinytrain"} and table.tasks.eq(2).all()
    assert (table.costs_are[table.index != "none"] == "measured").all()
    assert table.latency_ms["last"] < table.latency_ms["tinytrain"] < table.latency_ms["tinytl"]
    assert set(differences.less) == {"tinytrain"}
    assert differences[differences.part.str.startswith("table")].pairs.eq(2).all()
    versus = summary[summary.part.str.startswith("head-to-head")].set_index("method")
    # The budget is the published scheme's own step.
    assert set(versus.index) == {"tinytrain", "sparse-update:mcunetv3-49kb"}
    assert versus.budget_broken_percent.eq(0).all() and versus.over_budget_percent_most.between(-10, 0).all()
    whole = summary[summary.part.str.startswith("batch-25")].set_index("method")
    # All of a step but its update is done for every image.
    assert 4 < whole.latency_ms["last"] / table.latency_ms["last"] < 5
    batches = read["batches"].set_index("method")
    assert set(batches.index) == {"none", "last", "tinytrain"} and batches.pairs.eq(1).all()
    assert batches.difference_points["none"] == 0
    assert any((out / "figures").glob("table-*-accuracy-*.png"))
    study = read["study-qemu-mps2-an500-methods"].set_index("method")
    assert len(study) == 21 and study.n.eq(2 * 2).all()
    assert study.broken_percent["exact/measured"] == 0
    assert (out / "figures" / "study-qemu-mps2-an500.png").stat().st_size > 10_000
    assert len(load_steps(out / "study-qemu-mps2-an500" / "run")) == 2

    folders = [path for path in out.iterdir() if (path / "results.jsonl").exists()]
    before = {path: (path / "results.jsonl").read_bytes() for path in folders}
    said = run("--part", "frozen", "--part", "table")
    assert "features of" not in said and "$ costmodels fit" not in said
    assert {path: (path / "results.jsonl").read_bytes() for path in folders} == before
