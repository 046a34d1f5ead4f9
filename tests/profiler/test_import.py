"""Somebody else's tables: what becomes a run, and what is refused with the line, the column and the value."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from any_op import ops
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lab_tables import CONV, LAB, LINEAR, cells, table
from runs import trial, write

from profiler import store, store_export
from profiler.errors import UserError
from profiler.ops import Conv2d, Depthwise, Empty, GlobalAvgPool, Linear, Op, Pass, Relu, UpsampleBilinear2d
from profiler.store_import import import_table
from profiler.store_import_files import BadRowError, Reading
from profiler.store_import_ops import op_of


def imported(tmp_path, *rows, **options):
    """The table of a run made of rows."""
    found = import_table(table(tmp_path / "theirs.csv", *rows), "m4", tmp_path / "run", **options)
    return store.load(found.folder)


# ---------------------------------------------------------------------------------------------------- round trip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_is_exported_and_imported_again_has_the_same_ops_times_and_rounds(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("trip")
    timed = data.draw(st.dictionaries(ops(), st.lists(st.lists(st.integers(40, 10**9), min_size=2, max_size=4),
                                                      min_size=1, max_size=2), min_size=1, max_size=6))  # fmt: skip
    overhead = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    everything = data.draw(st.booleans())
    empty = trial(Op(Empty(), Pass.FORWARD), [99, *overhead], type_="empty")
    trials = [trial(op, ticks, round_=i) for op, rounds in timed.items() for i, ticks in enumerate(rounds)]
    write(folder / "run", [empty, *trials])
    with (folder / "run.csv").open("w") as stream:
        store_export.write_csv(store_export.export_rows(folder / "run", everything=everything), stream)
    found = import_table(folder / "run.csv", "again", folder / "again")
    before, after = store.load(folder / "run"), store.load(folder / "again")
    assert store.ops_of(after) == list(timed)
    for column in ("op_key", "rounds", "repetitions", "ticks", "overhead_ticks", "memory_peak_bytes", "held_out"):
        assert after[column].tolist() == before[column].tolist(), column
    np.testing.assert_allclose(after.latency_us, before.latency_us, rtol=1e-12)
    assert set(after.timer) == {"imported (instructions)"}
    assert found.extra_columns == () and found.left_out == {}


@settings(max_examples=100, deadline=None)
@given(ops())
@example(Op(Conv2d(8, 8, 3, 4, 3, 3, pad_h=1, pad_w=1), Pass.FORWARD, "s8", 2))
def test_the_columns_of_an_export_name_the_op(op):
    record = op.to_dict()
    row = record | record.pop("geometry")
    assert op_of({name: str(value) for name, value in row.items()}) == op


# ------------------------------------------------------------------------------------------- what may be left out


def test_an_op_needs_no_more_than_its_sizes():
    assert op_of(cells(**CONV, pad_h=0, pad_w=0)) == Op(Conv2d(16, 12, 4, 8, 3, 3), Pass.FORWARD)
    assert op_of(cells(**LINEAR)) == Op(Linear(7, 5), Pass.FORWARD)
    assert op_of(cells(**LINEAR, dtype="INT8", has_bias="no")) == Op(Linear(7, 5, 0), Pass.FORWARD, "s8")
    whole = Op(Linear(7, 5), Pass.GRAD_WEIGHT, trained_channels=5, trains_bias=True)
    assert op_of(cells(**LINEAR, **{"pass": "grad_weight"})) == whole
    assert op_of(cells(**LINEAR, **{"pass": "update"}, trained_axis="in", trains_bias="false")) == Op(
        Linear(7, 5), Pass.UPDATE, trained_channels=7, trained_axis="in"
    )
    assert op_of(cells(**LINEAR, in_h=3, kernel_h="x")) == Op(Linear(7, 5), Pass.FORWARD)  # what a linear has not


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    pad=st.integers(0, 3),
    same=st.booleans(),
)
def test_padding_follows_from_the_outputs_size_wherever_torch_has_such_a_convolution(size, kernel, stride, pad, same):
    def out(padding):
        if size + 2 * padding < kernel:
            return 0
        image, weight = (torch.empty(1, 1, n, device="meta") for n in (size, kernel))  # sizes without values
        return torch.nn.functional.conv1d(image, weight, stride=stride, padding=padding).shape[-1]

    row = cells(kind="conv2d", in_h=size, in_w=1, in_channels=1, out_channels=1, kernel_h=kernel, kernel_w=1,
                stride_h=stride, stride_w=1, pad_w=0)  # fmt: skip
    wanted = -(-size // stride) if same else out(pad)
    possible = [p for p in range(12) if out(p) == wanted and wanted]
    row |= {"pad_h": "same"} if same else cells(out_h=wanted)
    if possible:
        assert op_of(row).geometry.pad_h == min(possible)
    else:
        with pytest.raises(BadRowError, match=r"no padding that is alike on both sides|out_h = '0'"):
            op_of(row)


def test_times_are_taken_in_their_unit_and_ticks_at_the_timers_rate(tmp_path):
    for number, (column, value) in enumerate([("latency_us", 12.5), ("latency_ms", 0.0125), ("latency_s", 12.5e-6),
                                              ("latency_ns", 12500), ("ticks", 2100), ("ticks", 2100.0)]):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        found = imported(folder, LINEAR | {column: value}, timer_hz=168_000_000)
        assert found.latency_us.tolist() == [12.5], column
        assert found.timer_hz[0] == (168_000_000 if column == "ticks" else 10**12)
        assert set(found.timer) == {"imported"}


def test_means_of_ticks_keep_their_fraction(tmp_path):
    found = imported(tmp_path, LINEAR | {"ticks": 100.25, "timer_hz": 10**6})
    assert found.latency_us.tolist() == [100.25]


def test_rows_of_one_op_are_its_repetitions_and_warm_ups_do_not_count(tmp_path):
    rows = [LINEAR | {"latency_us": us, "warm_up": us > 50, "theirs": us} for us in (3, 99, 5, 4)]
    found = imported(tmp_path, *rows, {"kind": "relu", "elements": 8, "latency_us": 1})
    assert found.latency_us.tolist() == [4, 1]
    assert (found.repetitions[0], found.warm_ups[0], found.rounds[0]) == (3, 1, 1)
    [first, _] = store.iterate(tmp_path / "run")
    assert first["ticks"] == [99_000_000, 3_000_000, 5_000_000, 4_000_000]
    assert first["extra"] == {"theirs": [99, 3, 5, 4]}


def test_warm_and_cold_stay_apart(tmp_path):
    found = imported(tmp_path, *(LINEAR | {"latency_us": us, "caches": c} for us, c in ((1, "warm"), (9, "cold"))))
    assert dict(zip(found.caches, found.latency_us, strict=True)) == {"warm": 1, "cold": 9}


def test_energy_and_memory_come_out_of_the_table_as_they_went_in(tmp_path):
    rows = [LINEAR | {"latency_us": 1, "energy_uj": e, "memory_peak_bytes": m} for e, m in ((2.5, 700), (3.5, 800))]
    found = imported(tmp_path, *rows, {"kind": "relu", "elements": 8, "latency_us": 1})
    assert found.energy_uj[0] == 3.0 and np.isnan(found.energy_uj[1])
    assert found.memory_peak_bytes[0] == 800 and np.isnan(found.memory_peak_bytes[1])
    assert np.isnan(found.arena_peak_bytes[0])
    assert store.read_manifest(tmp_path / "run")["labels"] == {"timer": "imported", "energy": "imported"}
    exported = pd.DataFrame(store_export.export_rows(tmp_path / "run"))
    assert exported.energy_uj.tolist()[:2] == [2.5, 3.5]
    (tmp_path / "mj").mkdir()
    assert imported(tmp_path / "mj", LINEAR | {"latency_us": 1, "energy_mj": 0.25}).energy_uj.tolist() == [250]


def test_unknown_columns_are_kept_in_trials_table_and_export(tmp_path):
    more = {"supply_mv": 1200, "lot": "007", "relative_error": 0.1, "macs": 1, "nothing": "", "serial": 2**70}
    rows = [LINEAR | more | {"latency_us": 1, "index": i} for i in (1, 2)]
    found = imported(tmp_path, *rows)
    row = found.iloc[0]
    assert (row.supply_mv, row.lot, row["index"], row.table_relative_error) == (1200, "007", 1.5, 0.1)
    assert (row.macs, row.table_macs) == (35, 1)  # they count otherwise
    assert "nothing" not in found
    assert row.serial == 2.0**70
    text = io.StringIO()
    store_export.write_csv(
        store_export.export_rows(tmp_path / "run"), text, store_export.export_columns(tmp_path / "run")
    )
    (tmp_path / "again.csv").write_text(text.getvalue())
    again = import_table(tmp_path / "again.csv", "m4", tmp_path / "again")
    assert again.extra_columns == ("supply_mv", "lot", "table_relative_error", "table_macs", "serial", "index")
    assert store.load(again.folder)["index"].tolist() == [1.5]


# ----------------------------------------------------------------------------------- tables of another lab's making


LAB_READING = Reading(
    rename={"cin": ["in_channels"], "cout": ["out_channels"], "size": ["in_h", "in_w"], "out": ["out_h", "out_w"],
            "kernel": ["kernel_h", "kernel_w"], "stride": ["stride_h", "stride_w"], "cycles": ["ticks"]},
    values={"kind": "conv2d", "dtype": "s8", "timer": "dwt", "clock_hz": "168000000"},
    where={"board": "m4"},
)  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_int8_convolutions_of_another_lab_by_renaming_setting_and_choosing(tmp_path, delimiter):
    path = table(tmp_path / "lab.csv", *LAB, delimiter=delimiter)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as spreadsheets write it
    import_table(path, "their-m4", tmp_path / "run", timer_hz=168_000_000, reading=LAB_READING)
    found = store.load(tmp_path / "run")
    expected = [Conv2d(32, 32, 3, 16, 3, 3, 2, 2, 1, 1), Conv2d(16, 16, 16, 8, 1, 1)]
    assert store.ops_of(found) == [Op(g, Pass.FORWARD, "s8") for g in expected]
    assert found.latency_us.tolist() == [1, 2]
    assert set(found.timer) == {"imported (dwt)"} and set(found.clock_hz) == {168_000_000}
    manifest = store.read_manifest(tmp_path / "run")
    assert manifest["kernels"] == "unknown"
    assert manifest["imported"]["rows"] == 3 and manifest["imported"]["origins"] == {"board": ["m4"]}
    assert manifest["identity"]["build_hash"] == f"imported-{manifest['imported']['sha256'][:16]}"


def test_two_tables_are_of_one_build_where_they_say_so_and_else_never(tmp_path):
    builds = []
    for name, values in (("a", {}), ("b", {}), ("c", {"build_hash": "v1"}), ("d", {"build_hash": "v1"})):
        path = table(tmp_path / f"{name}.csv", LINEAR | {"latency_us": ord(name)})
        import_table(path, "m4", tmp_path / name, reading=Reading(values=values))
        builds.append(store.read_manifest(tmp_path / name)["identity"]["build_hash"])
    assert builds[0] != builds[1] and builds[2] == builds[3] == "imported-v1"


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"kind": "lstm"}, "kind = 'lstm': no kind of op is called so here"),
        ({"kind": ""}, "kind is missing"),
        (CONV | {"in_h": "x"}, "in_h = 'x': it is no whole number"),
        (CONV | {"in_h": "8.5"}, "in_h = '8.5': it is no whole number"),
        (CONV | {"in_h": "1e999"}, "in_h = '1e999': it is no whole number"),
        (CONV | {"in_h": 2**31}, "in_h = '2147483648': no op is larger"),
        (CONV | {"in_channels": ""}, "in_channels is missing"),
        (CONV, "pad_h is missing, and so is out_h, which it could be derived from"),
        (CONV | {"pad_h": 1, "pad_w": 1, "out_h": 15}, "out_h = '15': 16 follows from the other columns"),
        (CONV | {"pad_h": 1, "pad_w": 1, "dilation": 2}, "dilation = '2': windows are dilated by 1 here"),
        (CONV | {"pad_h": 1, "pad_w": 1, "stride_h": 2}, "stride_w is missing"),
        (CONV | {"pad_h": 1, "pad_w": 1, "stride_h": 0, "stride_w": 1}, "stride_h must be an integer of at least 1"),
        (CONV | {"out_h": 16, "out_w": 12, "stride_h": 0, "stride_w": 1}, "stride_h = '0': it is less than 1"),
        (CONV | {"pad_h": 1, "pad_w": 1, "groups": 3}, "groups must divide"),
        (LINEAR | {"pass": "backward"}, "pass = 'backward': there are forward, grad_input"),
        (LINEAR | {"dtype": "f16"}, "unknown dtype"),
        (LINEAR | {"trained_channels": 3}, "trains nothing"),
        (LINEAR | {"pass": "grad_weight", "trained_axis": "both"}, "trained_axis = 'both': it is out or in"),
        (LINEAR | {"pass": "grad_weight", "trains_bias": "perhaps"}, "trains_bias = 'perhaps': it is true or false"),
        (
            LINEAR | {"op_key": "linear/forward/f32/1x1x1"},
            "op_key = .*: the other columns are linear/forward/f32/7x5x1",
        ),
        (LINEAR | {"latency_us": "fast"}, "latency_us = 'fast': it is no number"),
        (LINEAR | {"latency_us": "nan"}, "latency_us = 'nan': it is no number"),
        (LINEAR | {"latency_us": ""}, "latency_us is missing"),
        (LINEAR | {"latency_us": -1}, "latency_us = '-1': it is less than 0"),
        (LINEAR | {"latency_us": 0}, "latency_us = '0': nothing takes no time"),
        (LINEAR | {"latency_us": 1e13}, "latency_us = '10000000000000.0': no op takes months"),
        (LINEAR | {"memory_peak_bytes": 2**63}, "memory_peak_bytes = '9223372036854775808': it is too large"),
        (LINEAR | {"energy_uj": -1}, "energy_uj = '-1': it is less than 0"),
        (LINEAR | {"energy_uj": 1, "energy_mj": 1}, "both energy_uj and energy_mj"),
        (LINEAR | {"memory_peak_bytes": "2k"}, "memory_peak_bytes = '2k': it is no whole number"),
        (LINEAR | {"caches": "tepid"}, "caches = 'tepid': there are warm, cold"),
        (LINEAR | {"type": "guess"}, "type = 'guess': there are op, reference, empty"),
    ],
)
def test_a_row_that_is_no_measurement_is_named_by_line_column_and_value(tmp_path, row, match):
    good = LINEAR | {"latency_us": 1}
    with pytest.raises(UserError, match=f"1 of 2 rows of .* are no measurement of an op: line 3: .*{match}"):
        imported(tmp_path, good, {"latency_us": 1} | row)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.csv"]
    found = imported(tmp_path, good, {"latency_us": 1} | row, skip_bad=True)
    assert found.op_key.tolist() == [Op(Linear(7, 5), Pass.FORWARD).key]
    assert store.read_manifest(tmp_path / "run")["imported"]["left_out"] == {"no measurement of an op": 1}


@pytest.mark.parametrize(
    ("op", "out"),
    [
        (Op(Depthwise(8, 8, 4, 3, 3, 2, 2, 1, 1), Pass.FORWARD), (4, 4, 4)),
        (Op(GlobalAvgPool(8, 8, 4), Pass.FORWARD), (1, 1, 4)),
        (Op(UpsampleBilinear2d(8, 8, 4), Pass.FORWARD), (16, 16, 4)),
    ],
)
def test_given_output_sizes_must_be_those_of_the_geometry(op, out):
    record = op.to_dict()
    row = cells(**record.pop("geometry"), **record)
    sizes = cells(out_h=out[0], out_w=out[1], out_channels=out[2])
    assert op_of(row | sizes) == op
    for name in sizes:
        with pytest.raises(BadRowError, match=f"{name} = '99'"):
            op_of(row | sizes | {name: "99"})


def test_a_depthwise_convolution_has_a_group_a_channel_or_says_nothing():
    row = cells(kind="depthwise", in_h=8, in_w=8, in_channels=4, kernel_h=3, kernel_w=3, pad_h=0, pad_w=0)
    for groups in ("", "1", "4"):
        assert op_of(row | {"groups": groups}).geometry == Depthwise(8, 8, 4, 3, 3)
    with pytest.raises(BadRowError, match="groups = '2'"):
        op_of(row | {"groups": "2"})


def test_ticks_and_latency_that_contradict_each_other_are_refused(tmp_path):
    row = LINEAR | {"ticks": 110, "overhead_ticks": 10, "timer_hz": 10**6, "latency_us": 100}
    assert imported(tmp_path, row).latency_us.tolist() == [100]
    with pytest.raises(UserError, match="latency_us = '110': 100 follows from ticks"):
        import_table(table(tmp_path / "b.csv", row | {"latency_us": 110}), "m4", tmp_path / "b")
    with pytest.raises(UserError, match="line 3: overhead_ticks = '12': it is 10 in rows before"):
        import_table(
            table(tmp_path / "c.csv", row, row | {"overhead_ticks": 12, "latency_us": 98}), "m4", tmp_path / "c"
        )


def test_many_bad_rows_are_a_few_sentences_and_counts(tmp_path):
    rows = [LINEAR | {"latency_us": us} for us in ("a", "a", "b", "c", "d", "e", "f", 1)]
    with pytest.raises(UserError) as error:
        imported(tmp_path, *rows)
    text = str(error.value)
    assert "7 of 8 rows" in text and "line 2: latency_us = 'a': it is no number (and in 1 lines more)" in text
    assert text.count("latency_us") == 5 and "and 1 more" in text and "--skip-bad" in text


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("", {}, "is empty"),
        ("kind,elements\nrelu,3\n", {}, "no column latency_us, latency_ms or ticks"),
        ("kind,elements,ticks\nrelu,3,5\n", {}, "does not say how many a second.*--timer-hz"),
        ("kind,elements,ticks,timer_hz\nrelu,3,5,1000\n", {"timer_hz": 5}, "--timer-hz is 5, and .* says 1,000"),
        ("kind,elements,ticks,timer_hz\nrelu,3,5,fast\n", {}, "timer_hz = 'fast'"),
        ("kind,elements,latency_us,clock_hz\nrelu,3,5,fast\n", {}, "clock_hz = 'fast'"),
        ("kind,elements,latency_us,latency_ms\nrelu,3,5,5\n", {}, "both latency_us and latency_ms"),
        ("kind,kind,latency_us\nrelu,3,5\n", {}, "two columns that are called kind"),
        ("kind,elements,latency_us\nrelu,3\n", {}, "line 2: it has 2 cells where the header has 3"),
        ('kind,elements,latency_us\nrelu,"3,5\n', {}, "is no table of text"),
        ("kind,elements,latency_us\n\n", {}, "no row of .* is a measurement"),
        ("kind,elements,latency_us,board\nrelu,3,5,a\nrelu,3,6,b\n", {}, "several devices: board is a, b.*--where"),
        ("kind,elements,latency_us,status\nrelu,3,,wrong\n", {}, "no row of .* \\(status wrong\\)"),
        ("kind,latency_us\nrelu,1\n", {"skip_bad": True}, "line 2: elements is missing"),
        ("a,latency_us\n1,1\n", {"reading": Reading(rename={"b": ["c"]})}, "--rename names a column 'b'.*there are a"),
        ("a,latency_us\n1,1\n", {"reading": Reading(where={"b": "c"})}, "--where names a column 'b'"),
    ],
)
def test_a_table_that_cannot_be_a_run_is_one_sentence(tmp_path, text, options, match):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=match):
        import_table(tmp_path / "t.csv", "m4", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_tables_are_one_sentence(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"kind,latency_us\n\xff\xfe,1\n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    for name, match in (("a.csv", "no table of text"), ("b.parquet", "Parquet"), ("c.csv", "No such file")):
        with pytest.raises(UserError, match=match):
            import_table(tmp_path / name, "m4", tmp_path / "run")


def test_parquet_is_read_like_csv(tmp_path):
    pytest.importorskip("pyarrow")
    rows = [LINEAR | {"latency_us": 1.5, "lot": "a"}, {"kind": "relu", "elements": 8, "latency_us": 2.0, "lot": None}]
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    import_table(tmp_path / "t.parquet", "m4", tmp_path / "run")
    found = store.load(tmp_path / "run")
    assert store.ops_of(found) == [Op(Linear(7, 5), Pass.FORWARD), Op(Relu(8), Pass.FORWARD)]
    assert found.latency_us.tolist() == [1.5, 2.0] and found.lot[0] == "a"


def test_ops_of_steps_and_ops_that_were_wrong_are_left_out_and_counted(tmp_path):
    rows = [LINEAR | {"latency_us": 1}, LINEAR | {"type": "step", "latency_us": 9}, LINEAR | {"status": "wrong"}]
    path = table(tmp_path / "t.csv", *rows)
    found = import_table(path, "m4", tmp_path / "run")
    assert found.left_out == {"ops inside a training step": 1, "status wrong": 1}
    assert store.load(tmp_path / "run").latency_us.tolist() == [1]


def test_an_import_that_fails_leaves_nothing_and_a_folder_in_use_stays_as_it_is(tmp_path, monkeypatch):
    path = table(tmp_path / "t.csv", LINEAR | {"latency_us": 1})
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        import_table(path, "m4", tmp_path / "used")

    def full(run, trials):
        raise UserError("the disk is full", hint="make room")

    monkeypatch.setattr(store.Run, "extend", full)
    with pytest.raises(UserError, match="disk is full"):
        import_table(path, "m4", tmp_path / "run")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "used"]
