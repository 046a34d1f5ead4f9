"""Which ops an active design chooses: what it knows of errors, and that it is worth it."""

from __future__ import annotations

import itertools
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from costmodels.active import ActiveChooser, Belief, expected_errors
from costmodels.features import geometry_features, work_terms
from profiler import kernels
from profiler.measure.chosen import Known
from profiler.ops import Op, Pass
from profiler.workloads.op_space import Family, OpSpace
from profiler.workloads.program import DeviceMemory

MEMORY = DeviceMemory(arena_bytes=120_000, blob_bytes=65_536, blob_seed=5, blob_segments=(128, 125), entry_bytes=96)
DEPTHWISE = Family("depthwise", Pass.FORWARD, "f32")
RELU = Family("relu", Pass.FORWARD, "f32")
SPACE = OpSpace((DEPTHWISE, RELU), MEMORY, seed=2)


def draw(family: Family, count: int, stream: str = "candidates") -> list[Op]:
    return list(itertools.islice(SPACE.draw(family, stream), count))


def cost(ops) -> np.ndarray:
    """Unit costs that differ by term, times a factor that depends on the geometry: what no work count tells."""
    values = []
    for op in ops:
        counts = kernels.work(op)
        value = sum((i % 5 + 1) * count for i, count in enumerate(counts.values()))
        values.append(value * (1 + 0.02 * np.sin(np.log(op.geometry.values()[0]))) / 1e3)
    return np.array(values)


def choose(
    chooser, candidates, budget_s, errors=None, *, seconds=lambda us: np.ones(len(us)), weights=None
) -> list[Op]:
    weights = {family: 1.0 for family in candidates} | (weights or {})
    return chooser.choose(candidates, errors or {}, weights=weights, seconds=seconds, budget_s=budget_s)


def learn(chooser, ops) -> None:
    chooser.observe(Known(list(ops), cost(ops), np.zeros(len(ops))))
    chooser.learn()


def belief(measured, rest, scatter=0.05) -> Belief:
    ops = [*measured, *rest]
    what = (work_terms(ops, kernels.work)[1], geometry_features(ops), cost(ops), np.zeros(len(ops)))
    return Belief(*what, n_measured=len(measured), n_own=len(measured), scatter=scatter)


def test_gains_are_what_measuring_then_does_to_the_variance() -> None:
    ops = draw(DEPTHWISE, 30)
    for index in (0, 7, 20):
        now = belief(ops[:5], ops[5:])
        gain = now.gains()[index]
        before = now.error
        now.measure(index)
        assert before - now.error == pytest.approx(gain, rel=1e-6)
        # The same by conditioning on it from the start.
        rest = [op for i, op in enumerate(ops[5:]) if i != index]
        later = belief([*ops[:5], ops[5 + index]], rest)
        left = np.delete(np.diag(now.covariance), index)
        assert np.diag(later.covariance) == pytest.approx(left, rel=1e-6, abs=1e-9)


def test_what_is_measured_already_is_worth_nothing_more() -> None:
    ops = draw(DEPTHWISE, 25)
    gains = belief(ops[:12], ops).gains()
    assert gains[:12].max() < 0.1 * gains[12:].max()


def test_an_op_with_a_loop_that_no_measured_op_enters_is_worth_most() -> None:
    ops = draw(DEPTHWISE, 150)
    names = list(kernels.work(ops[0]))
    counts = np.array([list(kernels.work(op).values()) for op in ops])
    rare = int(np.argmin(np.where((counts > 0).sum(axis=0) > 5, (counts > 0).sum(axis=0), 999)))
    without = [op for op, row in zip(ops, counts, strict=True) if not row[rare]][:40]
    rest = [op for op in ops if op not in without]
    gains = belief(without, rest).gains()
    best = rest[int(np.argmax(gains))]
    assert kernels.work(best)[names[rare]] > 0


def test_what_is_left_out_is_foretold_from_the_others() -> None:
    ops = draw(DEPTHWISE, 60)
    few, many = belief(ops[:6], ops[40:]), belief(ops[:40], ops[40:])
    assert many.left_out_error < 0.5 * few.left_out_error
    # The same by leaving each out: the mean of a process whose values are all 1, at the one that is left out.
    rest, errors = ops[50:], []
    whole = belief(ops[:8], rest)
    for i in range(8):
        others = [op for j, op in enumerate(ops[:8]) if j != i]
        prior = belief([], [ops[i], *others, *rest]).covariance
        measured = prior[1:8, 1:8] + whole.noise * np.eye(7)
        errors.append(1 - prior[0, 1:8] @ np.linalg.solve(measured, np.ones(7)))
    assert whole.left_out_error == pytest.approx(np.abs(errors).mean(), rel=1e-6)


def test_expected_errors_are_drawn_towards_the_others() -> None:
    errors = {DEPTHWISE: [0.1] * 9, RELU: []}
    expected = expected_errors({DEPTHWISE: (), RELU: ()}, errors)
    assert expected[DEPTHWISE] == pytest.approx(0.1)
    assert expected[RELU] == pytest.approx(0.1)
    lone = expected_errors({DEPTHWISE: (), RELU: ()}, {DEPTHWISE: [0.0] * 9, RELU: [9.0]})
    assert lone[RELU] < 0.5
    assert expected_errors({RELU: ()}, {}) == {RELU: pytest.approx(0.03)}


def test_a_family_that_is_foretold_badly_gets_more_and_cheap_ops_are_preferred() -> None:
    chooser = ActiveChooser()
    candidates = {family: draw(family, 40, "more") for family in (DEPTHWISE, RELU)}
    learn(chooser, [*draw(DEPTHWISE, 6), *draw(RELU, 6)])
    errors = {DEPTHWISE: [0.2] * 5, RELU: [0.001] * 5}
    chosen = choose(chooser, candidates, 8, errors)
    assert len(chosen) == len(set(chosen)) == 8
    assert sum(op in candidates[DEPTHWISE] for op in chosen) >= 7
    dear = choose(chooser, {DEPTHWISE: candidates[DEPTHWISE]}, 8, errors)
    cheap = choose(chooser, {DEPTHWISE: candidates[DEPTHWISE]}, 8 * cost(dear).mean(), errors, seconds=lambda us: us)
    assert cost(cheap).mean() < cost(dear).mean()
    weighted = choose(chooser, candidates, 8, {DEPTHWISE: [0.05] * 5, RELU: [0.05] * 5}, weights={DEPTHWISE: 1e-9})
    assert all(op in candidates[RELU] for op in weighted)


def test_a_budget_ends_the_choice_and_so_does_the_last_candidate() -> None:
    chooser = ActiveChooser()
    learn(chooser, draw(RELU, 4))
    assert choose(chooser, {RELU: draw(RELU, 9, "more")}, 0.0) == []
    assert len(choose(chooser, {RELU: draw(RELU, 9, "more"), DEPTHWISE: []}, 99)) == 9


def test_ops_for_one_axis_tell_of_those_for_the_other() -> None:
    out, into = (Family("conv2d", Pass.GRAD_WEIGHT, "f32", trains=axis) for axis in ("out", "in"))
    space = OpSpace((out, into), MEMORY, seed=2)
    many, few, rest = (
        list(itertools.islice(space.draw(family, stream), n))
        for family, stream, n in ((into, "much", 90), (out, "little", 10), (out, "rest", 60))
    )
    lending, alone = ActiveChooser(), ActiveChooser()
    learn(lending, [*few, *many])
    learn(alone, few)
    errors = [np.abs(chooser.predict(rest) / cost(rest) - 1).mean() for chooser in (lending, alone)]
    assert errors[0] < 0.2 * errors[1]
    # What is known of the other axis is not worth measuring again: relu is.
    relu = draw(RELU, 30, "more")
    share = [
        sum(op in relu for op in choose(chooser, {out: rest, RELU: relu}, 12, {out: [0.03], RELU: [0.03]}))
        for chooser in (lending, alone)
    ]
    assert share[0] > share[1]


def test_chosen_ops_teach_more_than_random_ones() -> None:
    test = draw(DEPTHWISE, 120, "test")
    pool = [op for op in draw(DEPTHWISE, 260) if op not in test]

    def error(train) -> float:
        chooser = ActiveChooser()
        learn(chooser, train)
        return float(np.abs(chooser.predict(test) / cost(test) - 1).mean())

    by_chance = np.median([error(pool[10 * i : 10 * i + 24]) for i in range(5)])
    chooser, train = ActiveChooser(), pool[:6]
    for _ in range(3):
        learn(chooser, train)
        rest = [op for op in pool if op not in train]
        train = [*train, *choose(chooser, {DEPTHWISE: rest}, 6)]
    assert len(train) == 24
    assert error(train) < 0.8 * by_chance


def test_the_profiler_finds_it_where_the_project_says() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    [(name, value)] = project["project"]["entry-points"]["profiler.choosers"].items()
    assert EntryPoint(name, value, "profiler.choosers").load() is ActiveChooser
    assert name == "active"
