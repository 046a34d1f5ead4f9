"""Designs: what they measure, what they never choose, when they end, and going on after a stop."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
from fake_device import RIGHT, identity

from profiler import kernels, store, store_tables
from profiler.commands.design_options import parse_duration, parse_share
from profiler.errors import UserError
from profiler.measure.chosen import Pace
from profiler.measure.design import Design
from profiler.measure.design_terms import LEAST_JUDGED, DesignName, Goal, Judgement, Outcome
from profiler.measure.first_ops import LEAST_EACH, MOST_UNITS_FIRST, first_ops
from profiler.measure.schedule import Policy
from profiler.measure.sitting import manifest
from profiler.ops import Op, Pass
from profiler.workloads.op_space import Family, OpSpace, work_units
from profiler.workloads.program import DeviceMemory

FAMILIES = (
    Family("depthwise", Pass.FORWARD, "f32"),
    Family("linear", Pass.GRAD_WEIGHT, "f32", trains="out"),
    Family("global_avg_pool", Pass.FORWARD, "f32"),
)


class KilledError(Exception):
    """What stops a device in the middle."""


class CountingDevice:
    """Takes 20 ticks and one a unit of work; nothing goes wrong until ``calls_left`` runs out."""

    def __init__(self, calls_left: float = float("inf")) -> None:
        self.identity = identity()
        self.memory = DeviceMemory.of(self.identity)
        self.arena_region = "RAM"
        self.statistics = SimpleNamespace(to_dict=dict)
        self.boot_id, self.restarts = 1, ()
        self.calls_left = calls_left
        self.timed: list[str] = []

    def run(self, program, repetitions, warmups=0, seed=1, *, cold=False, expected_s=None):
        self.calls_left -= 1
        if self.calls_left < 0:
            raise KilledError
        op = program.timed[0][1]
        if repetitions:
            self.timed.append(op.key)
        ticks = 20 + (0 if op.kind == "empty" else work_units(op))
        return SimpleNamespace(
            ticks=np.full((repetitions, 1), ticks, np.uint64),
            arena_peak_bytes=program.arena_bytes,
            scratch_peak_bytes=program.scratch_bytes,
            stack_peak_bytes=8,
            wire_bytes=90,
            duration_s=0.01,
            stop=None,
        )

    def state(self):
        return None

    def digest(self, place, words):
        return RIGHT.digest


class Chooser:
    """Takes the first candidates of each family, and is wrong by as much as it is told."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.learned: list[list[Op]] = []
        self.offered: set[Op] = set()

    def learn(self):
        assert self.learned

    def observe(self, known):
        assert [20 + work_units(op) for op in known.ops] == pytest.approx((20 + known.latency_us * 1e3).tolist())
        self.learned.append(list(known.ops))

    def predict(self, ops):
        return np.array([work_units(op) * (1 + self.error) for op in ops]) / 1e3

    def choose(self, candidates, errors, *, weights, seconds, budget_s):
        assert weights.keys() == candidates.keys()
        for ops in candidates.values():
            self.offered |= set(ops)
        assert (seconds(np.ones(1)) > 0).all()
        return [ops[0] for ops in candidates.values() if ops]


def aside(op: Op) -> bool:
    return store_tables.set_aside(op.kind, op.geometry.values())


def make(run, device, **options) -> Design:
    settings = {"name": DesignName.SPACE_FILLING, "goal": Goal(most_ops=30)} | options
    space = OpSpace(FAMILIES, device.memory, 7)
    return Design(
        device,
        run,
        space,
        Policy(warm_ups=0, repetitions=2),
        7,
        sets_aside=aside,
        expected=lambda program: {output.name: RIGHT for output in program.outputs},
        **settings,
    )


def begin(folder, device) -> store.Run:
    return store.Run.create(folder, manifest(device, "fake://", {"network": None, "ops": []}, Policy(), []))


def measured_ops(run) -> dict[str, bool]:
    return {t["op_key"]: bool(t.get("held_out")) for t in run.trials if t["type"] == "op"}


@pytest.mark.parametrize("name", [DesignName.SPACE_FILLING, DesignName.ACTIVE])
def test_a_design_measures_as_many_as_wanted_of_every_family_and_some_that_are_held_out(tmp_path, name) -> None:
    device = CountingDevice()
    with begin(tmp_path / "run", device) as run:
        design = make(run, device, name=name, chooser=Chooser() if name is DesignName.ACTIVE else None)
        assert design.measure() is Outcome.COUNT
        ops = measured_ops(run)
        assert sum(not held for held in ops.values()) == 30
        assert 3 <= sum(ops.values()) <= 12
        assert len(ops) == sum(t["type"] == "op" for t in run.trials)
        families = [Family.of(Op.from_dict(t["op"])) for t in run.trials if t["type"] == "op" and not t.get("held_out")]
        assert all(families.count(family) >= 6 for family in FAMILIES)
        assert run.manifest["plan"]["ops"] == list(ops)
        record = run.manifest["design"]
        assert (record["outcome"], record["pending"]) == ("number of ops reached", [])
        assert record["batches"][-1]["chosen"] == 30
    table = store.load(tmp_path / "run")
    assert set(table[table.held_out].op_key) == {key for key, held in ops.items() if held}


def test_the_first_batch_enters_every_loop_of_every_kernel(tmp_path) -> None:
    device = CountingDevice()
    with begin(tmp_path / "run", device) as run:
        design = make(run, device, goal=Goal(most_ops=24))
        design.measure()
        chosen = run.manifest["design"]["batches"][0]["chosen"]
        ops = [Op.from_dict(t["op"]) for t in run.trials if t["type"] == "op" and not t.get("held_out")][:chosen]
        for family in FAMILIES:
            drawn = itertools.islice((op for op in design.space.draw(family, "candidates") if not aside(op)), 96)
            wanted = {name for op in drawn for name, count in kernels.work(op).items() if count}
            own = [op for op in ops if Family.of(op) == family]
            assert {name for op in own for name, count in kernels.work(op).items() if count} == wanted
            assert 2 <= len(own) <= 10


#: Families of the kernels that a training step is made of, and some that take little of it.
STEP_FAMILIES = (
    *(Family("conv2d", pass_, dtype) for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT) for dtype in ("f32", "s8")),
    *(Family("conv2d", Pass.GRAD_WEIGHT, "f32", trains=trains) for trains in ("out", "in", "bias")),
    *(Family("conv2d", Pass.UPDATE, "f32", trains="out", optimizer=optimizer) for optimizer in ("sgd", "adam")),
    *(Family("depthwise", pass_, "f32") for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)),
    Family("linear", Pass.FORWARD, "f32"),
    Family("relu", Pass.FORWARD, "f32"),
    Family("softmax_cross_entropy", Pass.FORWARD, "f32"),
)


@pytest.fixture(scope="module")
def pools() -> dict[Family, list[Op]]:
    memory = DeviceMemory(arena_bytes=2**21, blob_bytes=2**20, blob_seed=5, blob_segments=(128, 125), entry_bytes=96)
    space = OpSpace(STEP_FAMILIES, memory, seed=3)
    return {family: list(itertools.islice(space.draw(family, "candidates"), 60)) for family in STEP_FAMILIES}


def test_of_what_is_measured_first_any_number_spans_kernels_and_sizes(pools) -> None:
    first = first_ops(pools)
    assert len(set(first)) == len(first)
    families = [Family.of(op) for op in first]
    main = {(f.kind, f.pass_, f.dtype) for f in STEP_FAMILIES if f.kind == "conv2d" and f.pass_ is not Pass.UPDATE}
    units = [work_units(op) for op in first]
    for n in range(len(STEP_FAMILIES), len(first) + 1):
        assert main <= {(f.kind, f.pass_, f.dtype) for f in families[:n]}
        assert max(units[:n]) > 100 * min(units[:n])
        assert sum(unit > 10_000 for unit in units[:n]) >= n / 8
        # None has more than a fair part: what is known well is not worth more.
        assert max(map(families[:n].count, STEP_FAMILIES)) <= 0.3 * n
    assert all(families.count(family) >= LEAST_EACH for family in STEP_FAMILIES)


def test_what_is_measured_first_foretells_the_others_better_than_small_ops_or_ops_by_chance(pools) -> None:
    """Costs of which a design knows no more than the order of a call's and a loop's turn, found from a few ops."""
    family = Family("conv2d", Pass.GRAD_INPUT, "f32")
    pool = pools[family]
    order = {"calls": 50.0, "bytes_read": 0.05, "bytes_written": 0.05}
    counts = {op: np.array([n * order.get(name, 1.0) for name, n in kernels.work(op).items()]) for op in pool}

    def error(measured) -> float:
        found, rng = [], np.random.default_rng(4)
        for _ in range(20):
            unit = rng.lognormal(0, 0.5, len(counts[pool[0]]))
            shares = np.array([counts[op] / (counts[op] @ unit) for op in measured])
            precision = shares.T @ shares / 0.01**2 + np.eye(len(unit)) / 0.5**2
            costs = np.linalg.solve(precision, shares.sum(axis=0) / 0.01**2 + 1 / 0.5**2)
            found += [abs(counts[op] @ costs / (counts[op] @ unit) - 1) for op in pool if op not in measured]
        return float(np.mean(found))

    chosen = first_ops({family: pool})
    small = sorted(pool, key=work_units)
    for n in (1, 2, 3, 4, 6):
        by_chance = [error(random.Random(i).sample(pool, n)) for i in range(15)]
        assert error(chosen[:n]) < 0.9 * min(error(small[:n]), np.median(by_chance))


def test_what_takes_long_is_left_for_later_unless_there_is_nothing_else(pools) -> None:
    family = STEP_FAMILIES[0]
    large = [op for op in pools[family] if work_units(op) > MOST_UNITS_FIRST]
    assert large and not set(large) & set(first_ops({family: pools[family]})[:3])
    assert set(first_ops({family: large})) <= set(large)
    assert len(first_ops({family: large})) >= LEAST_EACH


@pytest.mark.parametrize("stops", [(4,), (2, 5, 8)])
def test_a_design_that_ended_early_goes_on_with_what_it_would_have_measured_first(tmp_path, stops) -> None:
    found = []
    for number, limits in enumerate([(10,), (*stops, 10)]):
        device = CountingDevice()
        with begin(tmp_path / str(number), device) as run:
            for limit in limits:
                make(run, device, goal=Goal(most_ops=limit)).measure()
                assert sum(not held for held in measured_ops(run).values()) == limit
            found.append({key for key, held in measured_ops(run).items() if not held})
    assert found[0] == found[1]


def test_a_limit_holds_for_held_out_ops_in_proportion(tmp_path) -> None:
    device = CountingDevice()
    with begin(tmp_path / "run", device) as run:
        make(run, device, goal=Goal(most_ops=5)).measure()
        assert sum(measured_ops(run).values()) == 1


def test_no_geometry_of_a_held_out_op_is_ever_offered_or_learned(tmp_path) -> None:
    device, chooser = CountingDevice(), Chooser()
    with begin(tmp_path / "run", device) as run:
        make(run, device, name=DesignName.ACTIVE, chooser=chooser).measure()
        held = {Op.from_dict(t["op"]).geometry for t in run.trials if t.get("held_out")}
    assert held
    assert not held & {op.geometry for op in chooser.offered}
    assert not held & {op.geometry for ops in chooser.learned for op in ops}


def test_the_held_out_ops_do_not_depend_on_what_is_chosen(tmp_path) -> None:
    found = []
    for name, chooser in ((DesignName.SPACE_FILLING, None), (DesignName.ACTIVE, Chooser())):
        device = CountingDevice()
        with begin(tmp_path / name, device) as run:
            make(run, device, name=name, chooser=chooser).measure()
            found.append({key for key, held in measured_ops(run).items() if held})
    assert found[0] == found[1]


def test_an_active_design_ends_at_its_target_and_not_before_it_can_tell(tmp_path) -> None:
    device = CountingDevice()
    with begin(tmp_path / "run", device) as run:
        design = make(run, device, name=DesignName.ACTIVE, chooser=Chooser(0.02), goal=Goal(60.0, 0.03))
        assert design.measure() is Outcome.TARGET
        held = [Family.of(Op.from_dict(t["op"])) for t in run.trials if t.get("held_out")]
        assert all(held.count(family) >= LEAST_JUDGED for family in FAMILIES)
        assert run.manifest["design"]["batches"][-1]["error"] == pytest.approx(0.02)
    with begin(tmp_path / "other", device) as run:
        goal = Goal(60.0, 0.03, most_ops=40)
        assert make(run, device, name=DesignName.ACTIVE, chooser=Chooser(0.04), goal=goal).measure() is Outcome.COUNT


def test_time_ends_a_design_and_the_plan_has_what_was_measured(tmp_path) -> None:
    device = CountingDevice()
    with begin(tmp_path / "run", device) as run:
        design = make(run, device, goal=Goal(0.6))
        assert design.measure() is Outcome.TIME
        assert 0.6 <= design.spent_s < 5
        assert set(run.manifest["plan"]["ops"]) == set(measured_ops(run))


@pytest.mark.parametrize("name", [DesignName.SPACE_FILLING, DesignName.ACTIVE])
def test_however_often_it_is_stopped_nothing_is_measured_twice(tmp_path, name) -> None:
    device, rng = CountingDevice(), random.Random(1)
    run = begin(tmp_path / "run", device)
    for _ in range(200):
        device.calls_left = rng.randint(1, 25)
        try:
            # What a killed process leaves is what is on disk: nothing is written on the way out.
            with store.Run.open(tmp_path / "run") if run is None else run as run:
                make(run, device, name=name, chooser=Chooser() if name is DesignName.ACTIVE else None).measure()
            break
        except KilledError:
            run = None
    assert run is not None
    slots = [trial["slot"] for trial in run.trials]
    assert len(set(slots)) == len(slots)
    ops = [t["op_key"] for t in run.trials if t["type"] == "op"]
    assert len(set(ops)) == len(ops)
    assert sum(not held for held in measured_ops(run).values()) == 30


def test_time_of_earlier_sittings_counts_and_the_time_between_them_does_not(tmp_path) -> None:
    device = CountingDevice(40)
    with begin(tmp_path / "run", device) as run, pytest.raises(KilledError):
        make(run, device).measure()
    with store.Run.open(tmp_path / "run") as run:
        record = run.manifest["design"]
        run.write_manifest(design=record | {"spent_s": 100.0, "batch_began_at": "2020-01-01T00:00:00+00:00"})
        late = make(run, device)
        assert late.spent_s > 1e8  # the trials lie years after the batch began: they are what tells
        run.write_manifest(design=record | {"spent_s": 100.0, "batch_began_at": "2999-01-01T00:00:00+00:00"})
        assert make(run, device).spent_s == pytest.approx(100, abs=1)


def test_pace_is_what_each_op_takes_and_what_its_latency_adds() -> None:
    latency = np.array([1.0, 10, 100, 1000, 2000, 4000, 50, 70])
    pace = Pace.of(latency, 0.02 + 3e-6 * latency)
    assert pace.seconds([0, 1000]) == pytest.approx([0.02, 0.023], rel=1e-6)


def test_a_judgement_has_room_for_chance() -> None:
    judged = Judgement.of([0.01, -0.03])
    assert (judged.n, judged.error) == (2, pytest.approx(0.02))
    assert judged.upper == pytest.approx(0.02 + 1.645 * 0.01)
    assert Judgement.of([0.01]).upper == float("inf")
    assert list(itertools.islice(Judgement.of([0.02] * 3).__dict__.values(), 3))[2] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("45", 45), ("0.5 m", 30), ("2min", 120)],
)
def test_durations(text, seconds) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5 weeks", "-5m", "0s", "5m!", "nan", "inf", "1e3"])
def test_what_is_no_duration(text) -> None:
    with pytest.raises(UserError, match="no duration"):
        parse_duration(text)


def test_shares() -> None:
    assert parse_share("3%") == parse_share(" 0.03") == pytest.approx(0.03)
    for text in ("3", "0", "100%", "three", "nan", "3%%", ""):
        with pytest.raises(UserError, match="no share"):
            parse_share(text)
