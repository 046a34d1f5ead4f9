"""Whether a run is trustworthy: quiet runs are, and every disturbance that is put into one is found and named."""

import dataclasses
import functools
import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import profile
from made_up_run import OPS, REFERENCE, TIMER_HZ, manifest, trial, trials
from runs import write

from profiler import cli_support, store
from profiler.commands import check as command
from profiler.devices.state import MachineState
from profiler.errors import UserError
from profiler.measure.evidence import MOST_READINGS, MOST_REFERENCES, Evidence
from profiler.measure.findings import Weight
from profiler.measure.schedule import EMPTY
from profiler.measure.trust import Verdict, examine, examine_run

EVERY = sorted(path.parent for path in (Path(__file__).parents[2] / "measurements").glob("*/*/manifest.json"))
KEPT = [folder for folder in EVERY if not folder.parent.name.startswith("native")]
SHARED_HOST = [folder for folder in EVERY if folder.parent.name.startswith("native")]


def named(trust, weight=None):
    return {finding.name for finding in trust.findings if weight is None or finding.weight is weight}


def changed(**changes):
    """The made-up manifest with other sittings, plan, ..."""
    record = manifest()
    for name, change in changes.items():
        part = record[name][0] if name == "sittings" else record[name]
        part |= change
    return record


# ------------------------------------------------------------------------------------------------ no false alarms


@pytest.mark.parametrize("folder", KEPT, ids=lambda path: path.name + "@" + path.parent.name)
def test_the_runs_kept_here_are_trustworthy(folder):
    trust = examine_run(folder)
    if folder.parts[-2:] == ("qemu-stm32f405", "study-mcunet-5fps"):  # plans that MACs choose do not fit its memory
        assert trust.verdict is Verdict.CARE and named(trust, Weight.CARE) == {"incomplete"}, trust.findings
    else:
        assert trust.verdict is Verdict.TRUSTWORTHY, trust.findings
    assert "emulated" in named(trust) and trust.drift == 0


@pytest.mark.parametrize("folder", SHARED_HOST, ids=lambda path: path.name + "@" + path.parent.name)
def test_the_runs_kept_here_of_a_shared_host_say_so_and_may_be_used(folder):
    trust = examine_run(folder)
    assert trust.verdict in (Verdict.CARE, Verdict.TRUSTWORTHY), trust.findings
    assert "emulated" not in named(trust)


def test_quiet_runs_are_trustworthy_and_nothing_at_all_is_found():
    for seed in range(12):
        trust = examine(manifest(), trials(seed=seed))
        assert trust.findings == ()
        assert trust.verdict is Verdict.TRUSTWORTHY


def test_noise_without_drift_is_taken_for_drift_in_few_runs():
    alarms = Counter()
    for seed in range(60):
        alarms.update(named(examine(manifest(), trials(seed=seed, rounds=3, noise=0.05))) & {"drift", "trend"})
    assert sum(alarms.values()) <= 3


# ------------------------------------------------------------------------------------------- what readings tell


@pytest.mark.parametrize(
    ("speed", "found", "weight"),
    [
        (lambda share: 1 + 0.05 * (share > 0.5), "drift", Weight.CARE),
        (lambda share: 1 - 0.05 * share, "drift", Weight.CARE),
        (lambda share: 1 + 0.4 * (share > 0.5), "drift", Weight.STOP),
        (lambda share: 1 + 0.018 * share, "trend", Weight.CARE),
        (lambda share: 1 - 0.018 * share, "trend", Weight.CARE),
    ],
)
def test_drift_and_trend_of_the_reference_op_are_found(speed, found, weight):
    trust = examine(manifest(), trials(speed=speed))
    [finding] = [f for f in trust.findings if f.name in ("drift", "trend")]
    assert (finding.name, finding.weight, finding.ops) == (found, weight, (REFERENCE.key,))
    quiet = manifest(policy=manifest()["policy"] | {"quiet_target": 0.02})
    [finding] = [f for f in examine(quiet, trials(speed=speed)).findings if f.name in ("drift", "trend")]
    assert (finding.name, finding.weight) == (found, Weight.CARE)


@pytest.mark.parametrize(("every", "weight"), [(1.6, Weight.STOP), (10, Weight.CARE), (25, None)])
def test_a_device_that_is_shared_now_and_then_is_contended(every, weight):
    made = list(trials(rounds=4))
    count = itertools.count(1)
    for t in made:
        if t["type"] == "reference" and next(count) % every < 1:
            t["ticks"] = [round(1.5 * tick) for tick in t["ticks"]]
    found = {f.name: f for f in examine(manifest(), made).findings}
    assert ("contended" in found) == (weight is not None)
    quiet = manifest(policy=manifest()["policy"] | {"quiet_target": 0.02})
    assert all(f.weight is not Weight.STOP for f in examine(quiet, made).findings if f.name == "contended")
    if weight is not None:
        assert found["contended"].weight is weight
        assert "up to 1.5 times" in found["contended"].sentence


def test_repetitions_that_the_core_was_taken_from_are_found_though_no_median_feels_them():
    made = list(trials(rounds=4))
    for t in made:
        if t["type"] == "reference":
            t["ticks"][-1] *= 3
    found = {f.name: f for f in examine(manifest(), made).findings}
    assert found["contended"].weight is Weight.CARE and "drift" not in found and "scatter" not in found


def test_a_reference_op_whose_trials_scatter_or_gather_around_two_values_says_that_all_figures_do():
    chance = random.Random(1)
    readings = [t for t in trials(rounds=1) if t["type"] != "reference"]
    for _ in range(60):
        ticks = chance.choice((20_000, 34_000))  # another program on the core's other thread now and then
        readings.append(trial(REFERENCE, [round(chance.gauss(ticks, 40)) for _ in range(6)], "reference"))
    trust = examine(manifest(), readings)
    [finding] = [f for f in trust.findings if f.name == "scatter"]
    assert finding.weight is Weight.CARE and re.search("around (19,9|20,0).. and (33,9|34,0).. ticks", finding.sentence)


def test_a_burst_in_the_middle_is_neither_drift_nor_trend():
    trust = examine(manifest(), trials(speed=lambda share: 1.5 if 0.45 < share < 0.5 else 1.0))
    assert not named(trust) & {"drift", "trend"}
    assert "outliers" in named(trust)


def test_unsteady_ops_are_named_the_worst_first_and_many_hopeless_ones_stop():
    chance = random.Random(1)

    def reading(op, ticks):
        spread = {OPS[3].key: 0.2, OPS[7].key: 0.05}.get(op.key, 0)
        return ticks * chance.uniform(1 - spread, 1 + spread)

    trust = examine(manifest(), trials(reading=reading))
    [finding] = trust.findings
    assert (finding.name, finding.weight, finding.ops) == ("unsteady", Weight.CARE, (OPS[3].key, OPS[7].key))
    assert trust.unsteady == [OPS[3].key, OPS[7].key]
    everywhere = examine(manifest(), trials(reading=lambda op, ticks: ticks * chance.choice((0.5, 0.8, 1.3, 2))))
    assert everywhere.verdict is Verdict.STOP and "unsteady" in named(everywhere, Weight.STOP)


def test_a_coarse_timer_that_reads_one_tick_more_or_less_is_steady():
    readings = [trial(op, [100, 101, 100, 101, 101, 100]) for op in OPS]
    assert "unsteady" not in named(examine(manifest(), readings))


def test_too_few_repetitions_are_said_unless_the_device_is_emulated():
    few = list(trials(rounds=1, repetitions=3))
    assert named(examine(manifest(), few), Weight.CARE) == {"few repetitions"}
    emulated = changed(identity={"ticks_per_instruction": [1, 1]})
    assert named(examine(emulated, few)) == {"emulated"}


def test_ops_that_gather_around_two_values_are_found():
    chance = random.Random(1)
    fast_and_slow = {op.key for op in OPS[:4]}
    trust = examine(
        manifest(),
        trials(reading=lambda op, ticks: ticks * (1 + 0.1 * (op.key in fast_and_slow and chance.random() < 0.5))),
    )
    [finding] = [f for f in trust.findings if f.name == "two modes"]
    assert set(finding.ops) == fast_and_slow and finding.weight is Weight.CARE
    assert finding.figures["apart_most"] == pytest.approx(0.1, abs=0.01)
    one = examine(manifest(), trials(reading=lambda op, t: t * (1 + 0.1 * (op is OPS[0] and chance.random() < 0.5))))
    assert [f.weight for f in one.findings if f.name == "two modes"] == [Weight.NOTE]


def test_throttling_and_changes_of_frequency_are_counted_by_cause():
    calm = MachineState(0, "shared", "performance", 1_500_000, 55.0, 0, "")
    slow = dataclasses.replace(calm, frequency_khz=600_000, throttled=0b0100)
    pairs = itertools.cycle([(calm, calm), (calm, calm), (calm, slow)])
    states = ({"state": {"before": a.to_dict(), "after": b.to_dict()}} for a, b in pairs)
    trust = examine(manifest(), (t | next(states) for t in trials()))
    [finding] = trust.findings
    assert (finding.name, finding.weight) == ("disturbed", Weight.CARE)
    assert "frequency changed" in finding.sentence and "throttled" in finding.sentence and "governor" in finding.advice
    ondemand = dataclasses.replace(slow, governor="ondemand").to_dict()
    always = examine(manifest(), (t | {"state": {"before": ondemand, "after": ondemand}} for t in trials()))
    assert named(always, Weight.STOP) == {"disturbed"} and named(always, Weight.NOTE) == {"governor"}


@pytest.mark.parametrize(
    ("seconds", "found"), [(1.0, False), (1.05, False), (1 / 1.05, False), (1.25, True), (0.5, True), (168 / 16, True)]
)
def test_a_clock_that_is_not_what_the_firmware_says_shows_against_the_hosts(seconds, found):
    chance = random.Random(1)

    def at(device_s):
        ticks = round(device_s * TIMER_HZ / 6)
        late = 3.0 if chance.random() < 0.1 else chance.uniform(0.01, 0.03)  # a link that was slow now and then
        return trial(OPS[0], [ticks] * 6, duration_s=device_s * seconds + late)

    readings = [*trials(), *(at(0.1 + 0.05 * i) for i in range(40))]
    assert ("clock" in named(examine(manifest(), readings), Weight.STOP)) is found
    assert "clock" not in named(examine(changed(identity={"ticks_per_instruction": [1, 1]}), readings))
    assert "clock" not in named(examine(changed(identity={"timer": "clock_monotonic_raw"}), readings))


def test_ticks_that_hang_over_a_wrap_of_the_timer_are_found():
    wrap = 2**32
    inside = [*trials(), trial(OPS[5], [1000, 1010, wrap - 400, 1005, 1000, 1000])]
    trust = examine(manifest(), inside)
    assert [f.ops for f in trust.findings if f.name == "wrapped timer"] == [(OPS[5].key,)]
    assert trust.verdict is Verdict.STOP
    whole = [*trials(), trial(OPS[6], [1000] * 6, duration_s=1.01 * wrap / TIMER_HZ)]
    assert [f.ops for f in examine(manifest(), whole).findings if f.name == "wrapped timer"] == [(OPS[6].key,)]
    wide = changed(identity={"timer_bits": 64})
    assert "wrapped timer" not in named(examine(wide, whole))
    slow_link = [*trials(), trial(OPS[6], [1000] * 6, duration_s=5.0)]
    assert "wrapped timer" not in named(examine(manifest(), slow_link))


def test_steps_are_judged_by_the_sum_of_their_ops():
    step = {"type": "step", "plan": "p", "timed": [], "caches": "sequence"}
    rows = [[100 + 40 * (i % 5), 900] for i in range(40)]
    timed = trial(OPS[0], [], **step) | {"ticks": rows}
    record = changed(plan={"kind": "steps", "plans": {"p": {}, "q": {}}, "ops": []})
    trust = examine(record, [trial(EMPTY, [1], "empty"), timed])
    assert named(trust) == {"unsteady", "incomplete"}
    assert next(f for f in trust.findings if f.name == "incomplete").ops == ("q",)


# ------------------------------------------------------------------------------------- what the manifest tells


@pytest.mark.parametrize(
    ("record", "found", "weight"),
    [
        (changed(sittings={"outcome": "interrupted"}), "incomplete", Weight.CARE),
        (manifest(sittings=[]), "incomplete", Weight.CARE),
        (changed(plan={"ops": [*(op.key for op in OPS), "more"]}), "incomplete", Weight.CARE),
        (changed(plan={"caches": ["warm", "cold"]}), "incomplete", Weight.CARE),
        (manifest(not_measured=[{"op_key": "x", "reason": "does not fit"}]), "not measured", Weight.NOTE),
        (changed(sittings={"link": {"resets": 2}}), "restarts", Weight.CARE),
        (changed(sittings={"link": {"power_cycles": 1}}), "restarts", Weight.CARE),
        (changed(sittings={"link": {"frames_received": 900, "bad_crc": 30}}), "link", Weight.NOTE),
        (changed(sittings={"link": {"frames_sent": 900, "retries": 30}}), "link", Weight.NOTE),
        (changed(sittings={"changed": {"versions": {"torch": "1"}}}), "sittings differ", Weight.NOTE),
        (
            changed(sittings={"changed": {"host": {"name": "b"}}}) | {"port": "native://"},
            "sittings differ",
            Weight.CARE,
        ),
        (changed(sittings={"host": {"load_average": 3.5}}) | {"port": "native://"}, "busy host", Weight.NOTE),
        (changed(identity={"core": "Cortex-A53 (QEMU user mode)"}), "translated", Weight.STOP),
    ],
)
def test_what_a_manifest_says_against_a_run(record, found, weight):
    trust = examine(record, trials())
    assert [(f.name, f.weight) for f in trust.findings] == [(found, weight)]
    assert trust.findings[0].advice


def test_a_few_damaged_frames_of_many_are_nothing():
    link = {"frames_sent": 5000, "frames_received": 5000, "bad_crc": 4, "retries": 40}
    assert examine(changed(sittings={"link": link}), trials()).findings == ()


@pytest.mark.parametrize(
    ("status", "count", "weight"),
    [("wrong", 2, Weight.CARE), ("wrong", 8, Weight.STOP), ("failed", 8, Weight.CARE), ("refused", 1, Weight.CARE),
     ("stopped", 1, Weight.CARE)],
)  # fmt: skip
def test_ops_that_were_not_timed_are_named_with_the_reason(status, count, weight):
    bad = {op.key for op in OPS[:count]}
    rows = (t | {"status": status, "reason": "so it is", "ticks": []} if t["op_key"] in bad else t for t in trials())
    [finding] = examine(manifest(), rows).findings
    assert (finding.name, finding.weight, set(finding.ops)) == (status, weight, bad)
    assert "so it is" in finding.sentence


def test_a_run_without_empty_or_reference_trials_is_to_be_used_with_care():
    only_ops = [t for t in trials() if t["type"] == "op"]
    assert named(examine(manifest(), only_ops), Weight.CARE) == {"no empty op", "no reference"}
    emulated = changed(identity={"ticks_per_instruction": [1, 1]})
    assert named(examine(emulated, only_ops), Weight.NOTE) == {"no reference", "emulated"}
    assert examine(manifest(), []).verdict is Verdict.STOP


# --------------------------------------------------------------------------------------------------- on disk


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "run", list(trials(rounds=2)), {"schema": store.SCHEMA} | manifest())


def test_damaged_torn_and_repeated_lines_and_other_builds_are_found(folder):
    assert examine_run(folder).findings == ()
    path = folder / store.TRIALS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines)[:-9])
    assert named(examine_run(folder)) == {"torn"} and examine_run(folder).verdict is Verdict.TRUSTWORTHY
    path.write_bytes(b"".join([*lines, lines[3]]))
    assert named(examine_run(folder)) == {"repeated"}
    damaged = [line.replace(b'"ok"', b'"oh"') if i in (7, 50) else line for i, line in enumerate(lines)]
    path.write_bytes(b"".join(damaged))
    assert named(examine_run(folder), Weight.CARE) == {"damaged"}
    path.write_bytes(b"".join(line.replace(b'"ok"', b'"oh"') if i % 9 == 1 else line for i, line in enumerate(lines)))
    assert named(examine_run(folder), Weight.STOP) == {"damaged"}
    path.write_bytes(b"".join(lines))
    with store.Run.open(folder) as run:
        run.append(trial(OPS[0], [1] * 6, build_hash="b2"))
    trust = examine_run(folder)
    assert named(trust, Weight.CARE) == {"mixed builds"}
    assert trust.evidence.timings[OPS[0].key, "warm"].count == 12  # and not counted


def test_memory_grows_with_the_ops_and_not_with_the_trials():
    evidence = Evidence(TIMER_HZ, 32)
    for i in range(20_000):
        evidence.add(trial(OPS[0], [10**6 + i] * 6, duration_s=3.0))
        evidence.add(trial(REFERENCE, [i] * 3, "reference"))
    [readings], [series] = evidence.timings.values(), evidence.references.values()
    assert len(readings.values) == MOST_READINGS and readings.count == 120_000
    assert np.median(readings.values) == pytest.approx(10**6 + 10_000, abs=1500)  # a sample of all of them
    assert MOST_REFERENCES / 2 <= len(series.values) <= MOST_REFERENCES and series.count == 20_000
    steps = np.diff(series.values)
    assert (steps == steps[0]).all() and series.values[0] == 0 and series.values[-1] > 19_900
    assert len(evidence.long_trials_s) <= 200


def test_the_command_says_what_was_found_and_what_to_do(folder):
    status, out, err = profile("check", folder)
    assert (status, err) == (0, "") and out.startswith("trustworthy: ")
    write(folder.parent / "other", list(trials(speed=lambda share: 1 + share)), {"schema": store.SCHEMA} | manifest())
    status, out, err = profile("check", folder.parent / "other")
    assert status == 1 and out.startswith("do not use: ")
    assert "stop: the reference op drifted by +" in out and "→ something else ran on the device" in out
    status, out, err = profile("check", folder.parent / "other", "--json")
    record = json.loads(out)
    assert (status, record["verdict"]) == (1, "do not use")
    [found] = [finding for finding in record["findings"] if finding["name"] == "drift"]
    assert found["figures"]["drift"] == pytest.approx(0.5, rel=0.3)


def test_the_command_on_what_is_no_run_is_one_sentence(tmp_path):
    status, out, err = profile("check", tmp_path)
    assert (status, out) == (1, "") and "holds no run" in err
    with pytest.raises(UserError, match=r"cannot read .*trials.jsonl"):
        (tmp_path / "manifest.json").write_text(json.dumps({"schema": store.SCHEMA} | manifest()))
        examine_run(tmp_path)


def test_a_long_run_says_how_far_reading_it_is(tmp_path, monkeypatch):
    folder = write(tmp_path / "run", list(trials(rounds=50)), {"schema": store.SCHEMA} | manifest())
    size = (folder / store.TRIALS).stat().st_size
    told = []
    examine_run(folder, told.append)
    assert len(told) == 3 and told == sorted(set(told)) and told[0] < 0.1 * size < 0.7 * size < told[-1] <= size
    monkeypatch.setattr(cli_support, "PlainTicker", functools.partial(cli_support.PlainTicker, every_s=0.0))
    assert f"of {size / 1e3:.0f}, about" in profile("check", folder)[2]
    monkeypatch.setattr(command, "_MEGABYTES_FROM", size)
    assert f"reading, MB: 0 of {size / 1e6:.0f}" in profile("check", folder)[2]
