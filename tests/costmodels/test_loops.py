"""Loops of unknown kernels: trips are those of loops written out, and a blocking is found by what ops cost."""

import dataclasses

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.estimators import NonNegativeTerms
from costmodels.features import GEOMETRY_TERMS, geometry_key, geometry_terms
from costmodels.group import OpRegressor
from costmodels.loops import (
    LOOP_TERMS,
    Blocking,
    LoopNest,
    found_blocking,
    has_loops,
    loop_names,
    loop_nests,
    loop_terms,
)
from profiler.ops import Conv2d, Depthwise, Linear, Op, Pass, Relu

SIZES = st.sampled_from([1, 2, 4, 8, 16])
BLOCKINGS = st.builds(
    Blocking, st.sampled_from(["row", "map"]), st.booleans(), SIZES, SIZES, SIZES, SIZES, st.booleans()
)


@st.composite
def convolutions(draw, pass_=Pass.FORWARD):
    """A convolution, depthwise convolution or matrix product, clipped by borders or not."""
    small = st.integers(1, 5)
    window = [draw(small) for _ in range(4)] + [draw(st.integers(0, 2)) for _ in range(2)]
    height, width = (
        draw(st.integers(max(1, k - 2 * p), 9)) for k, p in ((window[0], window[4]), (window[1], window[5]))
    )
    channels = draw(st.integers(1, 20))
    kind = draw(st.sampled_from(["conv2d", "grouped", "depthwise", "linear"]))
    if kind == "linear":
        return Op(Linear(channels, draw(st.integers(1, 40))), pass_)
    if kind == "depthwise":
        return Op(Depthwise(height, width, channels, *window), pass_)
    groups = draw(st.integers(2, 4)) if kind == "grouped" else 1
    return Op(Conv2d(height, width, groups * channels, groups * draw(st.integers(1, 20)), *window, groups), pass_)


def trips(op, blocking):
    """Named terms of one op."""
    return dict(zip(loop_names(blocking), LoopNest(op).terms(blocking), strict=True))


def inputs_summed(found, blocking, *, of):
    """Inputs that are multiplied in loops of blocks or of single positions, blocks of positions counted once."""
    k = blocking.reduction
    return sum(
        4 * k * found[f"{prefix}{of}_long"] + k * found[f"{prefix}{of}_short"] + found[f"{prefix}{of}_rest"]
        for prefix in ("", "sliding_")
        if f"{prefix}{of}_long" in found
    )


def multiplications(op, loop, positions, reduction):
    """That loops over ``row`` or ``map`` do in all; depthwise convolutions have no blocks of four inputs and more."""
    blocking = Blocking(loop, False, positions, 1, 1, min(reduction, 2) if op.kind == "depthwise" else reduction)
    found = trips(op, blocking)
    return positions * inputs_summed(found, blocking, of="block") + inputs_summed(found, blocking, of="single")


@settings(max_examples=150, deadline=None)
@given(convolutions(), st.sampled_from([1, 2, 4, 8]), SIZES)
def test_loops_over_rows_do_every_multiplication_inside_the_map_once(op, positions, reduction):
    inner = geometry_terms([op])[0][list(GEOMETRY_TERMS).index("inner_macs")]
    assert multiplications(op, "row", positions, reduction) == pytest.approx(inner)


@settings(max_examples=150, deadline=None)
@given(convolutions(), st.sampled_from([1, 2, 4, 8]), SIZES)
def test_loops_over_the_map_do_every_multiplication_once_padding_included(op, positions, reduction):
    assert multiplications(op, "map", positions, reduction) == op.macs


@settings(max_examples=100, deadline=None)
@given(convolutions(), convolutions(pass_=Pass.GRAD_INPUT), BLOCKINGS)
def test_trips_are_counts_and_have_names(forward, backward, blocking):
    X = loop_terms(loop_nests([forward, backward]), blocking)
    assert X.shape == (2, len(loop_names(blocking)))
    assert (X >= 0).all() and (np.round(X) == X).all()
    assert set(loop_names(blocking)) <= set(LOOP_TERMS)


@settings(max_examples=100, deadline=None)
@given(convolutions())
def test_gradients_of_inputs_meet_the_taps_that_forward_meets(op):
    one_by_one = Blocking("row", False, 1, 1, 1, 1)
    backward = dataclasses.replace(op, pass_=Pass.GRAD_INPUT)
    inner = [
        sum(inputs_summed(trips(o, one_by_one), one_by_one, of=of) for of in ("block", "single"))
        for o in (op, backward)
    ]
    assert inner[0] == inner[1]


def written_out(op, positions, outputs, reduction):
    """Trips of a convolution's loops over rows, one group and one segment, counted by running them."""
    g = op.geometry
    counts = dict.fromkeys(("block_positions", "block_outputs", "block_runs", "block_long", "block_short"), 0)
    counts |= {name.replace("block", "single"): 0 for name in counts}
    counts |= {"block_rest": 0, "single_rest": 0}
    height, width, _ = g.output_shape
    for y in range(height):
        rows = [r for r in range(g.kernel_h) if 0 <= y * g.stride_h - g.pad_h + r < g.in_h]
        taps = [[c for c in range(g.kernel_w) if 0 <= x * g.stride_w - g.pad_w + c < g.in_w] for x in range(width)]
        inside = [x for x in range(width) if len(taps[x]) == g.kernel_w]
        blocks = [inside[i : i + positions] for i in range(0, len(inside), positions)]
        whole = [block for block in blocks if len(block) == positions]
        in_blocks = {x for block in whole for x in block}
        for name, starts in (
            ("block", [b[0] for b in whole]),
            ("single", [x for x in range(width) if x not in in_blocks]),
        ):
            for x in starts:
                counts[f"{name}_positions"] += 1
                for _ in range(0, g.out_channels, outputs):
                    counts[f"{name}_outputs"] += 1
                    for _ in rows:
                        counts[f"{name}_runs"] += 1
                        left = len(taps[x]) * g.in_channels
                        for what, size in (("long", 4 * reduction), ("short", reduction), ("rest", 1)):
                            while left >= size:
                                counts[f"{name}_{what}"] += 1
                                left -= size
    return counts


@pytest.mark.parametrize(
    "geometry",
    [
        Conv2d(9, 11, 5, 7, 3, 3, 1, 1, 1, 1),
        Conv2d(8, 6, 3, 16, 5, 3, 2, 2, 2, 1),
        Conv2d(4, 13, 6, 3, 1, 5, 1, 2, 0, 0),
    ],
)
def test_trips_are_those_of_loops_written_out(geometry):
    op = Op(geometry, Pass.FORWARD)
    found = trips(op, Blocking("row", False, 4, 4, 4, 4))
    expected = written_out(op, 4, 4, 4)
    assert {name: found[name] for name in expected} == expected


def test_what_is_left_over_by_a_shifted_block_is_not_taken_singly():
    op = Op(Conv2d(1, 7, 4, 4, 1, 1), Pass.FORWARD)  # seven positions
    plain, shifted = (trips(op, Blocking("map", s)) for s in (False, True))
    assert (plain["block_positions"], plain["single_positions"]) == (1, 3)
    assert (shifted["block_positions"], shifted["single_positions"]) == (2, 0)


def test_only_windows_that_slide_count_as_sliding():
    blocking = Blocking(slides=True)
    sliding = trips(Op(Depthwise(8, 8, 8, 3, 3, 1, 1, 1, 1), Pass.FORWARD), blocking)
    other = trips(Op(Depthwise(8, 8, 8, 3, 3, 2, 2, 1, 1), Pass.FORWARD), blocking)
    assert sliding["sliding_block_positions"] == 16 and sliding["block_positions"] == 0
    assert other["sliding_block_positions"] == 0 and other["single_positions"] > 0


def test_weights_that_lie_in_two_segments_are_blocked_apart():
    op = Op(Conv2d(4, 4, 8, 6, 1, 1), Pass.FORWARD, "s8", trained_channels=3, trained_axis="out")
    whole = dataclasses.replace(op, trained_channels=0)
    blocking = Blocking("map")
    assert trips(whole, blocking)["block_outputs"] == 4 * 2 and trips(whole, blocking)["block_segments"] == 0
    split = dataclasses.replace(op, geometry=Conv2d(4, 4, 8, 10, 1, 1), trained_channels=5)
    assert trips(split, blocking)["block_outputs"] == 4 * 4 and trips(split, blocking)["block_segments"] == 4


def test_elementwise_ops_and_gradients_of_weights_have_other_loops():
    assert has_loops(Op(Linear(3, 4), Pass.GRAD_INPUT))
    assert not has_loops(Op(Relu(12), Pass.FORWARD))
    assert not has_loops(Op(Linear(3, 4), Pass.GRAD_WEIGHT, trained_channels=4))


def forward_convolutions(n):
    ops = [op for op in synthetic.random_ops(14 * n, seed=5) if op.kind == "conv2d" and op.pass_ is Pass.FORWARD]
    return list(dict.fromkeys(ops))[:n]


#: What loops cost in a made-up kernel that takes two positions by eight outputs, four inputs at a time.
HIDDEN = Blocking("map", False, 2, 8, 8, 4)
PRICES = {"calls": 300, "block_outputs": 90, "block_long": 100, "block_short": 40, "block_rest": 25}
PRICES |= {"single_outputs": 60, "single_long": 70, "single_short": 22, "single_rest": 9, "gathered_short": 8}


def made_up_cost(ops):
    X = loop_terms(loop_nests(ops), HIDDEN)
    return X @ np.array([PRICES.get(name, 0.0) for name in loop_names(HIDDEN)])


def test_a_blocking_is_found_by_what_ops_cost_and_foretells_others():
    ops = forward_convolutions(160)
    assert len(ops) == 160
    known, others = ops[:80], ops[80:]
    nests, cost = loop_nests(known), made_up_cost(known)
    found = found_blocking(nests, cost, np.array([geometry_key(op) for op in known]))
    assert (found.walk, found.outputs) == (HIDDEN.walk, HIDDEN.outputs)
    fitted = NonNegativeTerms().fit(loop_terms(nests, found), cost)
    error = fitted.predict(loop_terms(loop_nests(others), found)) / made_up_cost(others) - 1
    assert np.abs(error).mean() < 0.02


def test_a_regressor_without_kernels_learns_loops_from_80_ops():
    ops = forward_convolutions(160)
    fitted = OpRegressor(work=None).fit(ops[:80], made_up_cost(ops[:80]))
    assert fitted.blocking_ is not None and fitted.terms_ == loop_names(fitted.blocking_)
    assert np.abs(fitted.predict(ops[80:]) / made_up_cost(ops[80:]) - 1).mean() < 0.02


def test_few_geometries_find_no_blocking():
    ops = forward_convolutions(8)
    assert found_blocking(loop_nests(ops), made_up_cost(ops), np.array([geometry_key(op) for op in ops])) == Blocking()
