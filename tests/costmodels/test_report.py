"""The report: well formed, complete, needs nothing beside itself, and says what the timer counts."""

import re
from itertools import pairwise

import pandas as pd
import pytest
import synthetic
from page_structure import Structure
from test_imported import imported

from costmodels import report_sections as sections
from costmodels.commands.network import network_and_plan
from costmodels.evaluate_runs import evaluate_runs
from costmodels.markup import table
from costmodels.model import CostModel
from costmodels.report import Report, StepReport
from profiler.errors import UserError


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A model of a made-up device, its run, and the evaluation on it."""
    folder = tmp_path_factory.mktemp("report")
    run = imported(folder / "theirs.csv", synthetic.random_ops(160, seed=3))
    model = CostModel().fit(run)
    evaluation, steps = evaluate_runs(model, [run])
    return model, run, evaluation, steps


@pytest.fixture(scope="module")
def curve():
    """As :func:`costmodels.learning_curve.learning_curve` gives it."""
    rows = [
        {"kind": "conv2d", "pass": "forward", "dtype": "f32", "design": design, "seed": seed, "n_ops": n}
        | {"mape_percent": (10 if design == "active" else 20) / n + seed}
        for design in ("active", "random")
        for seed in (0, 1, 2)
        for n in (10, 20, 40)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def page(parts, curve, tmp_path_factory):
    model, run, evaluation, steps = parts
    step = StepReport.of(model, *network_and_plan("mcunet-5fps", "3x32x32", None), "trains everything")
    path = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    Report(model, run / "the.model", evaluation, steps, curve, step, [run]).write(path)
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_loads_nothing(page):
    structure = Structure(page)
    assert structure.problems == []
    assert page.startswith("<!DOCTYPE html>")
    assert set(re.findall(r"https?://[^\"' <]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in page and "url(" not in page


def test_headings_descend_without_gaps_and_links_lead_somewhere(page):
    structure = Structure(page)
    levels = [level for level, _ in structure.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert structure.links and {link.removeprefix("#") for link in structure.links} <= set(structure.ids)


def test_every_section_is_there(page):
    titles = [text for level, text in Structure(page).headings if level == 2]
    assert titles == [
        *("How to read this page", "The model", "Accuracy", "Predicted against measured"),
        *("How many measurements it takes", "Where the cost of a training step goes", "What was fitted", "Provenance"),
    ]


def test_the_page_repeats_the_evaluations_figures_and_labels(page, parts):
    model, run, evaluation, _ = parts
    text = Structure(page).text
    result = evaluation.to_dict()
    assert f"{result['overall']['latency']['n']} ops never seen" in text
    assert all(name in text for name in evaluation.baselines if result["baselines"][name]["latency"]["n"])
    assert text.lower().count("timer: imported") >= 4  # head, plots, curve, step
    assert model.card_["run_hash"] in text and run.name in text
    for row in result["by_op"]:
        assert f"{row['kind']}" in text


def test_emulated_time_and_simulated_energy_are_called_so(parts):
    model, _, evaluation, steps = parts
    card = model.card_ | {"timer": "instructions"}
    text = Structure(sections.head("name", card, evaluation, steps, None)).text
    assert "timer: instructions" in text and "no board's" in text


def test_a_layers_bars_sum_to_the_step(parts):
    model, *_ = parts
    step = StepReport.of(model, *network_and_plan("mcunet-5fps", "3x32x32", None), "trains everything")
    text = Structure(sections.layers(step, model.card_)).text
    assert re.search(r"\d+ smaller layers", text)
    assert step.passes["latency_ms"].sum() == pytest.approx(step.cost.latency_ms)
    assert sum(row.byte_count for row in step.peak) > 0.5 * step.cost.memory_bytes


def test_cells_cannot_become_markup():
    structure = Structure(table([{"<b>": "<script>"}], caption="<i>"))
    assert structure.problems == [] and "<script>" in structure.text


def test_a_learning_curve_shows_the_median_of_the_seeds_of_both_designs(curve):
    text = Structure(sections.curve(curve, {"timer": "instructions"})).text
    assert "medians of 3 seeds" in text and "imer: instructions" in text
    assert "active, 10 ops: 2 %" in text and "random, 20 ops: 2 %" in text


def test_a_report_that_cannot_be_written_is_said(parts, tmp_path):
    model, run, evaluation, steps = parts
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        Report(model, run, evaluation, steps, None, None, [run]).write(tmp_path / "file" / "r.html")
