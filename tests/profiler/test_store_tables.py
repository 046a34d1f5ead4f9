"""Tables of ops and steps: what a run's trials come to."""

import io
import json
import time
from array import array

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import CONV, MANIFEST, trial, write

from profiler import store, store_export, store_lines, store_merged, store_steps, store_tables
from profiler.errors import UserError
from profiler.measure.statistics import mad, median, quiet
from profiler.ops import (
    Conv2d,
    Depthwise,
    Dequantize,
    Empty,
    FusedConv2d,
    Linear,
    MaskSource,
    Op,
    Pass,
    PointwiseDepthwise,
    Relu,
    Requantize,
    SaturationMask,
    SoftmaxCrossEntropy,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def test_a_row_an_op_with_rounds_merged_warm_ups_left_out_and_overhead_subtracted(folder):
    op = Op(CONV, Pass.GRAD_WEIGHT, trained_channels=2, trains_bias=True)
    empty = Op(Empty(), Pass.FORWARD)
    write(
        folder,
        [
            trial(empty, [99, 10, 10], type_="empty"),
            trial(op, [5000, 1010, 1012]),
            trial(op, [7000, 1014], round_=1),
        ],
    )
    table = store.load(folder)
    assert list(table.columns) == list(store_tables.COLUMNS)
    row = table.iloc[0]
    assert (row.ticks, row.ticks_mad, row.overhead_ticks) == (1012, 2, 10)
    assert row.latency_us == pytest.approx(1002.0)
    assert (row.repetitions, row.warm_ups, row.rounds) == (3, 2, 2)
    assert (row.latency_quiet_us, row.latency_quiet_spread_us) == (1000.0, 0.0)
    assert row.memory_peak_bytes == 1200
    assert row.timer == "instructions"
    assert np.isnan(row.energy_uj)
    assert np.isnan(row.elements)
    assert (row.in_channels, row.trained_channels, row.trained_axis) == (3, 2, "out")


READINGS = st.lists(
    st.lists(st.integers(0, 2**32) | st.floats(0, 1e9), max_size=25)
    | st.integers(0, 60).flatmap(lambda count: st.lists(st.integers(0, 9), min_size=count, max_size=count)),
    max_size=12,
)


@settings(deadline=None, max_examples=300)
@given(READINGS)
def test_figures_of_all_ops_at_once_are_those_of_each_alone(readings):
    found = store_merged.figures([array("d", values) for values in readings])
    wanted = [(median(values), mad(values), *quiet(values)) if values else None for values in readings]
    assert found == wanted


def test_figures_of_more_ops_than_are_sorted_at_once_keep_their_order():
    readings = [array("d", [n, n + 2, n + 7][: 1 + n % 3]) for n in range(4000)]
    assert store_merged.figures(readings) == [(median(r), mad(r), *quiet(r)) for r in readings]


@pytest.mark.parametrize("text", ["plain", "half of a pair: \ud800"])  # the latter only Python's own reader takes
def test_trials_that_the_machine_itself_disturbed_are_counted(folder, text):
    quiet_state = {"frequency_khz": 1_500_000, "temperature_c": 45.0, "throttled": 0, "governor": text}
    hot, slow = quiet_state | {"temperature_c": 80.1}, quiet_state | {"frequency_khz": 600_000}
    states = [(quiet_state, quiet_state), (quiet_state, hot), (slow, quiet_state), (quiet_state, hot)]
    op = Op(CONV, Pass.FORWARD)
    trials = [trial(op, [9, 5], round_=n, state={"before": a, "after": b}) for n, (a, b) in enumerate(states)]
    write(folder, [*trials, trial(op, [9, 5], round_=9)])
    assert list(store.load(folder).disturbed_trials) == [3]


def test_an_op_timed_warm_and_cold_has_a_row_each_and_the_overhead_of_its_own_caches(folder):
    op, empty = Op(CONV, Pass.FORWARD), Op(Empty(), Pass.FORWARD)
    write(
        folder,
        [
            trial(empty, [9, 10], type_="empty"),  # from before there was a choice
            trial(empty, [9, 30], type_="empty", caches="cold"),
            trial(op, [5000, 1010]),
            trial(op, [7000, 3030], caches="cold"),
        ],
    )
    table = store.load(folder).set_index("caches")
    assert list(table.latency_us) == pytest.approx([1000.0, 3000.0])
    assert list(table.index) == ["warm", "cold"]
    rows = pd.DataFrame(store_export.export_rows(folder)).set_index("caches")
    assert rows.latency_us.to_dict() == pytest.approx({"warm": 1000.0, "cold": 3000.0})


def test_the_least_disturbed_reading_of_an_op_is_beside_the_harness_s_own(folder):
    op, empty = Op(CONV, Pass.FORWARD), Op(Empty(), Pass.FORWARD)
    write(folder, [trial(empty, [99, 20, 28, 31], type_="empty"), trial(op, [5000, 120, 133, 131])])
    row = store.load(folder).iloc[0]
    assert (row.latency_us, row.latency_quiet_us) == (131 - 28, 120 - 20)


def test_ops_come_back_from_their_table_as_they_were(folder):
    ops = [
        Op(CONV, Pass.FORWARD),
        Op(CONV, Pass.UPDATE, trained_channels=1, trained_axis="in", optimizer="adam"),
        Op(Linear(5, 3), Pass.GRAD_WEIGHT, trains_bias=True),
        Op(Relu(64, 6), Pass.GRAD_INPUT, variant="reference"),
    ]
    write(folder, [trial(op, [1, 100 + i]) for i, op in enumerate(ops)])
    assert store.ops_of(store.load(folder)) == ops


INT8_OPS = (
    Op(Depthwise(8, 8, 6, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD, "s8", 2, variant="in_place"),
    Op(CONV, Pass.FORWARD, "s8", 1, "in"),
    Op(CONV, Pass.GRAD_INPUT, "s8", 3),
    Op(CONV, Pass.UPDATE, "s8", 2, "in", True, "adam"),
    Op(FusedConv2d(*CONV.values()), Pass.UPDATE, "s8", 0, "out", True),
    Op(PointwiseDepthwise(8, 8, 3, 5, 3, 3), Pass.FORWARD, "s8"),
    Op(Requantize(64, 5, MaskSource.BITS), Pass.GRAD_INPUT, "s8"),
    Op(SaturationMask(77), Pass.FORWARD, "s8"),
    Op(Dequantize(12), Pass.GRAD_INPUT, "s8"),
)


def test_int8_ops_come_back_from_table_and_export_with_segments_and_variants(folder):
    write(folder, [trial(op, [1, 2]) for op in (*INT8_OPS, Op(CONV, Pass.FORWARD))])
    table = store.load(folder)
    assert store.ops_of(table) == [*INT8_OPS, Op(CONV, Pass.FORWARD)]
    exported = pd.DataFrame.from_records(list(store_export.export_rows(folder)))
    assert store.ops_of(exported) == [*INT8_OPS, Op(CONV, Pass.FORWARD)]
    stream = io.StringIO()
    assert store_export.write_csv(store_export.export_rows(folder), stream) == len(INT8_OPS) + 1
    stream.seek(0)
    columns = ["op_key", "dtype", "variant", "trained_channels", "trained_axis", "trains_bias", "mask"]
    read = pd.read_csv(stream, usecols=columns).set_index("op_key")
    for op in INT8_OPS:
        row = read.loc[op.key]
        assert (row["dtype"], row["variant"]) == ("s8", op.variant)
        assert (row["trained_channels"], row["trained_axis"]) == (op.trained_channels, op.trained_axis)
        assert bool(row["trains_bias"]) is op.trains_bias
    assert read.loc[Op(CONV, Pass.FORWARD).key]["dtype"] == "f32"
    assert read.loc[INT8_OPS[6].key]["mask"] == MaskSource.BITS


def test_a_wrong_op_is_kept_with_its_reason_but_is_no_accepted_row(folder):
    good, bad = Op(CONV, Pass.FORWARD), Op(Relu(9), Pass.FORWARD)
    write(folder, [trial(good, [1, 2]), trial(bad, [], warm_ups=0, status="wrong", reason="output is 0.5 off")])
    assert list(store.load(folder).op_key) == [good.key]
    everything = store.load(folder, status=None).set_index("op_key")
    assert everything.loc[bad.key, "status"] == "wrong"
    assert np.isnan(everything.loc[bad.key, "ticks"])


def test_all_passes_of_a_geometry_are_held_out_together_and_about_a_fifth_of_geometries_is():
    geometries = [Conv2d(h, h, c, k, 1, 1) for h in range(1, 11) for c in range(1, 11) for k in range(1, 11)]
    share = sum(store_tables.held_out(Op(g, Pass.FORWARD)) for g in geometries) / len(geometries)
    assert 0.16 < share < 0.24
    for g in geometries[:50]:
        sides = {
            store_tables.held_out(op)
            for op in (
                Op(g, Pass.FORWARD),
                Op(g, Pass.GRAD_INPUT),
                Op(g, Pass.GRAD_WEIGHT, trained_channels=1),
                Op(g, Pass.UPDATE, trained_channels=1, optimizer="adam"),
            )
        }
        assert len(sides) == 1
    assert not any(store_tables.held_out(Op(SoftmaxCrossEntropy(c), Pass.FORWARD)) for c in range(1, 50))


def test_the_held_out_side_of_a_geometry_never_changes():
    # Published figures depend on it: a change here makes old and new accuracies incomparable.
    sides = "".join(str(int(store_tables.held_out(Op(Relu(n), Pass.FORWARD)))) for n in range(1, 41))
    assert sides == HELD_OUT_OF_RELU


def tell(folder, **changes):
    """Write a manifest that is right but for ``changes``."""
    (folder / "manifest.json").write_text(json.dumps({"schema": store.SCHEMA} | MANIFEST | changes))


HELD_OUT_OF_RELU = "0010000011001001000101101010000000000000"


@pytest.mark.parametrize(
    ("prepare", "match"),
    [
        (lambda folder: None, "holds no run"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is no manifest"),
        (
            lambda folder: (folder / "manifest.json").write_bytes(b"\xff" * 100_000),
            "is no manifest .'utf-8' codec can't decode byte 0xff in position 0: invalid start byte.; restore",
        ),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "is no manifest .it names no schema"),
        (lambda folder: tell(folder, identity=None), "is no manifest .its identity is 'None'"),
        (lambda folder: tell(folder, sittings="none"), "is no manifest .its sittings is 'none'"),
        (lambda folder: tell(folder, identity={"timer_hz": 0}), "is no manifest .its identity has the timer_hz '0'"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 2, "device": "d"}'), "it has no identity"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 99}'), "schema 99.*reads schemas up to 2"),
        (lambda folder: (folder / "manifest.json").write_text(json.dumps({"schema": 1} | MANIFEST)), "no trials.jsonl"),
    ],
)
def test_a_folder_that_is_no_run_is_one_sentence(folder, prepare, match):
    folder.mkdir()
    prepare(folder)
    with pytest.raises(UserError, match=match):
        store.load(folder)


def test_a_folder_of_runs_names_one_of_them(tmp_path):
    write(tmp_path / "device" / "a-run", [])
    with pytest.raises(UserError, match="a-run"):
        store.load(tmp_path)
    with pytest.raises(UserError, match="holds no trial"):
        store.load(tmp_path / "device" / "a-run")


@pytest.mark.slow
def test_a_hundred_thousand_trials_load_in_two_seconds(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in range(1, 1001)]
    with store.Run.create(folder, MANIFEST) as run, (folder / store.TRIALS).open("ab") as stream:
        for n in range(100_000):
            record = trial(ops[n % 1000], [9, 5, 6, 7], round_=n // 1000)
            stream.write(store_lines.encode({"trial": n, "schema": store.SCHEMA} | record))
        run.notices.clear()
    start = time.process_time()
    with (folder / store.TRIALS).open() as stream:
        for line in stream:
            json.loads(line)
    parsing_s = time.process_time() - start
    start = time.process_time()
    table = store.load(folder)
    # Two seconds on a quiet machine; on a busy one no more than a small multiple of parsing the text.
    assert time.process_time() - start < max(2.0, 3 * parsing_s)
    assert len(table) == 1000
    assert set(table.repetitions) == {300}


def test_the_tables_of_steps_have_all_columns_where_no_step_was_right(folder):
    op = Op(CONV, Pass.FORWARD)
    step = {"type": "step", "slot": "step|p", "plan": "p", "network": "net", "fingerprint": "f", "images": 2}
    step |= {"optimizer": "sgd", "trained_layers": 1, "status": "wrong", "reason": "off", "ticks": [], "warm_ups": 0}
    step["timed"] = [{"layer": "a", "op_key": op.key, "op": op.to_dict(), "macs": op.macs, "count": 2}]
    write(folder, [step])
    table = store.load_steps(folder)
    assert tuple(table.columns) == store_steps.STEP_COLUMNS
    for name in ("ticks", "latency_ms", "latency_mad_ms", "memory_peak_bytes", "stack_peak_bytes", "overhead_ticks"):
        assert np.isnan(table[name].iloc[0])
    entries = store.load_step_ops(folder)
    assert tuple(entries.columns) == store_steps.STEP_OP_COLUMNS
    assert np.isnan(entries.latency_us.iloc[0])
