"""Outputs that reach into what has been read of their input: the same bits as apart, down to the last byte allowed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from op_cases import VARIANTS, seeded
from op_cases_s8 import random_case_s8, random_op_s8, run_on_host

from profiler import kernels, ops
from profiler.ops import Op, Pass

TRAILING = [("conv2d", Pass.FORWARD), ("depthwise", Pass.GRAD_INPUT)]


def trailed(case, written: int, read: int, ahead: int) -> np.ndarray:
    """The written buffer after the kernel ran with both in one piece of memory."""
    source, result = case.buffers[read], case.buffers[written]
    memory = np.full(max(ahead + source.nbytes, result.nbytes) + 16, 0x5A, np.uint8)
    buffers = [values.copy() for values in case.buffers]
    buffers[read] = memory[ahead : ahead + source.nbytes].view(source.dtype).reshape(source.shape)
    buffers[read][...] = source
    buffers[written] = memory[: result.nbytes].view(result.dtype).reshape(result.shape)
    kernels.run(case.op, buffers, case.constants, quantization=case.quantization)
    return buffers[written].copy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "pass_"), TRAILING)
def test_trailing_gives_the_same_bits(kind: str, pass_: Pass, variant: str) -> None:
    rng = seeded("trailing", kind, pass_)
    tried = 0
    for _ in range(250):
        op = dataclasses.replace(random_op_s8(kind, pass_, rng), variant=variant)
        for written, (read, ahead) in kernels.trailing(op).items():
            case = random_case_s8(op, rng)
            assert np.array_equal(trailed(case, written, read, ahead), run_on_host(case)[written]), op.key
            tried += 1
    assert tried > 100


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_layer_of_a_network_needs_little_more_than_its_output(variant: str) -> None:
    op = Op(ops.Conv2d(128, 128, 3, 16, 3, 3, 2, 2, 1, 1), Pass.FORWARD, "s8", variant=variant)
    ((written, (read, ahead)),) = kernels.trailing(op).items()
    specs = op.buffers()
    together = max(ahead + specs[read].byte_count, specs[written].byte_count)
    assert together < 1.1 * specs[written].byte_count
    case = random_case_s8(op, seeded("first layer"))
    assert np.array_equal(trailed(case, written, read, ahead), run_on_host(case)[written])


def test_without_the_distance_the_result_is_wrong() -> None:
    """The test above can fail: half the distance, and what is still needed is gone."""
    op = Op(ops.Conv2d(16, 16, 8, 16, 3, 3, 1, 1, 1, 1), Pass.FORWARD, "s8")
    ((written, (read, ahead)),) = kernels.trailing(op).items()
    case = random_case_s8(op, seeded("too near"))
    assert not np.array_equal(trailed(case, written, read, ahead // 2), run_on_host(case)[written])
