"""Terms around the kernels' inner loops: as often as loops written out go round, and what they are good for."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodels.control_terms import CONTROL_TERMS, control_terms
from costmodels.estimators import NonNegativeTerms
from costmodels.estimators.folds import typical_size
from costmodels.features import group_key, kernel_work, work_terms
from costmodels.group import OpRegressor, known_terms
from costmodels.measured import read_warm_and_cold
from profiler import kernels
from profiler.ops import Conv2d, Depthwise, FusedConv2d, Linear, MaskSource, Op, Pass, Requantize, UpsampleBilinear2d

ROOT = Path(__file__).parents[2]


def inside(size_in, size_out, stride, pad, tap):
    return [i for i in range(size_out) if 0 <= i * stride - pad + tap < size_in]


def walked(op):
    """The loops of a weight gradient's kernel, written out and counted trip by trip."""
    g, fused = op.geometry, op.kind == "fused_conv2d"
    out, trained, count = op.trained_axis == "out", op.trained_channels, Counter()
    s8, in_h, in_w, out_h, out_w = op.dtype == "s8", g.in_h, g.in_w, g.out_h, g.out_w
    flat = (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_h, g.pad_w) == (1, 1, 1, 1, 0, 0)
    if flat and (s8 or out_h * out_w <= 4096):
        in_w, out_w, in_h, out_h = in_w * in_h, out_w * out_h, 1, 1
    copied = (g.in_channels if out else trained) if s8 else trained
    partners = (trained if out else g.out_channels) if s8 else (g.in_channels if out else g.out_channels) // g.groups
    j = 0
    while j < copied:
        four = copied - j >= 4 and g.groups == 1
        count["blocks_of_4" if four else "blocks_of_1"] += 1
        for ky in range(g.kernel_h):
            for kx in range(g.kernel_w):
                count["taps_of_4" if four else "taps_of_1"] += 1
                left = partners
                while left > 0:
                    others = left if not fused or left <= 35 else 32
                    left -= others
                    count["cleared_blocks"] += -(-others // 4)
                    rows = inside(in_h, out_h, g.stride_h, g.pad_h, ky)
                    columns = inside(in_w, out_w, g.stride_w, g.pad_w, kx)
                    count["taps_with_rows"] += bool(rows)
                    count["met_taps"] += bool(rows and columns)
                    at_most = 64 if others >= 4 else 32
                    at_once = at_most // min(len(columns), at_most) if columns else 1
                    for _ in range(0, len(rows), at_once):
                        count["row_chunks"] += bool(columns)
                        for _ in range(0, len(columns), at_most):
                            count["few_blocks_4" if four else "few_blocks_1"] += others < 4
                            count["whole_blocks_4x4" if four else "whole_blocks_1x4"] += others // 4
        j += 4 if four else 1
    return count


@st.composite
def convolutions(draw):
    kernel_h, kernel_w, pad_h, pad_w = (draw(st.integers(*ends)) for ends in ((1, 4), (1, 5), (0, 3), (0, 3)))
    strides = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    in_h, in_w = (
        max(draw(st.integers(1, 12)), kernel_h - 2 * pad_h),
        max(draw(st.integers(1, 90)), kernel_w - 2 * pad_w),
    )
    inputs, outputs, grouped = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.booleans())
    channels = (inputs, inputs * outputs) if grouped else (inputs, outputs)
    return Conv2d(in_h, in_w, *channels, kernel_h, kernel_w, *strides, pad_h, pad_w, inputs if grouped else 1)


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.sampled_from(["out", "in"]), st.integers(1, 9), st.sampled_from(["f32", "s8"]))
def test_loops_of_weight_gradients_are_counted_as_they_go_round(g, axis, trained, dtype):
    dtype = dtype if g.groups == 1 else "f32"
    op = Op(g, Pass.GRAD_WEIGHT, dtype, trained_channels=min(trained, g.channels(axis)), trained_axis=axis)
    names, counts = control_terms([op])
    found, expected = dict(zip(names, counts[0].tolist(), strict=True)), walked(op)
    counted = [name for name in names if name not in ("bias_calls", "weight_calls", "trained_biases", "listed_biases")]
    assert {name: found[name] for name in counted} == {name: expected[name] for name in counted}


@pytest.mark.parametrize(("axis", "trained"), [("out", 3), ("out", 36), ("out", 70), ("in", 7)])
def test_sums_that_are_applied_at_once_are_taken_for_some_outputs_at_a_time(axis, trained):
    op = Op(FusedConv2d(9, 7, 11, 90, 3, 2, 2, 1, 1, 1), Pass.UPDATE, "s8", trained_channels=trained, trained_axis=axis)
    names, counts = control_terms([op])
    expected = walked(op)
    assert expected["cleared_blocks"] > 0
    found = {name: n for name, n in zip(names, counts[0].tolist(), strict=True) if name in walked(op)}
    assert found == {name: expected[name] for name in found} and len(found) > 5


@pytest.mark.parametrize(
    ("trained", "axis", "bias", "counts"),
    [
        (3, "out", True, (1, 1, 3, 3)),
        (3, "in", True, (1, 1, 8, 0)),
        (0, "out", True, (1, 0, 8, 0)),
        (3, "out", False, (0, 1, 0, 0)),
    ],
)
def test_biases_are_those_of_channels_that_train_or_all(trained, axis, bias, counts):
    op = Op(Linear(5, 8), Pass.UPDATE, trained_channels=trained, trained_axis=axis, trains_bias=bias, optimizer="sgd")
    names, found = control_terms([op])
    assert names == ("bias_calls", "weight_calls", "trained_biases", "listed_biases")
    assert tuple(found[0].tolist()) == counts


def test_rows_of_an_int8_depthwise_convolution_by_hand():
    # 6 channels: a whole block and 2 left over. 3 x 2 taps: a pair of rows (4 taps) and a single one (2 taps). Windows
    # of the 5 x 6 output see 7 columns, the first outside: 5 of the map's rows, 6 pixels each.
    op = Op(Depthwise(5, 6, 6, 3, 2, 1, 1, 1, 1), Pass.FORWARD, "s8")
    assert (op.geometry.out_h, op.geometry.out_w) == (5, 7)
    names, counts = control_terms([op])
    found = dict(zip(names, counts[0].tolist(), strict=True))
    assert found == {
        "unrolled_rest": 5 * (6 % 4) + 4 % 4 + 2 % 4,
        "inside_rows": 2 * (4 + 5 + 4),  # the window's upper row lies above the map once, its lowest below it once
        "packed_rows": 2 * 1 * 5,
        "rest_pixels": 2 * 5 * 6,
        "rest_taps": 2 * (4 + 2),
    }


@pytest.mark.parametrize(
    ("rows", "columns", "counts"),
    [(1, 1, (0, 0, 0, 0)), (3, 1, (1, 0, 0, 4)), (1, 5, (0, 1, 0, 0)), (3, 5, (1, 1, 2, 4))],
)
@pytest.mark.parametrize("pass_", [Pass.FORWARD, Pass.GRAD_INPUT])
def test_sides_of_enlarged_maps_are_walked_where_there_are_neighbours(rows, columns, counts, pass_):
    names, found = control_terms([Op(UpsampleBilinear2d(rows, columns, 7), pass_)])
    assert names == ("tall_calls", "wide_calls", "wide_rows", "upright_pairs")
    assert tuple(found[0].tolist()) == counts


@pytest.mark.parametrize(
    ("mask", "counts"),
    [(MaskSource.NONE, (0, 0, 0, 0)), (MaskSource.OUTPUT, (1, 0, 6, 0)), (MaskSource.BITS, (0, 1, 0, 6))],
)
def test_each_way_to_mask_a_gradient_has_calls_and_rows_of_its_own(mask, counts):
    names, found = control_terms([Op(Requantize(6, 11, mask), Pass.GRAD_INPUT, "s8")])
    assert names == ("output_calls", "bit_calls", "output_rows", "bit_rows")
    assert tuple(found[0].tolist()) == counts


def test_other_kernels_have_none_and_every_term_is_described():
    names, counts = control_terms([Op(Linear(3, 4), Pass.FORWARD)])
    assert names == () and counts.shape == (1, 0)
    op = Op(Conv2d(4, 4, 3, 5, 3, 3), Pass.GRAD_WEIGHT, trained_channels=5)
    names, _ = known_terms([op], kernel_work)
    assert len(set(names)) == len(names)
    assert set(names) - CONTROL_TERMS.keys() - set(kernels.work(op)) == {"outside_rows"}


def test_a_model_of_an_earlier_version_keeps_its_terms():
    rng = np.random.default_rng(0)
    ops = [
        Op(Linear(int(n), 9), Pass.UPDATE, trained_channels=9, trains_bias=bool(n % 2), optimizer="sgd")
        for n in rng.permutation(200)[:30] + 1
    ]
    fitted = OpRegressor(method="terms").fit(ops, [float(100 + op.trained_weights) for op in ops])
    fitted.check(group_key(ops[0]))
    fitted.terms_ = fitted.terms_[:-2]
    names, counts = fitted.terms_of(ops)
    assert names == fitted.terms_ and counts.shape == (30, len(names))


@pytest.mark.parametrize(
    "group",
    [
        "conv2d/grad_weight/s8/blocked/out",
        "upsample_bilinear2d/forward/f32/blocked",
        "upsample_bilinear2d/grad_input/f32/blocked",
        "requantize/grad_input/s8/blocked",
    ],
)
def test_80_measured_ops_foretell_others_within_half_a_percent_and_by_counts_alone_not_half_as_well(group):
    measured, _ = read_warm_and_cold([ROOT / "measurements" / "qemu-mps2-an500" / "active-5m"], None)
    rows = [i for i, op in enumerate(measured.ops) if group_key(op) == group]
    ops, cost = [measured.ops[i] for i in rows], measured.latency_us[rows]
    order = np.random.default_rng(0).permutation(len(ops))
    some, others = order[:80], order[80:]
    errors = [
        100 * typical_size(NonNegativeTerms().fit(T[some], cost[some]).predict(T[others]) / cost[others] - 1, None)
        for T in (work_terms(ops, kernel_work)[1], known_terms(ops, kernel_work)[1])
    ]
    assert errors[1] < min(0.5, errors[0] / 2)
