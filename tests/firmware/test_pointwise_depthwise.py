"""A pointwise convolution streamed into a depthwise one: its ring of rows, its scratch, and what it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from op_cases import seeded
from op_cases_s8 import check_s8, expected_s8, random_case_s8, random_op_s8, run_on_host
from scipy.optimize import nnls

from profiler import kernels
from profiler.link.session import Device, open_device
from profiler.measure.verify import expected_outputs, memory_mismatch, verify
from profiler.ops import Conv2d, Depthwise, Empty, Op, Pass, PointwiseDepthwise
from profiler.workloads.program import DoesNotFit, microbenchmark

#: in_h, in_w, in_channels, mid_channels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w
BORDERS = {
    "a kernel taller and wider than the map": (2, 3, 5, 6, 7, 7, 1, 1, 3, 3),
    "a kernel as large as the map": (4, 5, 3, 8, 4, 5, 1, 1, 0, 0),
    "strides larger than the kernel": (11, 14, 4, 9, 2, 3, 4, 5, 0, 1),
    "rows and columns that no window sees": (9, 8, 4, 8, 1, 1, 2, 3, 0, 0),
    "a 1 x 1 kernel": (5, 6, 7, 10, 1, 1, 1, 1, 0, 0),
    "windows that see only padding": (1, 1, 2, 5, 1, 1, 2, 2, 1, 1),
    "rows that see only padding": (3, 7, 2, 5, 2, 3, 1, 1, 4, 1),
    "columns that see only padding": (7, 3, 2, 5, 3, 2, 1, 1, 1, 4),
    "all of the rows new each time": (12, 5, 6, 8, 3, 3, 3, 1, 0, 1),
    "two new rows beside kept ones": (13, 8, 6, 8, 5, 5, 2, 2, 2, 2),
    "an even kernel": (8, 8, 6, 8, 4, 4, 1, 1, 2, 1),
    "rows not seen at the bottom": (10, 10, 6, 8, 3, 3, 4, 4, 0, 0),
    "one column": (9, 1, 6, 8, 3, 1, 1, 1, 1, 0),
    "fewer than four channels": (6, 7, 2, 3, 3, 3, 2, 1, 1, 1),
    "one channel": (6, 7, 1, 1, 3, 3, 1, 1, 1, 1),
    "one channel of 1 x 1": (1, 1, 1, 1, 1, 1, 1, 1, 0, 0),
}


@pytest.mark.parametrize("values", BORDERS.values(), ids=BORDERS.keys())
@pytest.mark.parametrize("biases", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_borders_of_the_ring(values: tuple[int, ...], biases: tuple[int, int]) -> None:
    rng = seeded("streamed", values, biases)
    op = Op(PointwiseDepthwise(*values, *biases), Pass.FORWARD, "s8")
    for _ in range(5):
        case = random_case_s8(op, rng)
        check_s8(case, run_on_host(case), expected_s8(case))


def test_the_scratch_is_some_rows_and_does_not_grow_with_the_map() -> None:
    """Three rows of the tensor in between, and little beside; the tensor itself would be 21 times as large."""
    op = Op(PointwiseDepthwise(64, 64, 16, 96, 3, 3, 1, 1, 1, 1), Pass.FORWARD, "s8")
    taller = dataclasses.replace(op, geometry=dataclasses.replace(op.geometry, in_h=640))
    assert 3 * 64 * 96 < kernels.scratch_bytes(op) < 1.1 * 3 * 64 * 96
    assert kernels.scratch_bytes(taller) == kernels.scratch_bytes(op)


def test_a_scratch_that_no_memory_holds_does_not_wrap_around() -> None:
    op = Op(PointwiseDepthwise(65535, 1, 1, 1, 65535, 1, 1, 1, 0, 65535), Pass.FORWARD, "s8")
    assert kernels.scratch_bytes(op) > 1 << 31


@pytest.fixture(scope="module", params=["qemu://stm32f405", "qemu://mps2-an500", "native://sanitize"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with open_device(request.param) as opened:
        yield opened


def test_devices_compute_the_reference_bit_for_bit_in_the_scratch_that_was_planned(device: Device) -> None:
    rng = seeded("streamed devices")
    ops = [Op(PointwiseDepthwise(*values, 1, 1), Pass.FORWARD, "s8") for values in BORDERS.values()]
    ops += [random_op_s8("pointwise_depthwise", Pass.FORWARD, rng) for _ in range(16)]
    for seed, op in enumerate(ops):
        program = microbenchmark(op, device.memory)
        verdict = verify(device, program, expected_outputs(program, seed, device.memory), seed)
        assert verdict.right, (op.key, verdict.sentence)
        assert memory_mismatch(program, device.run(program, 0, 1)) == "", op.key


def ticks(device: Device, op: Op) -> int:
    return int(device.run(microbenchmark(op, device.memory), 1).ticks[0, 0])


def test_it_costs_little_more_than_the_two_ops_apart() -> None:
    """What the memory is bought with, in instructions."""
    with open_device("qemu://mps2-an500") as device:
        for size, channels, mid, kernel, stride in ((64, 8, 24, 3, 1), (32, 8, 48, 3, 2), (24, 16, 48, 7, 1)):
            window = (kernel, kernel, stride, stride, kernel // 2, kernel // 2)
            empty = ticks(device, Op(Empty(), Pass.FORWARD))
            streamed, pointwise, depthwise = (
                ticks(device, Op(geometry, Pass.FORWARD, "s8")) - empty
                for geometry in (
                    PointwiseDepthwise(size, size, channels, mid, *window),
                    Conv2d(size, size, channels, mid, 1, 1),
                    Depthwise(size, size, mid, *window),
                )
            )
            assert streamed < 1.05 * (pointwise + depthwise)


def network_like(rng: np.random.Generator) -> Op:
    """Small maps too, and channels that four does not divide: there rows and blocks of channels cost the most."""
    pick = lambda *values: int(rng.choice(values))  # noqa: E731
    height, width = pick(5, 7, 8, 10, 12, 16, 20), pick(5, 7, 8, 10, 12, 14, 16, 20, 24)
    channels, mid = pick(3, 4, 8, 10, 16, 18, 20, 24), pick(2, 3, 8, 14, 16, 24, 32, 40, 48)
    kernel, stride = pick(1, 3, 5, 7), pick(1, 2)
    window = (kernel, kernel, stride, stride, kernel // 2, kernel // 2)
    return Op(PointwiseDepthwise(height, width, channels, mid, *window), Pass.FORWARD, "s8")


def test_instructions_are_a_linear_function_of_the_work_counts() -> None:
    rng, rows = seeded("streamed linear"), {}
    with open_device("qemu://stm32f405") as device:
        empty = ticks(device, Op(Empty(), Pass.FORWARD))
        while len(rows) < 120:
            op = network_like(rng)
            try:
                rows[op] = ticks(device, op) - empty
            except DoesNotFit:
                continue
    counts = np.array([[n for name, n in kernels.work(op).items() if not name.startswith("bytes_")] for op in rows])
    relative = counts / np.array(list(rows.values()))[:, None]  # rows that sum to 1 with the right coefficients
    scale = np.maximum(relative.max(axis=0), 1e-30)
    coefficients, _ = nnls(relative[:90] / scale, np.ones(90))
    errors = np.abs(relative[90:] / scale @ coefficients - 1)  # ops that the fit did not see
    assert errors.mean() < 0.005, (errors.mean(), errors.max())
    assert errors.max() < 0.02, errors.max()
