"""Going on with a run, how a sitting ends, and what a device cannot run."""

import contextlib

import pytest
from fake_device import ALL, OPS, FakeDevice, fresh, make_loop
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import store
from profiler.errors import UserError
from profiler.link.errors import NoAnswer
from profiler.measure.schedule import EMPTY, Caches
from profiler.measure.sitting import ManifestWarning, check_caches, open_run, sitting, split
from profiler.ops import Depthwise, Op, Pass, Relu


@pytest.mark.parametrize(
    ("changes", "plan", "match"),
    [
        ({"build_hash": "build2"}, {}, "firmware build build1, and the device has build2.*do not mix"),
        ({"board": "qemu-other"}, {}, "made on qemu-test, and the port has qemu-other"),
        ({}, {"network": "other"}, "begun with another network"),
        ({}, {"seed": 7}, r"begun with another seed \(None, now 7\)"),
        ({"unique_id": "ab12"}, {}, "made on another qemu-test: its serial number is none, and the port's ab12"),
    ],
)
def test_trials_of_another_build_board_or_plan_are_never_mixed_in(tmp_path, changes, plan, match):
    folder = tmp_path / "run"
    open_run(folder, resume=False, fresh=fresh(FakeDevice())).close()
    with pytest.raises(UserError, match=match):
        open_run(folder, resume=True, fresh=fresh(FakeDevice(**changes), **plan))
    open_run(folder, resume=True, fresh=fresh(FakeDevice())).close()  # the refusal gave the lock back


def test_what_is_wanted_besides_is_added_to_the_plan_and_what_is_not_wanted_now_stays(tmp_path):
    folder, device = tmp_path / "run", FakeDevice()
    steps = {"a": {"images": 1}}
    first = fresh(device, ops=["x", "y"], passes=["forward"], plans=steps, caches=["warm"])
    first["not_measured"] = [{"op_key": "x", "reason": "no kernel"}]
    open_run(folder, resume=False, fresh=first).close()
    second = fresh(device, ops=["z", "y"], passes=["update"], plans={"b": {"images": 2}}, caches=["cold"])
    second["not_measured"] = [{"op_key": "z", "reason": "no kernel"}]
    with open_run(folder, resume=True, fresh=second) as run:
        plan = run.manifest["plan"]
    assert (plan["ops"], plan["caches"], plan["passes"]) == (["x", "y", "z"], ["warm", "cold"], ["update"])
    assert plan["plans"] == {"a": {"images": 1}, "b": {"images": 2}}
    assert [item["op_key"] for item in store.read_manifest(folder)["not_measured"]] == ["x", "z"]
    before = (folder / store.MANIFEST).read_bytes()
    open_run(folder, resume=True, fresh=first).close()  # all of it is wanted already
    assert (folder / store.MANIFEST).read_bytes() == before
    narrow = fresh(device, ops=["x"], caches=["warm"])
    open_run(tmp_path / "warm", resume=False, fresh=narrow).close()
    both = fresh(device, ops=["x"], caches=["warm", "cold"])
    with open_run(tmp_path / "warm", resume=True, fresh=both) as run:
        assert run.manifest["plan"]["caches"] == ["warm", "cold"]
    with pytest.raises(UserError, match="a step of another plan that is called a too"):
        open_run(folder, resume=True, fresh=fresh(device, plans={"a": {"images": 9}}, ops=[]))


def test_trials_of_another_build_do_not_count_as_measured(tmp_path):
    """As where somebody joined two runs: no command writes such trials."""
    device = FakeDevice()
    with open_run(tmp_path / "run", resume=False, fresh=fresh(device)) as run:
        make_loop(device, run, OPS[:4]).measure()
        slots = [trial["slot"] for trial in run.trials]
        run.manifest["identity"]["build_hash"] = "build2"
        run.write_manifest()
    device = FakeDevice(build_hash="build2")
    with open_run(tmp_path / "run", resume=True, fresh=fresh(device)) as run:
        assert run.trials == [] and "firmware build build1" in run.notices[0]
        make_loop(device, run, OPS[:4]).measure()
        assert [trial["slot"] for trial in run.trials] == slots
    with pytest.warns(store.DamagedRunWarning, match="never mix"):
        table = store.load(tmp_path / "run")
    assert set(table.rounds) == {1}


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(OPS), min_size=1, max_size=8), st.integers(0, 60)), min_size=1, max_size=4
    ),
    st.booleans(),
)
def test_however_the_wanted_ops_change_between_sittings_each_is_measured_once(tmp_path_factory, sittings, cold):
    folder = tmp_path_factory.mktemp("wider") / "run"
    wanted = [(list(ops), stop) for ops, stop in sittings]
    everything = list(dict.fromkeys(op for ops, _ in wanted for op in ops))
    for i, (ops, stop) in enumerate([*wanted, (everything, None)]):
        device = FakeDevice(stop_after=stop, cold_runs=True)
        caches = tuple(Caches) if cold and i % 2 else (Caches.WARM,)
        plan = {"ops": [op.key for op in ops], "caches": [str(c) for c in caches]}
        with open_run(folder, resume=True, fresh=fresh(device, **plan)) as run, contextlib.suppress(KeyboardInterrupt):
            make_loop(device, run, ops, caches=caches).measure()
    measured = [(t["op_key"], t["caches"], t["round"]) for t in store.iterate(folder) if t["type"] == "op"]
    assert len(set(measured)) == len(measured)
    assert {key for key, caches, _ in measured if caches == "warm"} == {op.key for op in everything}
    assert set(store.read_manifest(folder)["plan"]["ops"]) == {op.key for op in everything}


def test_a_sitting_says_what_it_has_otherwise_than_the_one_that_began_the_run(tmp_path, monkeypatch):
    device = FakeDevice()
    with store.Run.create(tmp_path / "run", fresh(device)) as run:
        with sitting(device, run):
            pass
        now = store.provenance()
        monkeypatch.setattr(store, "provenance", lambda: now | {"versions": {"torch": "9"}, "git_commit": None})
        with sitting(device, run):
            pass
    first, second = store.read_manifest(run.folder)["sittings"]
    assert "changed" not in first
    assert second["changed"] == {"versions": {"torch": "9"}} | ({"git_commit": None} if now["git_commit"] else {})


def test_cold_caches_are_refused_where_the_device_cannot_empty_them():
    with pytest.raises(UserError, match="qemu-test cannot time ops with cold caches"):
        check_caches(FakeDevice().identity, (Caches.WARM, Caches.COLD))
    check_caches(FakeDevice().identity, (Caches.WARM,))
    check_caches(FakeDevice(cold_runs=True).identity, tuple(Caches))


def test_going_on_without_a_folder_finds_the_newest_run_of_the_same_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    device = FakeDevice()
    with open_run(None, resume=False, fresh=fresh(device)) as first:
        pass
    with open_run(None, resume=False, fresh=fresh(device, network="other")) as other:
        pass
    assert first.folder.parts[:2] == ("measurements", "qemu-test")
    assert other.folder != first.folder
    with open_run(None, resume=True, fresh=fresh(device)) as again:
        assert again.folder == first.folder
    with open_run(None, resume=True, fresh=fresh(device, ops=[1, 2])) as wider:
        assert wider.folder not in (first.folder, other.folder)
    with open_run(None, resume=True, fresh=fresh(device, ops=[2])) as part:  # the newest that has it
        assert part.folder == wider.folder


def test_what_does_not_fit_or_has_no_kernel_is_listed_with_the_bytes_wanted():
    big = Op(Relu(100_000), Pass.FORWARD)
    small, lacking = Op(Relu(10), Pass.FORWARD), Op(Depthwise(4, 4, 2, 3, 3), Pass.FORWARD)
    capabilities = tuple(c for c in ALL if c >> 8 != Depthwise.code)
    device = FakeDevice(capabilities=capabilities)
    programs, left = split([big, small, lacking], device.identity, device.memory, 4)
    assert set(programs) == {EMPTY, small}
    reasons = {item.op: item for item in left}
    assert reasons[big].reason == "does not fit"
    assert reasons[big].bytes_wanted >= 400_000
    assert reasons[big].bytes_available == 120_000
    assert reasons[lacking].reason == "no kernel"


def full_disk(run, monkeypatch):
    def write(**changes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_manifest", write)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), NoAnswer("the line is dead", hint="plug it in")])
def test_whatever_ends_a_sitting_on_a_full_disk_the_sentence_says_that_the_trials_are_safe(tmp_path, monkeypatch, stop):
    device = FakeDevice(stop_after=20, stop=stop)
    with store.Run.create(tmp_path / "run", fresh(device)) as run:
        full_disk(run, monkeypatch)
        with (
            pytest.warns(ManifestWarning, match="cannot write the manifest of .*No space left"),
            pytest.raises(UserError, match=r"\d+ trials are safe in .*go on with the same command and --resume --out"),
            sitting(device, run),
        ):
            make_loop(device, run).measure()
    assert len(list(store.iterate(tmp_path / "run"))) == len(run.trials) > 3


def test_a_complete_sitting_that_the_manifest_cannot_say_is_an_error(tmp_path, monkeypatch):
    device = FakeDevice()
    with store.Run.create(tmp_path / "run", fresh(device)) as run:
        with monkeypatch.context() as patch:
            full_disk(run, patch)
            with pytest.raises(UserError, match=r"No space left on device; 0 trials are safe"), sitting(device, run):
                pass
        with sitting(device, run):
            pass
    assert [s["outcome"] for s in store.read_manifest(run.folder)["sittings"]] == ["complete"]
