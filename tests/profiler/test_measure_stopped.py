"""Trials that take too long: whole repetitions count, nothing is repeated for ever, and the reason is there."""

import json
import re

import numpy as np
import pytest
from command_line import NETWORK, profile, save_plan
from fake_device import OPS, FakeDevice, fresh, make_loop, measured

from profiler import store
from profiler.link.errors import DeviceReset, NoAnswer
from profiler.link.messages import Counters
from profiler.measure.evidence import Evidence
from profiler.measure.schedule import Policy
from profiler.measure.sitting import sitting
from profiler.measure.trials import Status, accepted_ticks
from profiler.store_export import export_rows
from profiler.store_schema import TRIAL_FIELDS

SLOW = OPS[3]
POLICY = Policy(warm_ups=1, repetitions=3, rounds_min=1, rounds_max=2)


def trials_of(trials, op=SLOW):
    return [t for t in trials if t["type"] == "op" and t["op_key"] == op.key]


def stopped_run(tmp_path, whole, *, verified=True):
    """A run in which one op's timed trials are stopped after so many whole repetitions."""
    device = FakeDevice(stopped_after={SLOW.key: whole}, ticks=lambda key: 70)
    if verified:
        answer = device.run

        def run_or_check(program, repetitions, **options):
            result = answer(program, repetitions, **options)
            result.stop = result.stop if repetitions else None
            return result

        device.run = run_or_check
    folder = tmp_path / "run"
    with store.Run.create(folder, fresh(device)) as run:
        make_loop(device, run, policy=POLICY).measure()
        return device, folder, list(run.trials)


def test_the_whole_repetitions_of_a_stopped_trial_count_and_its_reason_is_there(tmp_path):
    _, folder, trials = stopped_run(tmp_path, whole=3)
    (trial,) = trials_of(trials)
    assert trial["status"] == "stopped" and accepted_ticks(trial) == [70, 70]
    assert "3 of 4 repetitions" in trial["reason"] and "120.0 s" in trial["reason"]
    assert "--trial-limit" in trial["reason"]
    assert trial["stopped"] == {"entry": 1, "elapsed_ms": 120_004, "ticks": []}
    row = store.load(folder).set_index("op_key").loc[SLOW.key]
    assert row.status == "ok" and row.repetitions == 2 and row.ticks == 70 and row.reason == trial["reason"]
    exported = [r for r in export_rows(folder) if r["op_key"] == SLOW.key]
    assert [(r["status"], r["ticks"]) for r in exported] == [("ok", 70), ("ok", 70)]


@pytest.mark.parametrize("whole", [0, 1])
def test_an_op_without_a_whole_repetition_that_counts_is_not_timed(tmp_path, whole):
    _, folder, trials = stopped_run(tmp_path, whole=whole)
    (trial,) = trials_of(trials)
    assert trial["status"] == "stopped" and len(trial["ticks"]) == whole and not accepted_ticks(trial)
    assert SLOW.key not in set(store.load(folder).op_key)
    row = store.load(folder, status=None).set_index("op_key").loc[SLOW.key]
    assert row.status == "stopped" and np.isnan(row.ticks) and "of 4 repetitions" in row.reason


def test_an_op_that_takes_too_long_to_be_checked_is_not_timed_and_not_called_wrong(tmp_path):
    device, _, trials = stopped_run(tmp_path, whole=0, verified=False)
    (trial,) = trials_of(trials)
    assert trial["status"] == "stopped" and trial["ticks"] == [] and trial["relative_error"] is None
    assert "before its result was there" in trial["reason"]
    assert ("time", SLOW.key) not in device.asked


def test_a_stopped_op_has_no_further_round_and_is_not_repeated_when_the_run_goes_on(tmp_path):
    device = FakeDevice(stopped_after={SLOW.key: 2}, ticks=lambda key: len(device.asked) % 97)  # nothing is steady
    policy = Policy(repetitions=6, rounds_min=3, rounds_max=3)
    with store.Run.create(tmp_path / "run", fresh(device)) as run:
        make_loop(device, run, policy=policy).measure()
        assert len(trials_of(run.trials)) == 1 and len(trials_of(run.trials, OPS[0])) == 3
        before = len(run.trials)
    with store.Run.open(tmp_path / "run") as run:
        asked = len(device.asked)
        make_loop(device, run, policy=policy).measure()
        assert len(device.asked) == asked and len(run.trials) == before


@pytest.mark.parametrize("whole", [1, 3])
def test_stopped_trials_are_judged_by_what_counts_of_them_and_named(tmp_path, whole):
    _, folder, trials = stopped_run(tmp_path, whole=whole)
    evidence = Evidence.of(store.read_manifest(folder), trials)
    assert evidence.statuses[SLOW.key][0] == "stopped"
    assert ((SLOW.key, "warm") in evidence.timings) == (whole > 1)


def test_a_run_stopped_while_memory_was_measured_once_more_is_whole(tmp_path):
    device = FakeDevice(ticks=lambda key: 70)
    run = device.run

    def stopped_late(program, repetitions, **options):
        result = run(program, repetitions, **options)
        if repetitions:
            result.stop = type("Stop", (), {"entry": 0, "elapsed_ms": 5, "whole_repetitions": repetitions})
        return result

    device.run = stopped_late
    trials = measured(tmp_path, device)
    assert {t["status"] for t in trials} == {"ok"}


def test_a_fault_is_the_reason_of_the_failed_op_and_the_others_are_measured(tmp_path):
    fault = DeviceReset("board at port restarted: fault in entry 1 of the program (PC 0x8001234)", hint="-")
    trials = measured(tmp_path, FakeDevice(errors={SLOW.key: fault}))
    assert {t["reason"] for t in trials_of(trials)} == {fault.args[0]}
    assert {t["status"] for t in trials_of(trials)} == {"failed"}
    others = [t for t in trials if t["op_key"] != SLOW.key]
    assert len(others) > 20 and {t["status"] for t in others} == {"ok"}


def test_later_rounds_expect_what_earlier_ones_took(tmp_path):
    device = FakeDevice(ticks=lambda key: len(device.asked) % 97)
    measured(tmp_path, device, policy=Policy(repetitions=9, rounds_min=2, rounds_max=2))
    told = [seconds for seconds in device.expected_s if seconds is not None]
    assert len(told) >= len(OPS) and np.allclose(told, 0.01)  # ten repetitions take 10 ms there


# ---------------------------------------------------------------- what the manifest says


def last_sitting(device, folder, *, body=lambda: None):
    with store.Run.create(folder, fresh(device)) as run, sitting(device, run):
        body()
    return store.read_manifest(folder)["sittings"][-1]


def test_the_manifest_says_what_both_ends_of_the_link_counted(tmp_path):
    device = FakeDevice()
    device.counted = 2**32 - 15  # it wraps meanwhile
    device.restarts = ("watchdog in entry 1 of the program",)
    record = last_sitting(device, tmp_path / "run")
    assert record["device_link"] == {
        **{"ok": 10, "truncated": 0, "too_short": 0, "too_long": 0},
        **{"bad_crc": 0, "overruns": 0},
    }
    assert record["restarts"] == ["watchdog in entry 1 of the program"]


def test_after_a_restart_the_device_has_counted_from_nothing(tmp_path):
    device = FakeDevice()

    def restart():
        device.boot_id, device.counted = 2, 90

    assert last_sitting(device, tmp_path / "run", body=restart)["device_link"]["ok"] == 100


def test_a_device_that_does_not_answer_at_the_end_spoils_nothing(tmp_path, monkeypatch):
    device = FakeDevice()

    def silent():
        raise NoAnswer("silence", hint="-")

    record = last_sitting(device, tmp_path / "run", body=lambda: monkeypatch.setattr(device, "counters", silent))
    assert record["outcome"] == "complete" and record["device_link"] is None


def test_every_status_is_in_the_description_of_the_format():
    assert set(re.findall(r"`(\w+)`", TRIAL_FIELDS["status"])) == set(Status)


# ---------------------------------------------------------------- a real one


def test_a_measurement_with_a_limit_keeps_what_it_can_and_says_what_it_cannot(folder):
    options = ("--port", "qemu://stm32f405", *NETWORK, "--no-companions", "--repetitions", 2000, "--limit", 4)
    status, out, err = profile(*options, "--out", "free", "--json")
    assert status == 0, err
    free = store.load(folder / "free").set_index("op_key")
    slowest = free.ticks.idxmax()
    limit_s = free.ticks[slowest] * 1000 / 1e9
    status, out, err = profile(*options, "--out", "run", "--trial-limit", f"{limit_s:.4f}", "--json")
    assert f"stopped: {slowest}" in err
    table = store.load(folder / "run", status=None).set_index("op_key")
    row = table.loc[slowest]
    assert 1 <= row.repetitions < 1500 and row.ticks == free.ticks[slowest] and "--trial-limit" in row.reason, err
    assert (table.ticks.dropna() == free.ticks[table.ticks.dropna().index]).all()
    assert json.loads(out)["not_right"] == [] and status == 0
    record = store.read_manifest(folder / "run")["sittings"][-1]
    assert record["device_link"].keys() == Counters.__dataclass_fields__.keys()
    assert record["device_link"]["ok"] >= len(table) and record["device_link"]["bad_crc"] == 0


def test_a_step_with_a_limit_keeps_its_whole_repetitions(folder):
    plan = save_plan(folder / "plan.json")
    options = ("step", "--port", "qemu://stm32f405", "--plan", plan, "--repetitions", 300)
    assert profile(*options, "--out", "free")[0] == 0
    free = store.load_steps(folder / "free").iloc[0]
    limit_s = free.ticks * 300 * 0.9 / 1e9  # not so little that the device knows before
    status, _, err = profile(*options, "--out", "run", "--trial-limit", f"{limit_s:.4f}")
    assert status == 0, err
    step = store.load_steps(folder / "run").iloc[0]
    assert step.status == "ok" and 100 < step.repetitions < 290 and "--trial-limit" in step.reason
    assert step.ticks == free.ticks
    (trial,) = [t for t in store.iterate(folder / "run") if t["type"] == "step"]
    assert trial["status"] == "stopped"
    assert trial["stopped"]["ticks"] == trial["ticks"][0][: len(trial["stopped"]["ticks"])]
    assert "trial-limit" in err  # people are told


def test_verify_says_which_op_took_too_long(folder):
    network = ("--network", "clinet:Net", "--input", "3x64x64", "--passes", "forward")
    status, out, err = profile("verify", "--port", "qemu://mps2-an500", *network, "--trial-limit", 0.001)
    assert status == 1 and "--trial-limit" in out, (out, err)
    assert re.search(r"^(stopped|refused): conv2d/forward/\S+: .*--trial-limit SECONDS allows more", out, re.MULTILINE)
