"""The trial loop: verification before timing, repetition, going on after a stop."""

import random

import numpy as np
import pytest
from fake_device import OPS, FakeDevice, fresh, make_loop, measured
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import store
from profiler.link.errors import DeviceReset, Refused
from profiler.measure.schedule import EMPTY, Caches, Policy, reference_op
from profiler.measure.sitting import open_run


def test_every_op_is_verified_before_it_is_timed_and_measured_once(tmp_path):
    device = FakeDevice()
    trials = measured(tmp_path, device)
    assert sorted(t["op_key"] for t in trials if t["type"] == "op") == sorted(op.key for op in OPS)
    assert all(t["relative_error"] == 0 for t in trials if t["type"] == "op")
    seen = set()
    for what, key in device.asked:
        if what == "verify":
            seen.add(key)
        elif key != EMPTY.key:
            assert key in seen


def test_a_wrong_op_is_recorded_with_the_reason_and_never_timed(tmp_path):
    wrong = [OPS[3].key, OPS[20].key]
    device = FakeDevice(wrong=wrong)
    trials = measured(tmp_path, device)
    bad = [t for t in trials if t["status"] != "ok" and t["type"] == "op"]
    assert sorted(t["op_key"] for t in bad) == sorted(wrong)
    assert all(t["ticks"] == [] and "away from PyTorch" in t["reason"] for t in bad)
    assert not {key for what, key in device.asked if what == "time"} & set(wrong)


def test_an_op_that_touches_other_scratch_than_planned_is_never_timed(tmp_path):
    device = FakeDevice()
    device.scratch_bytes = 2
    trials = [t for t in measured(tmp_path, device) if t["type"] == "op"]
    reason = "it touches 2 bytes of scratch where 1 are planned"
    assert {(t["status"], t["reason"]) for t in trials} == {("wrong", reason)}
    assert {key for what, key in device.asked if what == "time"} == {EMPTY.key}


def test_a_wrong_reference_op_is_not_timed_either(tmp_path):
    key = reference_op(OPS).key
    device = FakeDevice(wrong=[key])
    measured(tmp_path, device)
    assert ("time", key) not in device.asked


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("the device refuses it", hint="-", reason="bounds", entry_index=0, detail=0), "refused"),
        (DeviceReset("it restarted", hint="-"), "failed"),
    ],
)
def test_an_op_that_the_device_cannot_do_does_not_stop_the_others(tmp_path, error, status):
    trials = measured(tmp_path, FakeDevice(errors={OPS[5].key: error}))
    found = {t["op_key"]: t["status"] for t in trials if t["type"] == "op"}
    assert found.pop(OPS[5].key) == status
    assert len(found) == len(OPS) - 1
    assert set(found.values()) == {"ok"}


def test_warm_ups_are_kept_and_marked(tmp_path):
    for trial in measured(tmp_path, FakeDevice()):
        assert trial["warm_ups"] == 1
        assert len(trial["ticks"]) == 1 + Policy().repetitions


def test_an_op_can_be_timed_warm_and_cold_and_is_verified_once(tmp_path):
    device = FakeDevice(cold_runs=True)
    trials = [t for t in measured(tmp_path, device, caches=tuple(Caches)) if t["type"] == "op"]
    timings = {(t["op_key"], t["caches"]): t["ticks"][-1] for t in trials}
    assert len(timings) == len(trials) == 2 * len(OPS)
    assert all(timings[op.key, "cold"] == 3 * timings[op.key, "warm"] for op in OPS)
    verified = [key for what, key in device.asked if what == "verify"]
    verified.remove(reference_op(OPS).key)  # once as the reference op, once for itself
    assert sorted(verified) == sorted(op.key for op in OPS)


def test_a_wrong_op_is_timed_neither_warm_nor_cold(tmp_path):
    device = FakeDevice(wrong=[OPS[3].key], cold_runs=True)
    trials = measured(tmp_path, device, caches=tuple(Caches))
    assert [t["status"] for t in trials if t["op_key"] == OPS[3].key and t["type"] == "op"] == ["wrong", "wrong"]
    assert ("time", OPS[3].key) not in device.asked


def test_on_linux_trials_of_an_op_are_not_back_to_back(tmp_path):
    device = FakeDevice(board="linux-native", ticks_per_instruction=(0, 1))
    trials = [t for t in measured(tmp_path, device) if t["type"] == "op"]
    places = [index for index, t in enumerate(trials) if t["op_key"] == OPS[0].key]
    assert len(places) == 10
    assert np.median(np.diff(places)) > 5


def test_on_linux_short_ops_and_the_empty_one_are_read_more_often_than_long_ones(tmp_path):
    device = FakeDevice(
        board="linux-native",
        ticks_per_instruction=(0, 1),
        timer_hz=1_000_000_000,
        ticks=lambda key: 90 if key == OPS[0].key else 900_000,
    )
    counts = {}
    for t in measured(tmp_path, device):
        counts.setdefault((t["type"], t["op_key"]), []).append(len(t["ticks"]) - t["warm_ups"])
    policy = Policy.for_device(device.identity)
    assert set(counts["op", OPS[1].key]) == {policy.repetitions}
    first, *others = counts["op", OPS[0].key]
    assert first == policy.repetitions and set(others) == {policy.repetitions_most}
    assert min(counts["empty", EMPTY.key]) > policy.repetitions_most


def test_an_op_that_stays_unsteady_gets_further_rounds_and_the_others_do_not(tmp_path):
    noise = random.Random(1)
    device = FakeDevice(
        board="linux-native",
        ticks_per_instruction=(0, 1),
        ticks=lambda key: noise.randrange(100, 300) if key == OPS[0].key else 50,
    )
    trials = measured(tmp_path, device)
    rounds = {op.key: sum(t["op_key"] == op.key for t in trials if t["type"] == "op") for op in OPS}
    assert rounds.pop(OPS[0].key) == Policy.for_device(device.identity).rounds_max
    assert set(rounds.values()) == {10}


@settings(max_examples=15, deadline=None)
@given(
    stops=st.lists(st.integers(0, 60), max_size=4),
    linux=st.booleans(),
    caches=st.sampled_from([(Caches.WARM,), tuple(Caches)]),
)
def test_however_often_it_is_stopped_and_gone_on_with_the_trials_are_the_same_and_none_is_there_twice(
    tmp_path_factory, stops, linux, caches
):
    folder = tmp_path_factory.mktemp("resume") / "run"
    changes = {"cold_runs": True} | ({"board": "linux-native", "ticks_per_instruction": (0, 1)} if linux else {})
    ops = OPS[:8]
    clean = measured(folder.parent, FakeDevice(wrong=[OPS[2].key], **changes), ops=ops, caches=caches)
    for stop_after in [*stops, None]:
        device = FakeDevice(wrong=[OPS[2].key], stop_after=stop_after, **changes)
        with open_run(folder, resume=True, fresh=fresh(device)) as run:
            try:
                make_loop(device, run, ops, caches=caches).measure()
            except KeyboardInterrupt:
                continue
    trials = list(store.iterate(folder))
    slots = [t["slot"] for t in trials]
    assert len(set(slots)) == len(slots)
    assert sorted(slots) == sorted(t["slot"] for t in clean)
    assert {t["slot"]: t["ticks"] for t in trials} == {t["slot"]: t["ticks"] for t in clean}
