"""The blocked int8 forward kernels: in place, with the DSP extension's instructions, on devices, and what they cost."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from op_cases import seeded
from op_cases_s8 import expected_s8, random_case_s8, random_op_s8
from scipy.optimize import nnls

from profiler import kernels, ops
from profiler.devices import build
from profiler.link.session import Device, open_device
from profiler.measure.verify import expected_outputs, verify
from profiler.ops import Op, Pass
from profiler.workloads.program import DoesNotFit, microbenchmark

KINDS = ("conv2d", "depthwise", "linear")


def test_a_depthwise_convolution_in_place_gives_what_it_gives_apart() -> None:
    """Any stride, padding and number of channels, the output over the input and in memory of its own."""
    rng, over = seeded("s8 depthwise in place"), 0
    for _ in range(250):
        case = random_case_s8(random_op_s8("depthwise", Pass.FORWARD, rng, "in_place"), rng)
        wanted = expected_s8(case)["output"]
        apart = [values.copy() for values in case.buffers]
        kernels.run(case.op, apart, quantization=case.quantization)
        assert np.array_equal(apart[-1], wanted), case.op.key
        if wanted.size > case.buffers[0].size:
            continue
        over += 1
        shared = case.buffers[0].copy()
        view = shared.reshape(-1)[: wanted.size].reshape(wanted.shape)
        kernels.run(case.op, [shared, *case.buffers[1:-1], view], quantization=case.quantization)
        assert np.array_equal(view, wanted), case.op.key
    assert over > 100


def test_the_dsp_instructions_rescale_as_the_portable_code_does(tmp_path: Path) -> None:
    """Every rounding and sign, and 400,000 random accumulators, on the emulated Cortex-M4."""
    image, source = tmp_path / "rescale_check.elf", Path(__file__).with_name("rescale_check.c")
    subprocess.run(
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror",
         "-I", build.FIRMWARE_ROOT / "kernels", source, "-nostdlib", "-lgcc", "-Wl,-e,reset",
         "-Wl,--section-start=.vectors=0x08000000", "-Wl,--section-start=.text=0x08000100",
         "-Wl,--no-warn-rwx-segments", "-o", image], check=True,
    )  # fmt: skip
    done = subprocess.run(
        ["qemu-system-arm", "-M", "netduinoplus2", "-nographic", "-monitor", "none", "-serial", "none", "-semihosting",
         "-kernel", image], stdin=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@pytest.fixture(scope="module", params=["qemu://stm32f405", "qemu://mps2-an500"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    with open_device(request.param) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_devices_compute_the_integer_reference_bit_for_bit(kind: str, device: Device) -> None:
    rng, checked = seeded("s8 devices", kind), 0
    variants = ("blocked", "in_place") if kind == "depthwise" else ("blocked",)
    for i in range(16):
        op = random_op_s8(kind, Pass.FORWARD, rng, variants[i % len(variants)])
        try:
            program = microbenchmark(op, device.memory)
        except DoesNotFit:
            continue
        verdict = verify(device, program, expected_outputs(program, i, device.memory), seed=i)
        assert verdict.right, (op.key, verdict.sentence)
        checked += 1
    assert checked >= 12


def network_like(kind: str, rng: np.random.Generator) -> Op:
    pick = lambda *values: int(rng.choice(values))  # noqa: E731
    size, channels, out = pick(4, 5, 6, 7, 8, 10, 12), pick(8, 12, 16, 20, 24, 32), pick(8, 16, 20, 24, 32)
    kernel, stride = pick(1, 3, 5, 7), pick(1, 2)
    window = (kernel, kernel, stride, stride, kernel // 2, kernel // 2)
    match kind:
        case "conv2d":
            g = ops.Conv2d(size, size, channels, out, *window)
        case "depthwise":
            g = ops.Depthwise(size, size, channels, *window)
        case _:
            g = ops.Linear(channels * size, out)
    axis = "out" if kind == "depthwise" or rng.random() < 0.5 else "in"
    k = int(g.channels(axis) * rng.choice((0, 0.125, 0.25, 0.5, 1)))
    return Op(g, Pass.FORWARD, "s8", k, axis)


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_are_a_linear_function_of_the_work_counts(kind: str) -> None:
    rng, rows = seeded("s8 linear", kind), {}
    with open_device("qemu://stm32f405") as device:
        empty = int(device.run(microbenchmark(Op(ops.Empty(), Pass.FORWARD), device.memory), 1).ticks[0, 0])
        while len(rows) < 80:
            op = network_like(kind, rng)
            try:
                rows[op] = int(device.run(microbenchmark(op, device.memory), 1).ticks[0, 0]) - empty
            except DoesNotFit:
                continue
    counts = np.array([[n for name, n in kernels.work(op).items() if not name.startswith("bytes_")] for op in rows])
    relative = counts / np.array(list(rows.values()))[:, None]  # rows that sum to 1 with the right coefficients
    scale = np.maximum(relative.max(axis=0), 1e-30)
    coefficients, _ = nnls(relative[:60] / scale, np.ones(60))
    errors = np.abs(relative[60:] / scale @ coefficients - 1)  # ops that the fit did not see
    assert errors.mean() < 0.005, (errors.mean(), errors.max())
    assert errors.max() < 0.02, errors.max()


def test_a_scratch_that_no_memory_holds_is_refused_and_does_not_wrap_around() -> None:
    op = Op(ops.Depthwise(65535, 1, 1, 65535, 1, 1, 1, 0, 65535), Pass.FORWARD, "s8")
    assert kernels.scratch_bytes(op) > 1 << 31
    small = dataclasses.replace(op, geometry=ops.Depthwise(12, 12, 32, 3, 3, 1, 1, 1, 1))
    assert kernels.scratch_bytes(small) < 1024
