"""Terms of hosts: beside loops written out, and where they are used."""

from collections import Counter

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.features import kernel_work
from costmodels.group import OpRegressor, known_terms
from costmodels.host_caches import share_beyond
from costmodels.host_terms import HOST_TERMS
from costmodels.measured import from_frame
from costmodels.model import CostModel
from costmodels.saved import group_from_record, group_to_record
from costmodels.target import TargetModel
from profiler.errors import UserError
from profiler.ops import (
    Add,
    Conv2d,
    Depthwise,
    Dequantize,
    GlobalAvgPool,
    GroupNorm,
    MaskSource,
    Op,
    Pass,
    PointwiseDepthwise,
    Relu,
    Requantize,
    SaturationMask,
)


def terms_of(op):
    """The terms of hosts that an op has any of."""
    names, counts = known_terms([op], kernel_work, host=True)
    return {name: n for name, n in zip(names, counts[0].tolist(), strict=True) if name in HOST_TERMS and n}


def vectors_of(trips, long, short):
    """How a loop of so many trips is gone through, the longest vectors first."""
    found = Counter({f"loops_from_{n}": 1 for n in (long, short) if trips >= n})
    left = trips
    while left >= long:
        found[f"vectors_of_{long}"] += 1
        left -= long
    if left >= short:
        found[f"rest_of_{short}"] = 1
        left -= short
    found[f"singles_beside_{short}"] = left
    return +found


@given(st.integers(1, 2500))
def test_a_loop_over_floats_goes_by_eight_by_four_and_singly(n):
    goes_on = {"loops_with_rests": 1} if n >= 4 and n % 8 else {}
    assert terms_of(Op(Dequantize(n), Pass.GRAD_INPUT, "s8")) == vectors_of(n, 8, 4) | goes_on


@given(st.integers(1, 2500))
def test_a_sum_s_first_elements_are_added_while_its_call_is_waited_for(n):
    late = max(n - 64, 0) // 8
    assert terms_of(Op(Add(n), Pass.GRAD_INPUT)).get("late_sums", 0) == late


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 70))
def test_a_mean_s_gradient_is_spread_in_a_loop_over_channels_at_each_position(height, width, channels):
    wanted = {name: height * width * n for name, n in vectors_of(channels, 8, 4).items()}
    assert terms_of(Op(GlobalAvgPool(height, width, channels), Pass.GRAD_INPUT)) == wanted


@pytest.mark.parametrize("dtype", ["f32", "s8"])
@pytest.mark.parametrize(("outputs", "waiting"), [(8, 0), (64, 0), (128, 16), (256, 48)])
def test_sums_longer_than_a_core_looks_ahead_are_waited_for(dtype, outputs, waiting):
    g = Conv2d(1, 7, 8, outputs, 1, 1)  # two blocks of four inputs; four positions at once, and three singly
    found = terms_of(Op(g, Pass.GRAD_INPUT, dtype))
    assert found == ({"waiting_quads": 2 * waiting, "waiting_singles": 2 * 3 * waiting} if waiting else {})


@given(
    positions=st.integers(1, 64),
    channels=st.integers(1, 9),
    axis=st.sampled_from(["out", "in"]),
    dtype=st.sampled_from(["f32", "s8"]),
)
def test_sums_over_many_positions_wait_in_each_block_and_those_over_few_do_not(positions, channels, axis, dtype):
    """Four trained channels at a time with all fours of the others; what four do not divide goes singly in float32."""
    channels = channels if dtype == "f32" else min(4 * channels, 12)
    op = Op(Conv2d(1, positions, 12, 12, 1, 1), Pass.GRAD_WEIGHT, dtype, trained_channels=channels, trained_axis=axis)
    found = terms_of(op)
    for knee in (4, 12, 24):
        late = max(positions - knee, 0)
        assert found.get(f"late_4x4_from_{knee}", 0) == channels // 4 * 3 * late
        assert found.get(f"late_1x4_from_{knee}", 0) == channels % 4 * 3 * late


@given(positions=st.integers(1, 200), channels=st.integers(1, 70))
def test_a_mean_s_sums_over_many_positions_wait_and_a_large_map_leaves_the_first_cache(positions, channels):
    found = terms_of(Op(GlobalAvgPool(1, positions, channels), Pass.FORWARD))
    late = max(positions - 12, 0)
    assert found.get("late_4x4_from_12", 0) == channels // 4 * late
    assert found.get("late_1x4_from_12", 0) == channels % 4 * late
    far = terms_of(Op(GlobalAvgPool(40, 40, 64), Pass.FORWARD))  # 1,600 lines, of which the first cache holds 512
    assert far["lines_beyond_32k"] == 16 * 1600 and "lines_beyond_32k" not in found


def test_normalised_maps_come_from_the_next_cache_as_often_as_they_are_gone_over():
    assert terms_of(Op(GroupNorm(8, 8, 32, 4), Pass.FORWARD)) == {}
    positions = 48 * 40  # 64 bytes each of a block: 120 KiB, of eight blocks
    wide = terms_of(Op(GroupNorm(48, 40, 32, 4), Pass.FORWARD))
    assert wide["lines_beyond_32k"] == 8 * positions and "lines_beyond_256k" not in wide
    assert wide["waiting_quads"] == 8 * 48 * (40 - 16)
    backward = terms_of(Op(GroupNorm(48, 40, 32, 4), Pass.GRAD_INPUT))
    assert backward["lines_beyond_256k"] > 0  # gradients beside them: 240 KiB
    few = terms_of(Op(GroupNorm(96, 40, 8, 1), Pass.FORWARD))  # lines hold two positions
    assert few["lines_beyond_32k"] == 2 * 96 * 40 / 2


@given(st.integers(1, 2500))
def test_a_loop_over_bytes_goes_by_thirty_two_by_sixteen_and_singly(n):
    assert terms_of(Op(Dequantize(n), Pass.FORWARD, "s8")) == vectors_of(n, 32, 16)


def test_a_mask_s_loop_goes_over_bytes_of_bits():
    assert terms_of(Op(SaturationMask(8 * 53 + 7), Pass.FORWARD, "s8")) == vectors_of(53, 32, 16)


def test_what_asks_element_by_element_has_no_vectors():
    assert terms_of(Op(Relu(1001), Pass.GRAD_INPUT)) == {}


@pytest.mark.parametrize(
    ("mask", "label", "lengths"), [(MaskSource.NONE, "unmasked", (8, 4)), (MaskSource.OUTPUT, "masked", (32, 16))]
)
def test_rows_of_a_gradient_are_loops_each(mask, label, lengths):
    once = {"masked_calls": 1} if mask else {}
    wanted = once | {f"{label}_{name}": 5 * n for name, n in vectors_of(61, *lengths).items()}
    assert terms_of(Op(Requantize(5, 61, int(mask)), Pass.GRAD_INPUT, "s8")) == wanted
    short = min(lengths) - 1  # too short for vectors: a loop of its own
    wanted = once | {f"{label}_trips_alone": 5 * short}
    assert terms_of(Op(Requantize(5, short, int(mask)), Pass.GRAD_INPUT, "s8")) == wanted


def test_gradients_masked_by_bits_go_singly():
    assert terms_of(Op(Requantize(5, 61, int(MaskSource.BITS)), Pass.GRAD_INPUT, "s8")) == {"masked_calls": 1}


def taps_of(g, rows_of_kernel, channels):
    """How int8 depthwise kernels take the taps of a window, output by output, as ``depthwise_rows_s8.h`` has them."""
    count = Counter()
    for rows in rows_of_kernel:
        for _ in range(g.out_w * -(-channels // 4)):
            pairs, row = rows // 2 * g.kernel_w, rows % 2 * g.kernel_w
            if pairs >= 4:
                count["sum_shuffles"] += 16
            while pairs >= 4:
                count["tap_shuffles"] += 16
                pairs -= 4
            count["tap_halves"] += pairs >= 2
            count["single_pairs"] += pairs % 2
            if row >= 16:
                count["sum_shuffles"] += 12
            while row >= 16:
                count["tap_shuffles"] += 24
                row -= 16
            if row >= 8:
                count["tap_shuffles"] += 24
                count["sum_shuffles"] += 8
                row -= 8
            count["single_row_taps"] += row
    return +count


windows = st.fixed_dictionaries(
    {
        "in_h": st.integers(1, 9),
        "in_w": st.integers(1, 9),
        "kernel_h": st.integers(1, 7),
        "kernel_w": st.integers(1, 19),
        "stride_h": st.integers(1, 3),
    }
)


@given(windows, st.integers(1, 9))
def test_taps_of_int8_depthwise_windows_go_in_vectors_as_far_as_they_fill_them(window, channels):
    pads = {"pad_h": window["kernel_h"] // 2, "pad_w": window["kernel_w"] // 2}
    g = Depthwise(in_channels=channels, **window, **pads)
    wanted = taps_of(g, [g.kernel_h] * g.out_h, channels)
    for variant in ("blocked", "in_place") if g.input_shape == g.output_shape else ("blocked",):
        assert terms_of(Op(g, Pass.FORWARD, "s8", variant=variant)) == wanted
    streamed = PointwiseDepthwise(in_channels=3, mid_channels=channels, **window, **pads)
    met = [
        sum(0 <= oy * g.stride_h - g.pad_h + tap < g.in_h for tap in range(g.kernel_h)) for oy in range(g.out_h)
    ]  # rows of blanks are left out there
    assert terms_of(Op(streamed, Pass.FORWARD, "s8")) == taps_of(streamed, met, channels)


@pytest.mark.parametrize(
    ("op", "counted"),
    [
        (Op(Add(100), Pass.FORWARD), {"iterations"}),
        (
            Op(Requantize(5, 61, int(MaskSource.OUTPUT)), Pass.GRAD_INPUT, "s8"),
            {"by_output", "output_calls", "output_rows"},
        ),
        (Op(Depthwise(9, 9, 8, 3, 9), Pass.FORWARD, "s8"), {"output_loops", "output_pairs", "output_singles"}),
    ],
)
def test_loops_that_hosts_go_through_otherwise_are_not_counted_twice(op, counted):
    names, at_first = known_terms([op], kernel_work)
    host_names, left = known_terms([op], kernel_work, host=True)
    assert host_names[: len(names)] == names
    changed = {name for name, a, b in zip(names, at_first[0], left[0], strict=False) if a != b}
    assert changed == counted and not left[0][[name in counted for name in host_names]].any()


def test_buffers_that_a_cache_does_not_hold_come_from_the_next():
    sizes = np.array([0, 32 << 10, 34 << 10, 36 << 10, 1 << 30])
    share = share_beyond(sizes, "32k")
    assert share[:2].tolist() == [0, 0] and 0 < share[2] < 1 and share[3:].tolist() == [1, 1]
    elements = 200_000  # three buffers of float32: 2.4 MB
    found = terms_of(Op(Add(elements), Pass.FORWARD))
    assert found["lines_beyond_32k"] == found["lines_beyond_1m"] == 12 * elements / 64


def laid_out(g):
    """What a convolution does whose weights lie in panels, loop by loop as ``conv2d_forward_f32.c`` has them."""
    count = Counter()
    inputs, outputs = g.in_channels // g.groups, g.out_channels // g.groups
    weights = g.kernel_h * g.kernel_w * inputs
    flat = (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_h, g.pad_w) == (1, 1, 1, 1, 0, 0)
    height, width = (1, g.out_h * g.out_w) if flat else (g.out_h, g.out_w)
    in_h, in_w = (1, g.in_h * g.in_w) if flat else (g.in_h, g.in_w)
    panelled = weights <= 1024 and g.out_h * g.out_w >= 4
    at_once = min(16, 1024 // weights) * 16 if panelled else outputs
    for _ in range(g.groups):
        for first in range(0, outputs, at_once):
            taken = min(at_once, outputs - first)
            count["panel_passes"] += panelled
            for _ in range(0, taken, 4):
                count["packed_fours"] += panelled * (weights // 4)
                count["packed_rests"] += panelled * (weights % 4)
            for oy in range(height):
                count["passed_rows"] += panelled
                iy = oy * g.stride_h - g.pad_h
                rows = sum(0 <= iy + k < in_h for k in range(g.kernel_h))
                ox = 0
                while ox < width:
                    ix = ox * g.stride_w - g.pad_w
                    met = [
                        sum(0 <= i + k < in_w for k in range(g.kernel_w))
                        for i in range(ix, ix + 4 * g.stride_w, g.stride_w)
                    ]
                    quad = ox + 4 <= width and met == [g.kernel_w] * 4
                    ox += 4 if quad else 1
                    if rows and met[0]:
                        at_a_time(
                            count,
                            "quad" if quad else "single",
                            rows=rows,
                            taps=met[0],
                            groups=g.groups,
                            inputs=inputs,
                            outputs=taken,
                            panelled=panelled,
                        )
    return +count


def at_a_time(count, name, *, rows, taps, groups, inputs, outputs, panelled):
    """Four positions, or one, of all panels at once."""
    runs, length = (1, taps * inputs) if groups == 1 else (taps, inputs)
    if not panelled:
        fours = -(-outputs // 4)
        count[f"unpanelled_{name}s"] += fours
        count[f"unpanelled_{name}_inputs"] += fours * rows * runs * length
        return
    count[f"passed_{name}s"] += 1
    for o in range(0, outputs, 16):
        held = min(16, outputs - o)
        count[f"panel_{name}s"] += 1
        count[f"panel_{name}_rows"] += rows
        count[f"panel_{name}_runs"] += rows * runs
        chain, whole = (2, "pairs") if name == "quad" else (4, "fours")
        count[f"panel_{name}_{whole}"] += rows * runs * (length // chain)
        count[f"panel_{name}_odds"] += rows * runs * (length % chain)
        count[f"panel_{name}_halves"] += rows * runs * length * (1 + (held > 8))
        if held < 16:
            pixels = 4 if name == "quad" else 1
            count["stored_fours"] += pixels * (held // 4)
            count["stored_ones"] += pixels * (held % 4)


@st.composite
def convolutions(draw):
    groups, kernel_h, kernel_w = draw(st.sampled_from([1, 1, 2])), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = st.integers(4, 14)
    return Conv2d(
        draw(size),
        draw(size),
        groups * draw(st.integers(1, 90)),
        groups * draw(st.integers(1, 70)),
        kernel_h,
        kernel_w,
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.integers(0, kernel_h - 1)),
        draw(st.integers(0, kernel_w - 1)),
        groups,
        draw(st.integers(0, 1)),
    )


@settings(deadline=None, max_examples=150)
@given(convolutions())
def test_panels_of_weights_are_packed_and_gone_over_as_often_as_the_kernel_does(geometry):
    found = terms_of(Op(geometry, Pass.FORWARD))
    assert {name: round(n, 6) for name, n in found.items() if not name.endswith("_far")} == laid_out(geometry)


def test_weights_that_the_first_cache_holds_are_near():
    near, far = (terms_of(Op(Conv2d(9, 9, 64, outputs, 1, 1), Pass.FORWARD)) for outputs in (48, 256))
    assert not {"panel_quads_far", "packed_fours_far"} & near.keys()
    assert far["panel_quads_far"] == 2 * far["panel_quad_pairs"]


def random_convolutions(n):
    rng = np.random.default_rng(0)
    return [
        Op(Conv2d(*rng.integers(4, 14, 2).tolist(), *rng.integers(3, 60, 2).tolist(), 1, 1), Pass.FORWARD)
        for _ in range(n)
    ]


def test_a_host_s_convolutions_are_foretold_by_their_panels_and_a_microcontroller_s_without(tmp_path):
    ops = random_convolutions(160)
    unit = {"panel_passes": 80, "packed_fours": 4, "panel_quads": 20, "panel_quad_pairs": 3, "panel_singles": 6}
    cost = np.array([40 + sum(unit.get(name, 0) * n for name, n in terms_of(op).items()) for op in ops])
    fitted, without = (OpRegressor(method="terms", host=host).fit(ops[:100], cost[:100]) for host in (True, False))
    assert HOST_TERMS.keys() & set(fitted.terms_) and not HOST_TERMS.keys() & set(without.terms_)
    np.testing.assert_allclose(fitted.predict(ops[100:]), cost[100:], rtol=0.01)
    assert np.abs(without.predict(ops[100:]) / cost[100:] - 1).mean() > 0.03
    fitted.check("conv2d/forward/f32/blocked")  # does not take it for a kernel that changed
    arrays = {}
    again = group_from_record(group_to_record(fitted, "", arrays), arrays, kernel_work)
    np.testing.assert_array_equal(again.predict(ops[100:]), fitted.predict(ops[100:]))


def test_a_model_with_terms_that_are_no_more_asks_to_be_fitted_again():
    ops = [Op(Add(n), Pass.FORWARD) for n in range(10, 60)]
    fitted = OpRegressor(method="terms", host=True).fit(ops, [1 + op.geometry.elements for op in ops])
    fitted.terms_ = (*fitted.terms_, "rest_of_16")
    with pytest.raises(UserError, match="rest_of_16"):
        fitted.predict(ops)


def test_costs_to_fall_back_on_may_leave_out_what_only_hosts_have():
    ops = random_convolutions(40)
    names, counts = known_terms(ops, kernel_work)
    prior = np.linspace(1, 2, len(names))
    fitted = OpRegressor(method="terms", host=True, prior=prior).fit(ops, counts @ prior)
    np.testing.assert_allclose(fitted.predict(ops), counts @ prior, rtol=0.01)


@pytest.mark.parametrize(("board", "host"), [("linux-native", True), ("stm32f405", False)])
def test_which_terms_there_are_follows_from_the_board(board, host):
    ops = random_convolutions(30)
    table = synthetic.table(ops, held_out=False)
    counts = known_terms(ops, kernel_work)[1]
    measured = from_frame(table.assign(latency_us=counts.sum(axis=1)), {"board": board})
    (group,) = CostModel().fit_measured(measured).targets["latency"].groups.values()
    assert bool(HOST_TERMS.keys() & set(group.terms_)) == host


def test_a_short_loop_s_call_is_no_dearer_than_other_plain_loops_where_only_long_ones_were_measured():
    def cost(op):
        loop = 36 * (terms_of(op).get("loops_from_16", 0) > 0)
        return 1 + 0.1 * op.geometry.elements + (loop if op.kind == "saturation_mask" else 0)

    masks = [Op(SaturationMask(n), Pass.FORWARD, "s8") for n in range(400, 2000, 23)]
    adds = [Op(Add(n), Pass.GRAD_INPUT) for n in range(1, 2000, 53)]
    convolutions = random_convolutions(30)
    ops = [*masks, *adds, *convolutions]
    measured = [cost(op) for op in [*masks, *adds]] + [200 + op.macs / 10 for op in convolutions]
    fitted = TargetModel(method="terms", host=True).fit(ops, np.array(measured))
    short = Op(SaturationMask(24), Pass.FORWARD, "s8")
    assert fitted.predict([short]).mean[0] == pytest.approx(cost(short), rel=0.3)
    assert fitted.predict(masks).mean == pytest.approx([cost(op) for op in masks], rel=0.02)
