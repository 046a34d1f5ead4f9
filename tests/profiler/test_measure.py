"""Measuring: order, repetition, verification before timing, going on after a stop."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from profiler import prng, reference, store
from profiler.devices.identity import Identity, MemoryRegion
from profiler.errors import UserError
from profiler.link.errors import DeviceReset, Refused
from profiler.measure.loop import Loop, drift, unsteady
from profiler.measure.schedule import EMPTY, Policy, reference_op, round_slots
from profiler.measure.sitting import manifest, open_run, split
from profiler.measure.statistics import identical, mad, median, median_interval, relative_interval
from profiler.measure.steps import check_outputs, foreseen, starting_values, verdict
from profiler.measure.verify import Ahead, Expected, Verdict
from profiler.ops import GEOMETRIES, PASS_CODES, Conv2d, Depthwise, Op, Pass, Relu
from profiler.workloads.lower import lower
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import DeviceMemory, step_program
from profiler.workloads.step import training_step

OPS = [Op(Relu(n), pass_) for n in range(1, 13) for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)]
OPS += [Op(Conv2d(8, 8, c, 4, 3, 3), Pass.FORWARD) for c in range(1, 7)]
ALL = tuple(g.code << 8 | PASS_CODES[p] << 4 for g in GEOMETRIES.values() for p in g.passes)


def identity(**changes):
    fields = {
        "protocol": 1,
        "board": "qemu-test",
        "core": "cortex-m4f",
        "unique_id": "",
        "clock_hz": 10**8,
        "timer": "tim2",
        "timer_hz": 10**9,
        "timer_bits": 32,
        "ticks_per_instruction": (1, 1),
        "caches": "",
        "flash_wait_states": 0,
        "fpu": "",
        "memory": (MemoryRegion("RAM", 120_000, 0, False),),
        "blob_bytes": 65536,
        "blob_seed": 5,
        "blob_exponents": (128, 125),
        "largest_frame_bytes": 1024,
        "largest_program": 256,
        "entry_bytes": 96,
        "capabilities": ALL,
        "firmware_version": "1",
        "build_hash": "build1",
        "compiler": "gcc",
        "flags": "",
    }
    return Identity(**fields | changes)


RIGHT = Expected((1.0, 2.0, 3.0, 4.0), 2.0)


class FakeDevice:
    """Answers at once; what it is asked is in ``asked``. ``stop_after`` calls it behaves as told by ``stop``."""

    def __init__(self, *, wrong=(), errors=None, stop_after=None, stop=KeyboardInterrupt, ticks=None, **changes):
        self.identity = identity(**changes)
        self.memory = DeviceMemory.of(self.identity)
        self.statistics = SimpleNamespace(to_dict=dict)
        self.asked = []
        self._wrong, self._errors = set(wrong), errors or {}
        self._calls_left, self._stop = stop_after, stop
        self._ticks = ticks or (lambda key: len(key) * 10)
        self._key = ""

    def _count(self):
        if self._calls_left is not None:
            self._calls_left -= 1
            if self._calls_left < 0:
                raise self._stop

    def run(self, program, repetitions, warmups=0, seed=1):
        self._count()
        self._key = program.key
        self.asked.append(("time" if repetitions else "verify", program.key))
        if repetitions and program.key in self._errors:
            raise self._errors[program.key]
        ticks = np.array([[self._ticks(program.key)] for _ in range(repetitions)], dtype=np.uint64)
        return SimpleNamespace(
            ticks=ticks, arena_peak_bytes=9, scratch_peak_bytes=1, stack_peak_bytes=2, wire_bytes=90, duration_s=0.01
        )

    def digest(self, place, words):
        self._count()
        return (1.0, 2.0, 3.0, 4.001) if self._key in self._wrong else (1.0, 2.0, 3.0, 4.0)


def fake_programs(ops):
    output = SimpleNamespace(name="output", reference=0, words=4)
    return {op: SimpleNamespace(key=op.key, outputs=[] if op == EMPTY else [output]) for op in (EMPTY, *ops)}


def make_loop(device, run, ops=OPS, policy=None, seed=3):
    policy = policy or Policy.for_device(device.identity)
    return Loop(device, run, fake_programs(ops), policy, seed, expected=lambda program: {"output": RIGHT})


def fresh(device, **plan):
    return manifest(device, "fake://", {"network": "net", "ops": [1]} | plan, Policy(), [])


def measured(tmp_path, device, **settings_):
    """A run from begin to end; its trials."""
    with store.Run.create(tmp_path / f"run{random.random()}", fresh(device)) as run:
        make_loop(device, run, **settings_).measure()
        return run.trials


# ------------------------------------------------------------------ statistics


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_median_and_mad_are_numpys(values):
    assert median(values) == np.median(values)
    assert mad(values) == np.median(np.abs(np.array(values) - np.median(values)))


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_the_interval_covers_the_median_with_95_percent_and_no_narrower_one_does(n):
    interval = median_interval(list(range(n)))
    if interval is None:
        assert n < 6
        return
    rank = int(interval[0]) + 1
    assert interval[1] == n - rank
    assert 1 - 2 * binom.cdf(rank - 1, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(rank, n, 0.5) < 0.95


def test_few_or_scattered_values_are_not_tight_and_equal_ones_are():
    assert relative_interval([5, 6, 7]) == float("inf")
    assert relative_interval([5, 5]) == 0
    assert relative_interval([100] * 20 + [101]) == 0
    assert relative_interval(list(range(50, 150))) > 0.05
    assert not identical([7])
    assert identical([7, 8], tolerance=1)


# ------------------------------------------------------------------ schedule


def test_the_same_seed_gives_the_same_order_and_another_seed_or_round_another():
    def order(seed, round_=0):
        return [slot.name for slot in round_slots(OPS, OPS[0], round_, Policy(), seed)]

    assert order(1) == order(1)
    names = {tuple(name.split("|")[1] for name in order(*key)) for key in ((1, 0), (2, 0), (1, 1))}
    assert len(names) == 3


def test_every_op_is_in_a_round_once_the_empty_op_first_and_the_reference_op_throughout():
    slots = list(round_slots(OPS, OPS[0], 0, Policy(reference_every=10), 1))
    assert len({slot.name for slot in slots}) == len(slots)
    assert slots[0].type == "empty"
    assert sorted(slot.op.key for slot in slots if slot.type == "op") == sorted(op.key for op in OPS)
    places = [index for index, slot in enumerate(slots) if slot.type == "reference"]
    assert places[0] == 1
    assert places[-1] == len(slots) - 1
    assert max(np.diff(places)) <= 11


def test_the_reference_op_has_macs_where_any_has():
    assert reference_op(OPS).kind == "conv2d"
    assert reference_op(OPS[:4]) in OPS[:4]


def test_emulated_ops_are_done_after_one_round_of_identical_ticks_and_not_before_three_otherwise():
    policy = Policy.for_device(identity())
    assert policy.done([50, 50, 50], 1, 0.0)
    assert not policy.done([50, 60, 70], 1, 0.0)
    assert policy.done([50, 60, 70], 3, 0.0)


def test_on_linux_the_repetitions_are_spread_over_ten_rounds_or_more_and_end_with_the_time():
    linux = identity(board="linux-native", ticks_per_instruction=(0, 1))
    policy = Policy.for_device(linux)
    assert policy.rounds_min >= 10
    assert not policy.done([50] * 27, 9, 0.0)
    assert policy.done([50] * 30, 10, 0.0)
    scattered = list(range(10, 60))
    assert not policy.done(scattered, 10, 0.1)
    assert policy.done(scattered, 10, policy.time_per_op_s)
    asked = Policy.for_device(linux, repetitions=30)
    assert asked.repetitions * asked.rounds_min == 30


# ------------------------------------------------------------------ loop


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


def test_on_linux_trials_of_an_op_are_not_back_to_back(tmp_path):
    device = FakeDevice(board="linux-native", ticks_per_instruction=(0, 1))
    trials = [t for t in measured(tmp_path, device) if t["type"] == "op"]
    places = [index for index, t in enumerate(trials) if t["op_key"] == OPS[0].key]
    assert len(places) == 10
    assert np.median(np.diff(places)) > 5


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
@given(stops=st.lists(st.integers(0, 60), max_size=4), linux=st.booleans())
def test_however_often_it_is_stopped_and_gone_on_with_the_trials_are_the_same_and_none_is_there_twice(
    tmp_path_factory, stops, linux
):
    folder = tmp_path_factory.mktemp("resume") / "run"
    changes = {"board": "linux-native", "ticks_per_instruction": (0, 1)} if linux else {}
    ops = OPS[:8]
    clean = measured(folder.parent, FakeDevice(wrong=[OPS[2].key], **changes), ops=ops)
    for stop_after in [*stops, None]:
        device = FakeDevice(wrong=[OPS[2].key], stop_after=stop_after, **changes)
        with open_run(folder, resume=True, fresh=fresh(device)) as run:
            try:
                make_loop(device, run, ops).measure()
            except KeyboardInterrupt:
                continue
    trials = list(store.iterate(folder))
    slots = [t["slot"] for t in trials]
    assert len(set(slots)) == len(slots)
    assert sorted(slots) == sorted(t["slot"] for t in clean)
    assert {t["slot"]: t["ticks"] for t in trials} == {t["slot"]: t["ticks"] for t in clean}


def test_drift_compares_the_first_third_of_the_reference_trials_with_the_last():
    def trial(ticks):
        return {"type": "reference", "status": "ok", "ticks": [9999, ticks, ticks], "warm_ups": 1, "rejected": []}

    assert drift([trial(100)] * 9) == 0
    assert drift([trial(t) for t in (100, 100, 500, 100, 100, 100, 110, 110, 110)]) == pytest.approx(0.1)
    assert drift([]) == 0


def test_an_op_is_called_unsteady_where_enough_repetitions_disagree():
    def trial(key, ticks):
        return {"type": "op", "op_key": key, "status": "ok", "ticks": ticks, "warm_ups": 0, "rejected": []}

    trials = [trial("steady", [100] * 9), trial("few", [1, 9])]
    trials += [trial("wild", [10, 20, 30, 40]), trial("wild", [50, 60])]
    assert unsteady(trials, Policy()) == ["wild"]


# ------------------------------------------------------------------ going on with a run


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


# ------------------------------------------------------------------ verification


def test_a_verdict_on_nothing_but_finite_small_errors_is_right():
    assert Verdict(1e-6, "output").right
    assert not Verdict(2e-5, "output").right
    assert not Verdict(float("nan"), "output").right


def test_an_error_is_relative_to_the_reference_and_absolute_where_that_is_zero():
    assert RIGHT.error((1.0, 2.0, 3.0, float("nan"))) == float("inf")
    assert Expected.of(np.zeros(3)).error((0, 0, 0.5, 0)) == 0.5


def test_references_come_in_any_order_and_their_errors_where_they_are_asked_for():
    def compute(program):
        if program == 7:
            raise ValueError("seven")
        return program * 10

    with Ahead([(str(i), i) for i in range(20)], compute) as ahead:
        assert ahead.get("3", 3) == 30
        assert ahead.get("0", 0) == 0
        assert ahead.get("19", 19) == 190
        with pytest.raises(ValueError, match="seven"):
            ahead.get("7", 7)
        assert ahead.get("8", 8) == 80


class _Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.b = torch.nn.Conv2d(4, 6, 1)

    def forward(self, x):
        return torch.flatten(torch.nn.functional.adaptive_avg_pool2d(self.b(torch.relu(self.a(x))), 1), 1)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_whose_weights_did_not_move_or_moved_wrongly_is_wrong(optimizer):
    network = lower(_Net(), (3, 8, 8), "net")
    layers = {layer.name: LayerPlan((0, 2)) for layer in network.trainable}
    plan = StepPlan.for_network(network, layers, images=2, optimizer=optimizer)
    memory = FakeDevice().memory
    program = step_program(training_step(network, plan), memory)
    expected = reference.expected(program, 1, memory)
    weight = next(output for output in program.outputs if output.name.endswith("weight"))
    by_place = {output.reference: output.name for output in program.outputs}

    def device_with(values):
        return lambda place, words: prng.digest((expected | values)[by_place[place]].astype(np.float32))

    assert verdict(check_outputs(program, expected, device_with({}), 1)).right
    before = starting_values(program, 1)[weight.name]
    for values in (before, before + 0.9 * (expected[weight.name] - before), expected[weight.name] * np.nan):
        found = verdict(check_outputs(program, expected, device_with({weight.name: values}), 1))
        assert not found.right
        assert found.worst == weight.name


def test_notes_that_hold_no_figures_foresee_nothing():
    plan = StepPlan("net", (3, 8, 8), "f", {}, notes={"predicted": "soon", "budget": {"latency_ms": "5"}})
    assert set(foreseen(plan).values()) == {None}
    plan = StepPlan("net", (3, 8, 8), "f", {}, notes={"predicted": {"latency_ms": 5}, "cost_source": "fitted"})
    assert foreseen(plan)["predicted_latency_ms"] == 5
    assert foreseen(plan)["predicted_by"] == "fitted"
