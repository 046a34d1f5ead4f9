"""Runs on disk: what is appended is read back, what is torn or damaged is said and costs nothing else."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import store, store_export, store_lines, store_tables
from profiler.errors import UserError
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

MANIFEST = {
    "device": "qemu-stm32f405",
    "identity": {"board": "qemu-stm32f405", "timer_hz": 1_000_000, "clock_hz": 168_000_000, "build_hash": "b1"},
    "labels": {"timer": "instructions"},
}
CONV = Conv2d(8, 8, 3, 4, 3, 3, pad_h=1, pad_w=1)


def trial(op, ticks, *, type_="op", round_=0, warm_ups=1, status="ok", **more):
    return {
        "type": type_,
        "slot": f"{type_}|{op.key}|{round_}",
        "op": op.to_dict(),
        "op_key": op.key,
        "macs": op.macs,
        "round": round_,
        "status": status,
        "ticks": ticks,
        "warm_ups": warm_ups,
        "rejected": [],
        "arena_peak_bytes": 1000,
        "scratch_peak_bytes": 64,
        "stack_peak_bytes": 200,
        "relative_error": 1e-7,
    } | more


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def write(folder, trials, manifest=MANIFEST):
    with store.Run.create(folder, manifest) as run:
        for record in trials:
            run.append(record)
    return folder


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
    assert row.memory_peak_bytes == 1200
    assert row.timer == "instructions"
    assert np.isnan(row.energy_uj)
    assert np.isnan(row.elements)
    assert (row.in_channels, row.trained_channels, row.trained_axis) == (3, 2, "out")


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


HELD_OUT_OF_RELU = "0010000011001001000101101010000000000000"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
        ),
        max_size=8,
    )
)
def test_every_line_reads_back_exactly_and_any_cut_loses_only_the_last(records):
    records = [record | {"trial": i} for i, record in enumerate(records)]
    lines = [store_lines.encode(record) for record in records]
    whole = b"".join(lines)
    assert list(store_lines.read(io.BytesIO(whole))) == [json.loads(json.dumps(r)) for r in records]
    if records:
        for cut in {1, len(lines[-1]) // 2, len(lines[-1]) - 1}:
            items = list(store_lines.read(io.BytesIO(whole[:-cut])))
            damage = [i for i in items if isinstance(i, store_lines.Damage)]
            assert items[:-1] == records[:-1]
            assert [(d.torn, d.line) for d in damage] == [(True, len(records))]


@given(st.data())
def test_no_flipped_byte_passes_for_a_trial(data):
    line = bytearray(store_lines.encode({"trial": 3, "ticks": [10, 11, 12], "status": "ok"}))
    position = data.draw(st.integers(0, len(line) - 2))
    line[position] ^= data.draw(st.integers(1, 255))
    for item in store_lines.read(io.BytesIO(bytes(line))):
        assert isinstance(item, store_lines.Damage)


def test_a_torn_last_line_is_dropped_and_said_on_reading_and_cut_off_on_going_on(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    path.write_bytes(path.read_bytes()[:-17])
    with pytest.warns(store.DamagedRunWarning, match=r"last line \(3\).*torn.*--resume"):
        table = store.load(folder)
    assert list(table.op_key) == [op.key for op in ops[:2]]
    with store.Run.open(folder) as run:
        assert "torn" in run.notices[0]
        assert [t["op_key"] for t in run.trials] == [op.key for op in ops[:2]]
        run.append(trial(ops[2], [1, 5]))
    assert list(store.load(folder).op_key) == [op.key for op in ops]


def test_a_damaged_line_in_the_middle_costs_that_line_only_and_is_named(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"ticks":[1,2]', b'"ticks":[1,9]')
    path.write_bytes(b"".join(lines))
    with pytest.warns(store.DamagedRunWarning, match=r"line 2 of .*checksum does not match"):
        table = store.load(folder)
    assert list(table.op_key) == [ops[0].key, ops[2].key]
    with store.Run.open(folder) as run:
        # The number of the damaged trial is not given away again.
        assert run.append(trial(ops[1], [1, 2]))["trial"] == 3


def test_two_writers_of_one_run_are_refused(folder):
    with store.Run.create(folder, MANIFEST), pytest.raises(UserError, match="another process is writing"):
        store.Run.open(folder)
    store.Run.open(folder).close()


def test_a_folder_that_holds_a_run_is_not_overwritten(folder):
    write(folder, [trial(Op(CONV, Pass.FORWARD), [1, 2])])
    with pytest.raises(UserError, match=r"holds a run already.*--resume"):
        store.Run.create(folder, MANIFEST)
    (folder / store.MANIFEST).unlink()
    with pytest.raises(UserError, match=r"manifest.json is missing"):
        store.Run.create(folder, MANIFEST)
    assert (folder / store.TRIALS).stat().st_size > 0


def test_a_full_disk_ends_with_the_run_valid(folder, monkeypatch):
    op = Op(CONV, Pass.FORWARD)
    with store.Run.create(folder, MANIFEST) as run:
        run.append(trial(op, [1, 2]))
        real_write = os.write

        def half(file, data):
            if len(data) < 40:
                raise OSError(28, "No space left on device")
            return real_write(file, data[: len(data) // 2])

        monkeypatch.setattr(os, "write", half)
        with pytest.raises(UserError, match=r"disk is full.*--resume"):
            run.append(trial(op, [1, 2], round_=1))
        monkeypatch.undo()
        run.append(trial(op, [1, 4], round_=1))
    assert store.load(folder).ticks.iloc[0] == 3


@pytest.mark.parametrize(
    ("prepare", "match"),
    [
        (lambda folder: None, "holds no run"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is no manifest"),
        (lambda folder: (folder / "manifest.json").write_text('{"schema": 99}'), "schema 99, this version reads 1"),
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


def test_a_writer_killed_at_any_moment_leaves_every_synced_trial(tmp_path):
    program = textwrap.dedent(
        """
        import sys
        from profiler import store
        run = store.Run.create(sys.argv[1], {"device": "d"})
        for i in range(10**6):
            run.append({"type": "op", "n": i, "padding": "x" * 3000})
            print(i, flush=True)
        """
    )
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        said = [0, *map(int, process.stdout.read().split())]
        process.wait()
        with store.Run.open(folder) as run:
            numbers = [t["n"] for t in run.trials]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= said[-1] + 1


@pytest.mark.slow
def test_a_hundred_thousand_trials_load_in_two_seconds(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in range(1, 1001)]
    with store.Run.create(folder, MANIFEST) as run, (folder / store.TRIALS).open("ab") as stream:
        for n in range(100_000):
            stream.write(store_lines.encode({"trial": n} | trial(ops[n % 1000], [9, 5, 6, 7], round_=n // 1000)))
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


def test_a_damaged_last_line_keeps_its_number(folder):
    ops = [Op(Relu(n), Pass.FORWARD) for n in (1, 2, 3)]
    write(folder, [trial(op, [1, 2]) for op in ops])
    path = folder / store.TRIALS
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 19 + b"\n")
    with store.Run.open(folder) as run:
        assert "line 3 of" in run.notices[0]
        assert [run.append(trial(ops[2], [1, n], round_=n))["trial"] for n in (1, 2)] == [3, 4]


def test_a_manifest_that_cannot_be_replaced_stays_as_it_was(folder, monkeypatch):
    with store.Run.create(folder, MANIFEST) as run:

        def full(file):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "fsync", full)
            run.write_manifest(sittings=[1])
        assert store.read_manifest(folder) == run.manifest
        assert "sittings" not in run.manifest
    assert sorted(p.name for p in folder.iterdir()) == [store.MANIFEST, store.TRIALS]


def test_the_tables_of_steps_have_all_columns_where_no_step_was_right(folder):
    op = Op(CONV, Pass.FORWARD)
    step = {"type": "step", "slot": "step|p", "plan": "p", "network": "net", "fingerprint": "f", "images": 2}
    step |= {"optimizer": "sgd", "trained_layers": 1, "status": "wrong", "reason": "off", "ticks": [], "warm_ups": 0}
    step["timed"] = [{"layer": "a", "op_key": op.key, "op": op.to_dict(), "macs": op.macs, "count": 2}]
    write(folder, [step])
    table = store.load_steps(folder)
    assert tuple(table.columns) == store_tables.STEP_COLUMNS
    for name in ("ticks", "latency_ms", "latency_mad_ms", "memory_peak_bytes", "stack_peak_bytes", "overhead_ticks"):
        assert np.isnan(table[name].iloc[0])
    entries = store.load_step_ops(folder)
    assert tuple(entries.columns) == store_tables.STEP_OP_COLUMNS
    assert np.isnan(entries.latency_us.iloc[0])
