"""Runs for other programs."""

import builtins
import io
import json
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from command_line import profile
from runs import CONV, MANIFEST, trial, write

from profiler import store, store_export, store_parquet
from profiler.ops import Empty, Op, Pass, Relu
from profiler.store_tables import GEOMETRY_COLUMNS

OPS = [Op(CONV, Pass.GRAD_WEIGHT, trained_channels=2, trains_bias=True), Op(Relu(9, 6), Pass.FORWARD)]
FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def run(folder):
    """Two ops, one of them wrong in a second round, and the empty op."""
    wrong = trial(OPS[1], [], round_=1, warm_ups=0, status="wrong", reason="0.5 off")
    trials = [trial(Op(Empty(), Pass.FORWARD), [5, 4], type_="empty"), trial(OPS[0], [900, 104, 105])]
    return write(folder, [*trials, trial(OPS[1], [90, 14], energy_uj=[None, 2.5]), wrong])


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


@pytest.mark.parametrize("everything", [False, True])
def test_parquet_has_the_rows_of_the_csv_with_types(run, tmp_path, everything):
    options = ["--all"] if everything else []
    status, _, err = profile("export", run, "--csv", tmp_path / "t.csv", "--parquet", tmp_path / "t.parquet", *options)
    assert status == 0, err
    assert "t.csv and " in err
    rows = list(store_export.export_rows(run, everything=everything))
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column_names == list(store_export.EXPORT_COLUMNS)
    assert [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()] == [
        {k: v for k, v in row.items() if v is not None} for row in rows
    ]
    csv, frame = pd.read_csv(tmp_path / "t.csv"), table.to_pandas()
    assert list(csv.columns) == list(frame.columns)
    for name in csv.columns:
        ours, theirs = frame[name], csv[name]
        assert list(ours.isna() | (ours == "")) == list(theirs.isna())
        assert list(ours[theirs.notna()]) == list(theirs[theirs.notna()])
    assert store.ops_of(frame) == store.ops_of(csv)
    assert table.schema.field("ticks").type == "int64"
    assert table.schema.field("trains_bias").type == "bool"
    assert table.schema.field("energy_uj").type == "double"


def test_parquet_says_where_its_figures_come_from_and_that_they_are_emulated(tmp_path):
    original = FIXTURES / "schema-1-int8"
    status, _, err = profile("export", original, "--parquet", tmp_path / "t.parquet")
    assert status == 0, err
    metadata = pq.read_schema(tmp_path / "t.parquet").metadata
    origin = json.loads(metadata[store_parquet.METADATA_KEY.encode()])
    manifest = json.loads((original / store.MANIFEST).read_text())
    assert (origin["device"], origin["timer"], origin["emulated"]) == ("qemu-stm32f405", "instructions", True)
    assert origin["build_hash"] == manifest["identity"]["build_hash"]
    assert (origin["schema"], origin["begun_with_schema"]) == (store.SCHEMA, 1)
    assert origin["git_commit"] == manifest["git_commit"]
    assert set(pq.read_table(tmp_path / "t.parquet", columns=["timer"])["timer"].to_pylist()) == {"instructions"}


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
def test_what_is_exported_is_imported_with_the_same_ops_and_times(tmp_path, option):
    original, table = FIXTURES / "schema-2-int8", tmp_path / f"t.{option.removeprefix('--')}"
    assert profile("export", original, option, table)[0] == 0
    status, _, err = profile("import", table, "--device", "theirs", "--out", tmp_path / "again")
    assert status == 0, err
    before, after = store.load(original), store.load(tmp_path / "again")
    assert store.ops_of(after) == store.ops_of(before)
    for column in ("ticks", "overhead_ticks", "repetitions", "memory_peak_bytes", "arena_peak_bytes"):
        assert list(after[column]) == list(before[column]), column
    assert list(after.latency_us) == pytest.approx(list(before.latency_us))
    assert set(after.timer) == {"imported (instructions)"}


def test_a_runs_own_columns_take_the_type_that_holds_all_their_values(folder, tmp_path):
    extra = [{"lot": [7, 8], "bias": [1, None], "by": [None, 5]}, {"lot": [9, 1], "bias": [1, 0.5], "by": ["x", "y"]}]
    trials = [trial(OPS[0], [3, 4], round_=n, extra=columns) for n, columns in enumerate(extra)]
    write(folder, trials, MANIFEST | {"extra_columns": ["lot", "bias", "by", "empty"]})
    assert profile("export", folder, "--all", "--parquet", tmp_path / "t.parquet")[0] == 0
    table = pq.read_table(tmp_path / "t.parquet")
    assert [str(table.schema.field(n).type) for n in ("lot", "bias", "by", "empty")] == [
        "int64", "double", "string", "int64",
    ]  # fmt: skip
    assert table["by"].to_pylist() == [None, "5", "x", "y"]
    assert table["bias"].to_pylist() == [1.0, None, 1.0, 0.5]


def test_rows_go_to_parquet_in_groups_and_none_is_lost_between(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(store_parquet, "ROW_GROUP_ROWS", 64)
    monkeypatch.setattr(store_export, "BATCH_ROWS", 16)
    write(folder, [trial(OPS[0], [9, n]) for n in range(10)])
    ticks = list(range(211))
    rows = [next(store_export.export_rows(folder)) | {"ticks": n} for n in ticks]
    with store_parquet.parquet_sink(tmp_path / "t.parquet", folder) as sink:
        assert store_export.write(rows, [sink]) == 211
    file = pq.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [64, 64, 64, 19]
    assert file.read()["ticks"].to_pylist() == ticks


def test_a_parquet_file_that_cannot_be_finished_leaves_what_was_there(run, tmp_path):
    target = tmp_path / "t.parquet"
    target.write_text("before")
    with pytest.raises(RuntimeError), store_parquet.parquet_sink(target, run) as sink:
        sink(list(store_export.export_rows(run)))
        raise RuntimeError
    assert target.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "t.parquet"]


def test_where_nothing_can_be_written_is_said_before_a_row_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr(store_export, "export_rows", lambda *_, **__: pytest.fail("it reads"))
    good = tmp_path / "good.csv"
    status, _, err = profile("export", run, "--csv", good, "--parquet", tmp_path / "none" / "t.parquet")
    assert status == 2 and "none is not there; give --parquet a file that you can write" in err
    assert not good.exists()
    status, _, err = profile("export", run, "--csv", tmp_path)
    assert status == 2 and f"{tmp_path} is a folder; give --csv a file that you can write" in err


def test_a_full_disk_names_the_file_that_did_not_fit(run, tmp_path):
    for option, name in (("--csv", "t.csv"), ("--parquet", "t.parquet")):
        (tmp_path / name).symlink_to("/dev/full")
        status, _, err = profile("export", run, option, tmp_path / name)
        assert status == 1
        assert re.search(rf"cannot write .*{name}: .*No space left.*give {option}", err, re.DOTALL), err


def test_parquet_without_pyarrow_is_one_sentence_with_the_command(run, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    status, _, err = profile("export", run, "--parquet", tmp_path / "t.parquet")
    assert status == 1
    assert "needs pyarrow" in err and "pip install 'tinytrain-hil[parquet]'" in err


@pytest.mark.parametrize(("options", "sentence"), [([], "no file to write"), (["--parquet", "-"], "to a file only")])
def test_export_to_nothing_is_bad_usage(run, options, sentence):
    status, _, err = profile("export", run, *options)
    assert status == 2
    assert sentence in err


def test_every_column_is_documented_and_has_a_type():
    text = store_export.__doc__
    columns = set(store_export.EXPORT_COLUMNS) - set(GEOMETRY_COLUMNS)
    assert {name for name in columns if f"``{name}``" not in text} == set()
    typed = {*store_export.TEXTS, *store_export.BOOLEANS, *store_export.FLOATS}
    assert typed <= columns
