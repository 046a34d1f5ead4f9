"""Terms beside the kernels' own counts: trips of loops written out, and where they are used."""

import numpy as np
import pytest

from costmodels.group import OpRegressor
from costmodels.uncounted import UNCOUNTED_TERMS, uncounted_terms
from profiler import kernels
from profiler.ops import Conv2d, Linear, MaskSource, Op, Pass, Requantize


def rows_without_columns(op, blocks):
    """Of every block, tap by tap: rows of the map that the tap meets, where it meets no column."""
    g = op.geometry
    height, width, _ = g.output_shape
    count = 0
    for _ in range(blocks):
        for ky in range(g.kernel_h):
            for kx in range(g.kernel_w):
                rows = [y for y in range(height) if 0 <= y * g.stride_h - g.pad_h + ky < g.in_h]
                columns = [x for x in range(width) if 0 <= x * g.stride_w - g.pad_w + kx < g.in_w]
                count += 0 if columns else len(rows)
    return count


@pytest.mark.parametrize(
    ("geometry", "dtype", "axis", "trained", "blocks"),
    [
        (Conv2d(29, 1, 7, 21, 7, 7, 1, 1, 3, 3), "f32", "out", 6, 1 + 2),
        (Conv2d(29, 1, 7, 21, 7, 7, 1, 1, 3, 3), "f32", "in", 5, 1 + 1),
        (Conv2d(6, 2, 9, 8, 3, 7, 2, 2, 1, 3), "s8", "out", 2, 2 + 1),  # of the inputs, whichever outputs train
        (Conv2d(5, 1, 8, 8, 3, 3, 1, 1, 1, 1, 4), "f32", "out", 3, 3),  # grouped: channels one by one
        (Conv2d(9, 9, 4, 4, 3, 3, 1, 1, 1, 1), "f32", "out", 4, 1),  # every tap meets some column
    ],
)
def test_rows_that_are_gone_over_in_vain(geometry, dtype, axis, trained, blocks):
    op = Op(geometry, Pass.GRAD_WEIGHT, dtype, trained_channels=trained, trained_axis=axis)
    names, counts = uncounted_terms([op])
    assert names == ("outside_rows",)
    assert counts.tolist() == [[rows_without_columns(op, blocks)]]


def test_only_some_kernels_leave_something_out():
    assert uncounted_terms([Op(Linear(3, 4), Pass.FORWARD), Op(Linear(5, 6, 0), Pass.FORWARD)])[1].tolist() == [
        [4],
        [0],
    ]
    for op in (Op(Linear(3, 4), Pass.GRAD_INPUT), Op(Conv2d(4, 4, 2, 2, 3, 3), Pass.FORWARD)):
        names, counts = uncounted_terms([op])
        assert names == () and counts.shape == (1, 0)


def test_a_bias_is_foretold_though_the_kernels_do_not_count_it():
    rng = np.random.default_rng(0)
    ops = [
        Op(Linear(int(n), int(m), int(bias)), Pass.FORWARD)
        for n, m, bias in zip(rng.integers(1, 60, 90), rng.integers(4, 99, 90), rng.integers(0, 2, 90), strict=True)
    ]
    cost = np.array([100 + kernels.work(op)["iterations"] + 5 * op.geometry.bias_elements for op in ops], dtype=float)
    fitted = OpRegressor(method="terms").fit(ops[:60], cost[:60])
    assert set(fitted.terms_) - set(kernels.work(ops[0])) == {"biased_outputs"} <= set(UNCOUNTED_TERMS)
    np.testing.assert_allclose(fitted.predict(ops[60:]), cost[60:], rtol=0.01)
    fitted.check("linear/forward/f32/blocked")  # does not take it for a kernel that changed


@pytest.mark.parametrize(
    ("mask", "channels", "counts"),
    [
        (MaskSource.NONE, 19, {"rows_by_nothing": 5, "rest_of_4_by_nothing": 15, "rest_of_16_by_nothing": 15}),
        (MaskSource.OUTPUT, 24, {"rows_by_output": 5, "rest_of_16_by_output": 40}),
        (MaskSource.BITS, 19, {}),
    ],
)
def test_what_fills_no_vector_is_counted_row_by_row(mask, channels, counts):
    names, found = uncounted_terms([Op(Requantize(5, channels, int(mask)), Pass.GRAD_INPUT, "s8")])
    assert {name: n for name, n in zip(names, found[0].tolist(), strict=True) if n} == counts
