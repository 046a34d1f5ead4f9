"""Outputs that reach into what has been read of their input: the same bits as apart, down to the last byte allowed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from op_cases import VARIANTS, seeded
from op_cases_s8 import random_case_s8, random_op_s8, run_on_host

from profiler import kernels, ops
from profiler.link.errors import Refused
from profiler.link.session import open_device
from profiler.ops import Op, Pass
from profiler.workloads.program import microbenchmark

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


def literal_ahead(op: Op) -> int:
    """The distance row by row: what has been written less what later rows no longer need."""
    g = op.geometry
    out_h, out_w = ((i + 2 * p - k) // s + 1 for i, p, k, s in ((g.in_h, g.pad_h, g.kernel_h, g.stride_h),
                                                               (g.in_w, g.pad_w, g.kernel_w, g.stride_w)))  # fmt: skip
    ahead = 0
    if isinstance(g, ops.Conv2d):
        again = 1 if out_w >= 4 else 4
        for row in range(out_h):
            needed = max(0, (row - again) * g.stride_h - g.pad_h)
            ahead = max(ahead, (row + 1) * out_w * g.out_channels - needed * g.in_w * g.in_channels)
        return ahead
    for row in range(g.in_h):
        met = max(0, (row + g.pad_h - g.kernel_h + g.stride_h) // g.stride_h)
        ahead = max(ahead, (row + 1) * g.in_w - met * out_w)
    return ahead * g.in_channels * 4


@pytest.mark.parametrize("kind", ["conv2d", "depthwise"])
def test_the_distance_is_the_most_over_all_rows(kind: str) -> None:
    """It is computed from a few of them, however many there are."""
    rng = seeded("distance", kind)
    some = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    tried = 0
    for _ in range(3000):
        largest = 20_000 if rng.random() < 0.01 else 20
        pad_h, pad_w = some(0, largest if rng.random() < 0.1 else 6), some(0, 6)
        in_h, in_w = some(1, largest), some(1, 12)
        window = {"kernel_h": some(1, min(8, in_h + 2 * pad_h)), "kernel_w": some(1, min(8, in_w + 2 * pad_w)),
                  "stride_h": some(1, 9), "stride_w": some(1, 9), "pad_h": pad_h, "pad_w": pad_w}  # fmt: skip
        if kind == "conv2d":
            op = Op(ops.Conv2d(in_h, in_w, some(1, 6), some(1, 6), **window), Pass.FORWARD, "s8")
        else:
            op = Op(ops.Depthwise(in_h, in_w, some(1, 6), **window), Pass.GRAD_INPUT, "s8")
        wanted = literal_ahead(op)
        assert [ahead for _, ahead in kernels.trailing(op).values()] == ([wanted] if wanted else []), op.key
        tried += wanted > 0
    assert tried > 1000


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


@pytest.mark.parametrize(("kind", "pass_"), TRAILING)
def test_a_device_lets_an_output_trail_at_the_distance_and_no_nearer(kind: str, pass_: Pass) -> None:
    rng = seeded("trailing device", kind, pass_)
    with open_device("native://") as device:
        for _ in range(10):
            op = random_op_s8(kind, pass_, rng)
            if not kernels.trailing(op):
                continue
            ((written, (read, ahead)),) = kernels.trailing(op).items()
            program = microbenchmark(op, device.memory)
            entry = program.entries[-1]
            far = -(-ahead // 16) * 16
            for distance, refused in ((far, False), (far - 16, True)):
                # All the rest moves up, behind the two.
                behind = far + sum(-(-spec.byte_count // 16) * 16 for spec in op.buffers())
                places = [r + behind if r % 16 == 0 else r for r in entry.references]
                places[written], places[read] = 0, distance
                moved = dataclasses.replace(entry, references=tuple(places))
                placed = dataclasses.replace(
                    program,
                    entries=(moved,),
                    setup_end=0,
                    image_end=0,
                    body_end=1,
                    arena_bytes=program.arena_bytes + behind,
                )
                if refused:
                    with pytest.raises(Refused, match="overlap"):
                        device.run(placed, 1)
                else:
                    device.run(placed, 1)
