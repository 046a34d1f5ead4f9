"""Work counts of many ops at once are those that each op has by itself."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import KINDS_AND_PASSES, random_op, seeded
from op_cases_s8 import KINDS_AND_PASSES_S8, random_op_s8

from costmodels.features import kernel_work, work_terms
from profiler import kernels
from profiler.ops import Empty, Linear, Op, Pass, Relu
from profiler.work_counts import work_counts

KERNELS = [
    *((kind, pass_, "f32", "blocked") for kind, pass_ in [*KINDS_AND_PASSES, ("empty", Pass.FORWARD)]),
    *((kind, pass_, "s8", "blocked") for kind, pass_ in KINDS_AND_PASSES_S8),
    ("conv2d", Pass.GRAD_WEIGHT, "f32", "reference"),
    ("depthwise", Pass.FORWARD, "s8", "in_place"),
]


@pytest.mark.parametrize(("kind", "pass_", "dtype", "variant"), KERNELS)
def test_counts_of_many_are_those_of_each(kind, pass_, dtype, variant):
    rng, draw = seeded("many", kind, pass_, dtype), random_op if dtype == "f32" else random_op_s8
    ops = [draw(kind, pass_, rng, variant) for _ in range(40)]
    ops = [op for op in ops if kernels.library().op_valid(kernels.c_op(op))]
    assert ops
    each = [dict(kernels.work(op)) for op in ops]
    for names, counts in (work_counts(ops), work_terms(ops, kernel_work)):
        assert counts.shape == (len(ops), len(names))
        assert counts.dtype == np.float64
        assert [dict(zip(names, row, strict=True)) for row in counts.tolist()] == each


def test_what_has_no_fields_is_counted_too():
    assert work_counts([Op(Empty(), Pass.FORWARD)] * 3)[1][:, 0].tolist() == [1, 1, 1]


def test_an_op_that_the_firmware_does_not_take_is_refused_as_by_itself():
    good = Op(Linear(4, 2), Pass.FORWARD)
    for bad in (Op(Linear(65536, 2), Pass.FORWARD), Op(Linear(65535, 65535), Pass.FORWARD)):
        with pytest.raises(ValueError, match=r"firmware .*linear/forward") as alone:
            kernels.work(bad)
        with pytest.raises(ValueError, match="firmware") as among:
            work_counts([good, bad])
        assert str(among.value) == str(alone.value)
    wide = Op(Relu(1 << 33), Pass.FORWARD)
    with pytest.raises(ValueError, match="no room for relu/forward"):
        work_counts([Op(Relu(4), Pass.FORWARD), wide])
    with pytest.raises(ValueError, match="no kernel for linear forward f32 in_place"):
        work_counts([Op(Linear(4, 2), Pass.FORWARD, variant="in_place")])


def test_ops_of_different_kernels_are_refused():
    with pytest.raises(ValueError, match="different kernels"):
        work_counts([Op(Linear(4, 2), Pass.FORWARD), Op(Linear(4, 2), Pass.GRAD_INPUT)])
