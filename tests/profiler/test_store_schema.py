"""Runs of every schema: read, exported, gone on with; newer ones refused; every field documented."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
from fake_device import FakeDevice, fresh, make_loop
from runs import CONV, MANIFEST, trial, write

from profiler import store, store_export, store_schema
from profiler.devices.identity import Identity
from profiler.devices.state import MachineState
from profiler.errors import UserError
from profiler.measure.schedule import Policy
from profiler.measure.sitting import open_run, sitting
from profiler.measure.trials import not_timed
from profiler.ops import Op, Pass

FIXTURES = sorted(p.parent for p in (Path(__file__).parents[1] / "fixtures" / "runs").glob("*/manifest.json"))
#: What this version would write as the plan of the same measurement.
PLANS_NOW = {
    "schema-1-first": {"dtypes": ["f32"], "caches": ["warm"], "region": "sram"},
    "schema-1-step": {"region": "psram"},
}
OPS = [path for path in FIXTURES if "step" not in path.name]
STEPS = [path for path in FIXTURES if "step" in path.name]
by_name = pytest.mark.parametrize("original", FIXTURES, ids=lambda path: path.name)


def raw(folder):
    manifest = json.loads((folder / store.MANIFEST).read_text())
    return manifest, [json.loads(line) for line in (folder / store.TRIALS).read_text().splitlines()]


@pytest.fixture
def copied(tmp_path, original):
    return Path(shutil.copytree(original, tmp_path / original.name))


def test_there_is_a_run_of_every_schema():
    schemas = {raw(path)[0]["schema"] for path in FIXTURES}
    assert schemas == set(range(1, store.SCHEMA + 1))


@pytest.mark.filterwarnings("error")
@by_name
def test_a_run_of_any_schema_reads_as_one_of_the_newest(original):
    before, lines = raw(original)
    manifest = store.read_manifest(original)
    assert manifest["schema"] == store.SCHEMA
    assert manifest.get("begun_with_schema", store.SCHEMA) == before["schema"]
    identity = Identity.from_dict(manifest["identity"])
    assert "blob_segments" in manifest["identity"] and "cold_runs" in manifest["identity"]
    trials = list(store.iterate(original))
    assert [t["trial"] for t in trials] == [t["trial"] for t in lines]
    for found, line in zip(trials, lines, strict=True):
        assert found["caches"] == ("sequence" if found["type"] == "step" else "warm")
        assert found["region"] == identity.arena_region().name
        assert "cold" not in found
        assert {k: v for k, v in found.items() if k in line} == {
            k: v for k, v in line.items() if k not in ("cold", "crc32")
        }


@pytest.mark.parametrize("original", OPS, ids=lambda path: path.name)
def test_ops_of_any_schema_load_and_export_with_the_figures_of_their_lines(original):
    manifest, lines = raw(original)
    empty = statistics.median(t for line in lines if line["type"] == "empty" for t in line["ticks"][line["warm_ups"] :])
    ticks = {line["op_key"]: line["ticks"][line["warm_ups"] :] for line in lines if line["type"] == "op"}
    table = store.load(original).set_index("op_key")
    rows = list(store_export.export_rows(original))
    assert list(table.index) == list(ticks)
    assert set(table.timer) == {"instructions"} == {row["timer"] for row in rows}
    assert set(table.region) == {manifest["identity"]["memory"][0]["name"]}
    for key, values in ticks.items():
        us = 1e6 / manifest["identity"]["timer_hz"]
        assert table.ticks[key] == statistics.median(values)
        assert table.latency_us[key] == pytest.approx((statistics.median(values) - empty) * us)
        assert [row["ticks"] for row in rows if row["op_key"] == key] == values
    assert [op.key for op in store.ops_of(table.reset_index())] == list(ticks)


@pytest.mark.parametrize("original", STEPS, ids=lambda path: path.name)
def test_steps_of_any_schema_load_and_export_with_the_figures_of_their_lines(original):
    manifest, lines = raw(original)
    (step,) = (line for line in lines if line["type"] == "step")
    ticks = step["ticks"][step["warm_ups"] :]
    row = store.load_steps(original).iloc[0]
    assert row.ticks == statistics.median(map(sum, ticks))
    assert 0 < row.overhead_ticks < row.ticks / 100
    assert row.latency_ms == pytest.approx((row.ticks - row.overhead_ticks) / manifest["identity"]["timer_hz"] * 1e3)
    assert row.timer == "instructions"
    ops = store.load_step_ops(original)
    assert list(ops.ticks) == [statistics.median(column) for column in zip(*ticks, strict=True)]
    rows = list(store_export.export_rows(original))
    assert [r["ticks"] for r in rows] == [t for repetition in ticks for t in repetition]
    assert {r["caches"] for r in rows} == {"sequence"}


@by_name
def test_going_on_keeps_the_old_trials_as_they_are_and_writes_new_ones_beside_them(copied):
    before, lines = raw(copied)
    text = (copied / store.TRIALS).read_bytes()
    with store.Run.open(copied) as run:
        assert any("was written with schema 1; it goes on with schema" in n for n in run.notices) == (
            before["schema"] == 1
        )
        assert json.loads((copied / store.MANIFEST).read_text()) == before  # nothing was written yet
        added = run.append(trial(Op(CONV, Pass.FORWARD), [1, 2], build_hash=before["identity"]["build_hash"]))
        assert added["trial"] == lines[-1]["trial"] + 1
    assert (copied / store.TRIALS).read_bytes().startswith(text)
    manifest, after = raw(copied)
    assert [t["schema"] for t in after] == [t["schema"] for t in lines] + [store.SCHEMA]
    assert (manifest["schema"], manifest.get("begun_with_schema", store.SCHEMA)) == (store.SCHEMA, before["schema"])
    trials = list(store.iterate(copied))
    assert len(trials) == len(lines) + 1
    with store.Run.open(copied) as run:
        assert not run.notices  # once is enough
        assert [t["trial"] for t in run.trials] == [t["trial"] for t in trials]


@by_name
def test_going_on_with_an_old_run_asks_for_the_same_plan_and_build_as_ever(copied):
    manifest, lines = raw(copied)
    now = manifest | {"plan": manifest["plan"] | PLANS_NOW.get(copied.name, {})}
    now["plan"].setdefault("region", store.read_manifest(copied)["plan"]["region"])
    now["policy"] = Policy().to_dict() | manifest["policy"]
    with open_run(copied, resume=True, fresh=now) as run:
        assert [t["slot"] for t in run.trials] == [t["slot"] for t in lines]
    other = now | {"identity": now["identity"] | {"build_hash": "another"}}
    with pytest.raises(UserError, match=r"firmware build .* do not mix"):
        open_run(copied, resume=True, fresh=other)


def test_a_run_of_a_newer_schema_is_refused_by_name(tmp_path):
    folder = tmp_path / "run"
    versions = {"tinytrain-hil": "9.8.7"}
    write(folder, [trial(Op(CONV, Pass.FORWARD), [1, 2])], MANIFEST | {"schema": 7, "versions": versions})
    sentence = r"the run .* has schema 7, of tinytrain-hil 9\.8\.7; this is version \S+, which reads schemas up to 2"
    for refused in (store.load, store.Run.open, store.read_manifest, lambda f: next(store_export.export_rows(f))):
        with pytest.raises(UserError, match=sentence) as error:
            refused(folder)
        assert "update" in str(error.value)


def test_a_newer_trial_in_an_old_manifest_is_refused_not_misread(tmp_path):
    folder = tmp_path / "run"
    write(folder, [trial(Op(CONV, Pass.FORWARD), [1, 2]), trial(Op(CONV, Pass.FORWARD), [1, 2], schema=3, round_=1)])
    with pytest.raises(UserError, match=r"trial 1 of the run .* has schema 3, of tinytrain-hil in a newer version"):
        store.load(folder)
    with pytest.raises(UserError, match="trial 1 of the run"):
        store.Run.open(folder)


@pytest.mark.parametrize("schema", [0, -1, "1", 1.5, None])
def test_a_schema_that_never_was_is_no_manifest(tmp_path, schema):
    folder = tmp_path / "run"
    write(folder, [], MANIFEST | {"schema": schema})
    with pytest.raises(UserError, match="is no manifest"):
        store.read_manifest(folder)


def test_every_field_that_is_written_is_documented(tmp_path):
    state = MachineState(0, "", "", None, None, None, "")
    device = FakeDevice(states=(state,), wrong=[Op(CONV, Pass.FORWARD).key])
    with store.Run.create(tmp_path / "run", fresh(device) | {"extra_columns": []}) as run, sitting(device, run):
        make_loop(device, run).measure()
    manifest, lines = raw(tmp_path / "run")
    lines += [line for path in FIXTURES if raw(path)[0]["schema"] == store.SCHEMA for line in raw(path)[1]]
    assert manifest.keys() <= store_schema.MANIFEST_FIELDS.keys()
    seen = set()
    for line in lines:
        own = store_schema.STEP_FIELDS if line["type"] == "step" else store_schema.OP_FIELDS
        assert line.keys() <= store_schema.TRIAL_FIELDS.keys() | own.keys()
        seen |= line.keys()
    assert {"state", "wire_bytes", "relative_error"} <= seen
    assert not_timed("wrong", "why").keys() <= store_schema.TRIAL_FIELDS.keys()
