"""The general op space: what it covers, what it never holds, and that it is the same every time."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from profiler import kernels
from profiler.measure.loops_entered import covering
from profiler.measure.space_filling import features, spread
from profiler.ops import Add, Conv2d, Depthwise, Op, Pass
from profiler.workloads.op_space import Family, ListedSpace, OpSpace, families_of, work_units
from profiler.workloads.program import DeviceMemory, DoesNotFit, microbenchmark

SMALL = DeviceMemory(arena_bytes=60_000, blob_bytes=65_536, blob_seed=5, blob_segments=(128, 125), entry_bytes=96)
ALL = frozenset((kind, pass_, dtype) for kind, pass_, dtype, _ in kernels.supported())


def first(space: OpSpace, family: Family, count: int) -> list[Op]:
    return list(itertools.islice(space.draw(family, "candidates"), count))


@pytest.fixture(scope="module")
def space() -> OpSpace:
    return OpSpace(families_of(ALL), SMALL, seed=3)


def test_families_are_all_that_a_device_can_run_and_nothing_else() -> None:
    families = families_of(ALL)
    assert {(f.kind, str(f.pass_), f.dtype) for f in families} == {t for t in ALL if t[0] != "empty"}
    assert len(set(families)) == len(families)
    some = {("linear", "update", "f32"), ("depthwise", "forward", "s8"), ("empty", "forward", "f32")}
    assert {f.name for f in families_of(some)} == {
        "depthwise/forward/s8", "depthwise/forward/s8/in_place", "linear/update/f32/out/sgd",
        "linear/update/f32/out/adam", "linear/update/f32/in/sgd", "linear/update/f32/in/adam",
        "linear/update/f32/bias/sgd", "linear/update/f32/bias/adam",
    }  # fmt: skip
    assert families_of(some, passes=[Pass.GRAD_INPUT]) == ()
    assert {f.dtype for f in families_of(ALL, dtypes=["s8"])} == {"s8"}


def test_every_family_has_ops_that_belong_to_it_fit_and_have_a_kernel(space: OpSpace) -> None:
    for family in space.families:
        ops = first(space, family, 8)
        assert len(ops) == 8, family.name
        for op in ops:
            assert Family.of(op) == family
            kernels.work(op)
            assert work_units(op) <= space.most_units


def test_hardly_any_draw_has_no_room_on_the_device(space: OpSpace) -> None:
    ops = [op for family in space.families for op in first(space, family, 5)]
    without = 0
    for op in ops:
        try:
            microbenchmark(op, SMALL)
        except DoesNotFit:
            without += 1
    assert without < 0.1 * len(ops)


def test_draws_are_the_same_for_a_seed_and_others_for_another(space: OpSpace) -> None:
    family = Family("conv2d", Pass.FORWARD, "f32")
    assert first(space, family, 20) == first(OpSpace(space.families, SMALL, seed=3), family, 30)[:20]
    assert first(space, family, 20) != first(OpSpace(space.families, SMALL, seed=4), family, 20)
    assert first(space, family, 20) != list(itertools.islice(space.draw(family, "held out"), 20))
    assert len(set(first(space, family, 200))) == 200


def test_sizes_maps_and_remainders_are_spread(space: OpSpace) -> None:
    ops = first(space, Family("conv2d", Pass.FORWARD, "f32"), 300)
    sizes = np.log10([work_units(op) for op in ops])
    assert np.ptp(sizes) > 3
    counts, _ = np.histogram(sizes, np.linspace(3, 5.5, 6))
    assert counts.min() > 0.4 * counts.max()
    geometries = [op.geometry for op in ops]
    assert {g.in_channels % 8 for g in geometries} == set(range(8))
    odd = Counter(g.in_channels % 8 for g in geometries if g.in_channels % 8)
    assert min(odd.values()) > 3
    for trait in (
        lambda g: g.kernel_h != g.kernel_w,
        lambda g: g.in_h != g.in_w,
        lambda g: (g.in_h, g.in_w) == (1, 1) or g.in_h == 1,
        lambda g: g.stride_h == 3,
        lambda g: g.groups > 1,
        lambda g: (g.kernel_h, g.kernel_w) == (1, 1),
        lambda g: not g.has_bias,
    ):
        assert sum(map(trait, geometries)) >= 3


def test_no_check_hangs_on_one_sum_near_zero(space: OpSpace) -> None:
    few = Counter()
    for kind in ("linear", "conv2d", "depthwise", "cosine_head"):
        for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT):
            for op in first(space, Family(kind, pass_, "f32"), 150):
                sums = op.outputs[0].elements
                few[sums] += sums < 4
                assert sums >= 4 or (sums >= 2 and op.macs <= 64 * sums), op.key
    assert few[2] and few[3]


def test_paths_of_kernels_for_fewer_features_than_a_block_has_are_drawn(space: OpSpace) -> None:
    for family in (
        Family("cosine_head", Pass.GRAD_INPUT, "f32"),
        Family("linear", Pass.GRAD_INPUT, "f32"),
        Family("linear", Pass.GRAD_INPUT, "s8"),
    ):
        entered = [kernels.work(op) for op in first(space, family, 96)]
        assert any(counts["singles"] and counts["blocks"] == 0 for counts in entered), family.name


def test_few_ops_enter_every_loop_that_any_enters_and_leave_it_out_beside_every_other(space: OpSpace) -> None:
    for family in (
        Family("pointwise_depthwise", Pass.FORWARD, "s8"),
        Family("conv2d", Pass.GRAD_WEIGHT, "f32", trains="in"),
        Family("cosine_head", Pass.GRAD_INPUT, "f32"),
    ):
        ops = first(space, family, 60)
        few = covering(ops)
        assert set(few) <= set(ops) and len(set(few)) == len(few)
        assert len(few) <= 13, family.name
        entered = [{name for name, count in kernels.work(op).items() if count} for op in ops]
        pairs = {
            (there, gone) for names in entered for there in names for gone in kernels.work(ops[0]) if gone not in names
        }
        by_few = [names for op, names in zip(ops, entered, strict=True) if op in few]
        assert all(any(there in names and gone not in names for names in by_few) for there, gone in pairs), family.name
    assert covering([]) == []


def test_of_ops_that_enter_the_same_loops_the_smallest_is_taken() -> None:
    ops = [Op(Add(4 * n), Pass.FORWARD) for n in (9, 5, 7)]
    assert covering(ops) == [ops[1]]


def test_channels_grow_as_maps_shrink_and_yet_any_map_has_any_channels(space: OpSpace) -> None:
    ops = first(space, Family("depthwise", Pass.FORWARD, "s8"), 300)
    area = np.log([op.geometry.in_h * op.geometry.in_w for op in ops])
    channels = np.log([op.geometry.in_channels for op in ops])
    assert -0.95 < np.corrcoef(area, channels)[0, 1] < -0.2


def test_what_trains_varies(space: OpSpace) -> None:
    ops = first(space, Family("conv2d", Pass.GRAD_WEIGHT, "f32", trains="out"), 150)
    assert all(op.trained_channels for op in ops)
    biases = first(space, Family("fused_conv2d", Pass.UPDATE, "s8", trains="bias"), 30)
    assert all(op.trains_bias and not op.trained_channels for op in biases)
    assert any(op.trained_channels == op.geometry.out_channels for op in ops)
    assert {op.trained_channels % 4 for op in ops} == {0, 1, 2, 3}
    assert {op.trains_bias for op in ops} == {True, False}
    ins = first(space, Family("conv2d", Pass.UPDATE, "s8", trains="in", optimizer="adam"), 50)
    assert all(op.trained_axis == "in" and op.optimizer == "adam" for op in ins)


def test_a_small_space_ends() -> None:
    ops = [Op(Depthwise(8, 8, c, 3, 3), Pass.FORWARD) for c in (4, 8, 12)]
    space = ListedSpace([*ops, ops[0]], seed=1)
    assert space.families == (Family("depthwise", Pass.FORWARD, "f32"),)
    assert set(space.draw(space.families[0], "x")) == set(ops)
    tiny = OpSpace([Family("softmax_cross_entropy", Pass.FORWARD, "f32")], SMALL, seed=1, most_units=100)
    assert len(list(tiny.draw(tiny.families[0], "x"))) < 100


def test_spread_takes_the_far_ones_first() -> None:
    ops = [Op(Conv2d(8, 8, c, 8, 1, 1), Pass.FORWARD) for c in (8, 12, 16, 20, 24, 256)]
    assert spread(ops, [ops[2]], 1) == [ops[-1]]
    assert spread(ops[1:], [ops[0]], 99)[0] == ops[-1]
    assert sorted(op.key for op in spread(ops, [], 99)) == sorted(op.key for op in ops)
    assert spread([], ops, 3) == []


def test_spread_covers_better_than_chance(space: OpSpace) -> None:
    ops = first(space, Family("linear", Pass.FORWARD, "f32"), 200)
    rows = features(ops)
    deviation = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1)

    def reach(chosen: list[Op]) -> float:
        own = rows[[ops.index(op) for op in chosen]]
        return float(np.sqrt(((rows[:, None] - own[None]) ** 2).sum(-1)).min(axis=1).max())

    assert reach(spread(ops, [], 20)) < 0.9 * reach(ops[:20])
    assert math.isfinite(reach(ops[:20]))
