"""Energies of a run from a recording made beside it."""

import json
import random

import pandas as pd
import pytest
from command_line import NETWORK, profile
from hypothesis import given
from hypothesis import strategies as st

from profiler import store
from profiler.energy.align import align
from profiler.energy.judge import Expected
from profiler.measure.trust import examine_run


@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(-2e-3, 2e-3))
def test_windows_find_their_trials_whatever_else_was_recorded_or_missed(seed, count, skew):
    """Timing runs and repeated attempts in the recording, trials that were measured while nothing was recorded."""
    chance = random.Random(seed)
    expected = [Expected(chance.choice([1, 1, 1, 3]), 0.3 + 0.1 * chance.random()) for _ in range(count)]
    durations, truth = [], []
    for e in expected:
        for _ in range(chance.choice([0, 0, 1, 3])):
            durations.append(chance.random() * 0.01)
        if chance.random() < 0.1:
            truth.append(())
            continue
        truth.append(tuple(range(len(durations), len(durations) + e.count)))
        durations += [e.duration_s * (1 + skew) / e.count + chance.gauss(0, 1e-7)] * e.count
    matches, ratio = align(durations or [1e-3], expected, slack_s=2e-6)
    if sum(map(bool, truth)) > 3:
        assert ratio == pytest.approx(1 + skew, abs=2e-5) or not any(e.count == 1 for e in expected)
    for match, mine in zip(matches, truth, strict=True):
        # Never another trial's: at worst it is not known whose a window is.
        assert match.windows in (mine, ())
        assert match.windows or match.reason


def test_windows_of_equal_length_of_which_one_is_missing_are_nobodys():
    matches, _ = align([0.3, 0.3], [Expected(1, 0.3)] * 3, slack_s=1e-6)
    assert all(not match.windows and "could be" in match.reason for match in matches)
    matches, _ = align([0.3, 0.3, 0.3], [Expected(1, 0.3)] * 3, slack_s=1e-6)
    assert [match.windows for match in matches] == [(0,), (1,), (2,)]


def test_a_trial_with_more_windows_than_the_recording_has_is_not_in_it():
    """A step of a large batch, of whose images a recording that was stopped too soon holds a few."""
    matches, _ = align([0.3, 0.1, 0.1], [Expected(1, 0.3), Expected(8, 0.8)], slack_s=1e-6)
    assert [match.windows for match in matches] == [(0,), ()]


@pytest.fixture
def recorded(folder):
    """A run with its recording, on the emulated board and the emulated instrument."""
    arguments = ("--limit", 3, "--energy", "emulated", "--energy-window", 0.01, "--out", "recorded", "--recording")
    status, _, err = profile("--port", "qemu://stm32f405", *NETWORK, *arguments)
    assert status == 0, err
    return folder / "recorded"


def test_a_runs_recording_gives_its_energies_again(recorded, folder):
    file = recorded / "energy-01.jls"
    status, out, err = profile("energy", file, "--run", recorded, "--out", "joined", "--json", "--plot", "power.png")
    assert status == 0, err
    assert json.loads(out)["source"] == "simulated"
    before, after = store.load(recorded), store.load(folder / "joined")
    assert list(after.op_key) == list(before.op_key)
    assert list(after.energy_uj) == pytest.approx(list(before.energy_uj), rel=1e-5)
    assert (after.energy_source == "simulated").all()
    assert "simulated energy" in [f.name for f in examine_run(folder / "joined").findings]
    assert (folder / "power.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_whose_instrument_recorded_by_itself_waits_for_it(recorded, folder):
    """The same windows, made without an instrument; nothing was recorded then, so that none is found."""
    arguments = ("--limit", 3, "--energy", "recording", "--energy-window", 0.01, "--out", "alone")
    status, _, err = profile("--port", "qemu://stm32f405", *NETWORK, *arguments)
    assert status == 0, err
    assert {t["energy"]["status"] for t in store.iterate("alone")} == {"pending"}
    assert store.load("alone").energy_uj.isna().all()
    findings = {f.name: f for f in examine_run(folder / "alone").findings}
    assert len(findings["energy pending"].ops) == 4  # the empty op's too
    status, _, err = profile("energy", recorded / "energy-01.jls", "--run", "alone", "--out", "joined")
    assert status == 0, err  # the emulated board is exact: another boot makes the very same windows
    assert list(store.load("joined").energy_uj) == pytest.approx(list(store.load(recorded).energy_uj), rel=1e-3)
    assert store.load("alone").energy_uj.isna().all()


def test_a_recording_of_another_run_is_one_sentence(recorded):
    arguments = ("--limit", 2, "--energy", "recording", "--energy-window", 0.0203, "--out", "other")
    assert profile("--port", "qemu://stm32f405", *NETWORK, *arguments)[0] == 0
    status, _, err = profile("energy", recorded / "energy-01.jls", "--run", "other")
    assert status == 1 and "none of the recording's" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("energy.jls", "--windows", "w.json"), "--windows is for traces"),
        (("trace.bin", "--run", "run"), "a trace wants --windows and no --run"),
        (("trace.bin", "--out", "x"), "--out wants --run"),
        (("energy.jls", "--voltage", "3"), "--voltage is for a CSV with currents only"),
        (("nowhere.jls",), "cannot read nowhere.jls"),
    ],
)
def test_options_that_do_not_go_together_are_one_sentence(arguments, found, folder):
    status, _, err = profile("energy", *arguments)
    assert status in (1, 2) and found in err and "Traceback" not in err


def test_a_run_without_windows_says_how_to_make_them(recorded, run):
    status, _, err = profile("energy", recorded / "energy-01.jls", "--run", run)
    assert status == 1 and "made no windows for an energy meter" in err and "--energy recording" in err


def test_energies_stand_in_exported_tables_and_come_back(recorded, folder):
    status, _, err = profile("export", recorded, "--csv", "ops.csv", "--parquet", "ops.parquet")
    assert status == 0, err
    for table in (pd.read_csv("ops.csv"), pd.read_parquet("ops.parquet")):
        assert (table.energy_source == "simulated").all() and (table.energy_uncertainty_uj > 0).all()
    assert profile("import", "ops.csv", "--device", "theirs", "--out", "back")[0] == 0
    before, after = store.load(recorded), store.load("back")
    assert list(after.energy_uj) == pytest.approx(list(before.energy_uj))
    assert store.read_manifest("back")["labels"]["energy"] == "imported"
