"""Runs for other programs."""

import io

import pandas as pd
import pytest
from runs import CONV, trial, write

from profiler import store, store_export
from profiler.ops import Empty, Op, Pass


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_export_has_a_row_a_repetition_with_the_op_and_its_latency(folder):
    op = Op(CONV, Pass.GRAD_WEIGHT, trained_channels=2)
    write(folder, [trial(Op(Empty(), Pass.FORWARD), [5, 4], type_="empty"), trial(op, [900, 104, 105])])
    text = io.StringIO()
    assert store_export.write_csv(store_export.export_rows(folder), text) == 2
    table = pd.read_csv(io.StringIO(text.getvalue()))
    assert list(table.repetition) == [0, 1]
    assert list(table.ticks) == [104, 105]
    assert list(table.latency_us) == [100.0, 101.0]
    assert set(table.overhead_ticks) == {4}
    assert store.ops_of(table) == [op, op]
    everything = pd.DataFrame(store_export.export_rows(folder, everything=True))
    assert list(everything["type"]) == ["empty", "empty", "op", "op", "op"]
    assert list(everything.warm_up) == [True, False, True, False, False]
