"""Going on with a run, how a sitting ends, and what a device cannot run."""

import pytest
from fake_device import ALL, FakeDevice, fresh, make_loop

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
        ({}, {"ops": [1, 2]}, "begun with another ops"),
    ],
)
def test_trials_of_another_build_board_or_plan_are_never_mixed_in(tmp_path, changes, plan, match):
    folder = tmp_path / "run"
    open_run(folder, resume=False, fresh=fresh(FakeDevice())).close()
    with pytest.raises(UserError, match=match):
        open_run(folder, resume=True, fresh=fresh(FakeDevice(**changes), **plan))
    open_run(folder, resume=True, fresh=fresh(FakeDevice())).close()  # the refusal gave the lock back


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
