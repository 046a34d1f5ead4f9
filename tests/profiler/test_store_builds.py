"""Trials of two firmware builds in one run, and figures that only imported trials have."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from runs import MANIFEST, trial, write

from profiler import store, store_export
from profiler.ops import Conv2d, Op, Pass, Relu

OPS = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


MIXED = [
    trial(OPS[0], [9, 10], build_hash="b1"),
    trial(OPS[1], [9, 20], build_hash="old"),
    trial(OPS[0], [9, 90], build_hash="old"),
]


def test_trials_of_another_build_are_left_out_of_table_and_export_and_said(folder):
    write(folder, MIXED)
    with pytest.warns(store.DamagedRunWarning, match="2 trials of .* are of firmware build old, the run of b1"):
        table = store.load(folder)
    assert [(row.op_key, row.ticks) for row in table.itertuples()] == [(OPS[0].key, 10)]
    assert "never mix" in table.attrs["damage"][0]
    damage = []
    assert [row["ticks"] for row in store_export.export_rows(folder, damage=damage)] == [10]
    assert len(damage) == 1


def test_going_on_measures_trials_of_another_build_again_and_gives_their_numbers_to_nobody(folder):
    write(folder, MIXED)
    with store.Run.open(folder) as run:
        assert [t["trial"] for t in run.trials] == [0]
        assert "firmware build old" in run.notices[0]
        assert run.append(trial(OPS[1], [9, 20]))["trial"] == 3


def test_a_trial_that_names_no_build_is_of_the_run(folder):
    assert len(store.load(write(folder, [trial(OPS[0], [9, 10])]))) == 1


def test_energies_stated_memory_and_columns_of_a_table_come_out_of_table_and_export(folder):
    more = {"arena_peak_bytes": None, "scratch_peak_bytes": None, "stack_peak_bytes": None, "memory_peak_bytes": 5000}
    extra = {"core_mv": [1200, 1200, 1180, 1190], "lot": ["a", "a", "a", "a"], "by": ["x", "y", "x", None]}
    first = trial(OPS[0], [9, 10, 11, 12], energy_uj=[None, 3.5, None, 2.5], extra=extra) | more
    write(folder, [first, trial(OPS[1], [9, 10])], MANIFEST | {"extra_columns": ["core_mv", "lot", "by"]})
    table = store.load(folder)
    row = table.iloc[0]
    assert (row.energy_uj, row.memory_peak_bytes, row.core_mv, row.lot) == (3.0, 5000, 1190, "a")
    assert pd.isna(row.by) and np.isnan(row.arena_peak_bytes)
    assert table.memory_peak_bytes.tolist() == [5000, 1200]
    assert np.isnan(table.energy_uj[1]) and pd.isna(table.lot[1])
    stream = io.StringIO()
    store_export.write_csv(store_export.export_rows(folder), stream, store_export.export_columns(folder))
    stream.seek(0)
    exported = pd.read_csv(stream)
    assert exported.memory_peak_bytes.tolist() == [5000, 5000, 5000, 1200]
    assert exported.core_mv.tolist()[:3] == [1200, 1180, 1190]
    assert exported.energy_uj.tolist()[:3:2] == [3.5, 2.5] and np.isnan(exported.energy_uj[1])
    assert json.loads(exported.by.iloc[:2].to_json(orient="values")) == ["y", "x"]


def test_peaks_are_the_largest_of_all_trials(folder):
    op = Op(Conv2d(4, 4, 2, 2, 1, 1), Pass.FORWARD)
    table = store.load(write(folder, [trial(op, [1, 2]), trial(op, [1, 2], arena_peak_bytes=1001, stack_peak_bytes=8)]))
    assert table.iloc[0][["arena_peak_bytes", "stack_peak_bytes", "memory_peak_bytes"]].tolist() == [1001, 200, 1200]
