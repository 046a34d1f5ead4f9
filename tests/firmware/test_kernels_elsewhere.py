"""The kernels where this machine is not: 64-bit Arm, and the emulated boards through the protocol.

On 64-bit Arm the cases are those of test_kernels.py, run by a small program linked with the agent's own objects. On
devices, ops are run by the firmware on inputs that it makes itself and judged by their digests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import op_references
import pytest
from op_cases import CASES, KINDS_AND_PASSES, VARIANTS, Case, random_case, random_op, seeded
from op_references import assert_right, check_all
from runner_executor import RunnerExecutor, compiled_runner
from scipy.optimize import nnls

from profiler import kernels, ops, prng
from profiler.link.session import Device, open_device
from profiler.measure.verify import Expected
from profiler.ops import Op, Pass
from profiler.workloads.entries import BLOB_REGION, DeviceMemory, offset_of, region_of
from profiler.workloads.program import DoesNotFit, Program, microbenchmark

# ---- 64-bit Arm, in QEMU's user mode


@pytest.fixture(scope="module")
def aarch64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerExecutor]:
    folder = tmp_path_factory.mktemp("runner")
    runner = compiled_runner(folder, "linux-aarch64", ["aarch64-linux-gnu-gcc", "-static"])
    executor = RunnerExecutor(["qemu-aarch64-static", runner])
    yield executor
    executor.close()


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES)
def test_kernels_agree_with_torch_on_64_bit_arm(kind: str, pass_: Pass, aarch64: RunnerExecutor) -> None:
    rng = seeded(kind, pass_)  # the same cases as on this machine
    for _ in range(CASES):
        case = random_case(random_op(kind, pass_, rng), rng)
        reference = op_references.expected(case)
        for variant in VARIANTS:
            case = dataclasses.replace(case, op=dataclasses.replace(case.op, variant=variant))
            check_all(case, aarch64.execute(case), reference)


# ---- devices, through the protocol


@pytest.fixture(
    scope="module", params=["qemu://stm32f405", "qemu://stm32f205", "qemu://mps2-an500", "native://aarch64"]
)
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with open_device(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def stm32f405() -> Iterator[Device]:
    with open_device("qemu://stm32f405") as opened:
        yield opened


def with_channels(program: Program, channels: np.ndarray | None) -> Program:
    """The program, its op training these channels."""
    if channels is None:
        return program
    *fills, entry = program.entries
    return dataclasses.replace(
        program, entries=(*fills, dataclasses.replace(entry, channels=tuple(map(int, channels))))
    )


def case_of(program: Program, seed: int, memory: DeviceMemory) -> Case:
    """What the one op of a program finds in its buffers."""
    *fills, entry = program.entries
    tensors: dict[str, np.ndarray] = {}
    for fill in (e.fill for e in fills):
        words = prng.fill(fill.mode, fill.parameter, seed, fill.stream, fill.elements)
        tensors |= {s.name: words[s.first : s.first + s.elements] for s in fill.slices}
    buffers = []
    for spec, name, reference in zip(entry.op.buffers(), entry.tensors, entry.references, strict=False):
        if region_of(reference) == BLOB_REGION:
            values = prng.blob_window(
                memory.blob_seed, memory.blob_segments, memory.blob_bytes, offset_of(reference), spec.elements
            )
        else:
            values = tensors.get(name, np.full(spec.elements, np.nan))
        buffers.append(values.astype(np.int32 if spec.role == "label" else np.float32).reshape(spec.shape))
    constants = kernels.StepConstants(*(program.constants.wire() if program.constants else ()))
    channels = None if entry.channels is None else np.array(entry.channels, np.uint16)
    return Case(entry.op, tuple(buffers), constants, channels)


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES)
def test_kernels_agree_with_torch_on_devices(kind: str, pass_: Pass, device: Device) -> None:
    rng = seeded(kind, pass_, "devices")
    for i in range(8):
        op = random_op(kind, pass_, rng, VARIANTS[i % 2])
        program = with_channels(microbenchmark(op, device.memory), random_case(op, rng).channels)
        case = case_of(program, seed=i, memory=device.memory)
        reference = op_references.expected(case)
        device.run(program, 0, warmups=1, seed=i)
        roles = dict(zip(program.entries[-1].tensors, (spec.role for spec in op.buffers()), strict=True))
        assert {roles[output.name] for output in program.outputs} == set(reference)
        for output in program.outputs:
            wanted = reference[roles[output.name]]
            error = Expected.of(wanted).error(device.digest(output.reference, output.elements))
            assert_right(case, roles[output.name], error, wanted)


# ---- the cost model rests on this


def network_like(kind: str, pass_: Pass, rng: np.random.Generator) -> Op:
    size, channels, out = (int(rng.choice(c)) for c in ((4, 5, 6, 7, 8, 10), (8, 12, 16, 24, 32), (8, 16, 20, 24, 32)))
    kernel, stride = int(rng.choice((1, 3, 5, 7))), int(rng.choice((1, 2)))
    window, pads = (size, size, channels), kernel // 2
    if kind == "conv2d":
        g = ops.Conv2d(*window, out, kernel, kernel, stride, stride, pads, pads)
    elif kind == "group_norm":
        groups = int(rng.integers(1, 5))
        g = ops.GroupNorm(size, int(rng.integers(3, 11)), groups * int(rng.choice((4, 7, 8, 10))), groups)
    elif kind == "upsample_bilinear2d":
        g = ops.UpsampleBilinear2d(size, int(rng.integers(1, 9)), channels + int(rng.integers(3)))
    elif kind == "depthwise":
        g = ops.Depthwise(*window, kernel, kernel, stride, stride, pads, pads)
    else:
        g = ops.Linear(channels * size, out)
    if pass_ is not Pass.GRAD_WEIGHT:
        return Op(g, pass_)
    k = max(1, int(g.channels("out") * rng.choice((0.125, 0.25, 0.5, 1))))
    return Op(g, pass_, trained_channels=k, trains_bias=True)


@pytest.mark.parametrize(
    ("kind", "pass_"),
    [
        (kind, pass_)
        for kind in ("conv2d", "depthwise", "linear", "group_norm", "upsample_bilinear2d")
        for pass_ in ops.GEOMETRIES[kind].passes
        if pass_ is not Pass.UPDATE
    ],
)
def test_instructions_are_a_linear_function_of_the_work_counts(kind: str, pass_: Pass, stm32f405: Device) -> None:
    rng, rows = seeded(kind, pass_, "linear"), {}
    empty = int(stm32f405.run(microbenchmark(Op(ops.Empty(), Pass.FORWARD), stm32f405.memory), 1).ticks[0, 0])
    while len(rows) < 80:
        op = network_like(kind, pass_, rng)
        try:
            rows[op] = int(stm32f405.run(microbenchmark(op, stm32f405.memory), 1).ticks[0, 0]) - empty
        except DoesNotFit:
            continue
    counts = np.array([[n for name, n in kernels.work(op).items() if not name.startswith("bytes_")] for op in rows])
    relative = counts / np.array(list(rows.values()))[:, None]  # rows that sum to 1 with the right coefficients
    scale = np.maximum(relative.max(axis=0), 1e-30)
    coefficients, _ = nnls(relative[:60] / scale, np.ones(60))
    errors = np.abs(relative[60:] / scale @ coefficients - 1)  # ops that the fit did not see
    assert errors.mean() < 0.005
    assert errors.max() < 0.02
