"""The agents for Raspberry Pi, in QEMU's user mode: results hold there, times mean nothing."""

import re
import shutil
import subprocess

import pytest

from profiler.devices.build import artifact, build
from profiler.link.session import open_device
from profiler.measure import verify
from profiler.ops import Conv2d, Depthwise, Linear, Op, Pass
from profiler.workloads.program import microbenchmark

CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
SAMPLE = [
    Op(Conv2d(9, 7, 6, 11, 3, 3, 2, 2, 1, 1), Pass.FORWARD),
    Op(Conv2d(8, 8, 16, 24, 1, 1), Pass.GRAD_INPUT),
    Op(Conv2d(8, 8, 16, 24, 1, 1), Pass.GRAD_WEIGHT, trained_channels=6, trains_bias=True),
    Op(Depthwise(9, 9, 13, 5, 5, 1, 1, 2, 2), Pass.FORWARD),
    Op(Depthwise(9, 9, 13, 3, 3, 2, 2, 1, 1), Pass.GRAD_INPUT),
    Op(Linear(37, 10), Pass.FORWARD),
    Op(Linear(37, 10), Pass.UPDATE, trained_channels=10, trains_bias=True),
]


@pytest.fixture(scope="module", params=CORES)
def device(request):
    with open_device(f"native://{request.param}") as opened:
        yield opened


def test_it_says_what_it_was_built_for_and_where_it_runs(device):
    identity = device.identity
    assert identity.board == f"linux-{device.url.partition('://')[2]}"
    assert f"-mcpu={device.url.partition('://')[2]}" in identity.flags
    assert (identity.fpu, identity.core, identity.timer) == ("NEON", "QEMU user mode", "clock_monotonic_raw")
    assert device.state().trigger == ""


@pytest.mark.parametrize("op", SAMPLE, ids=lambda op: op.key)
def test_ops_are_right(device, op):
    program = microbenchmark(op, device.memory)
    verdict = verify.verify(device, program, verify.expected_outputs(program, 5, device.memory), 5)
    assert verdict.right, verdict.sentence


@pytest.mark.parametrize("core", CORES[:2])
def test_what_the_emulator_cannot_give_is_said_and_done_without(core):
    build(f"linux-{core}")
    ended = subprocess.run(
        ["qemu-aarch64-static", artifact(f"linux-{core}"), "--core", "0", "--realtime", "--timer", "cycles", "--stdio"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    assert re.search(r"agent: no timing by cycles: .*; timing by clock_monotonic_raw\n", ended.stderr)
    assert "cannot pin" not in ended.stderr


#: Kernels whose inner loops multiply and add four numbers at once: how many such instructions the densest loop has. A
#: panel of 16 outputs takes 16 a step for four pixels, a block of 4 outputs or channels takes 4.
VECTOR_KERNELS = {
    "conv2d_forward_f32": 16,
    "conv2d_grad_input_f32": 4,
    "conv2d_grad_weight_f32": 4,
    "depthwise_forward_f32": 4,
    "depthwise_grad_input_f32": 4,
}
BRANCH = re.compile(r"\t(?:b|b\.\w+|bl|cbn?z|tbn?z|ret)\t?")


@pytest.mark.parametrize("core", CORES)
def test_inner_loops_are_neon(core):
    objdump = "aarch64-linux-gnu-objdump"
    if shutil.which(objdump) is None:
        pytest.skip(f"no {objdump}")
    objects = {path.name.partition(".")[0]: path for path in (build(f"linux-{core}") / "kernels").rglob("*.o")}
    for kernel, wanted in VECTOR_KERNELS.items():
        listing = subprocess.run(
            [objdump, "-d", "--no-show-raw-insn", objects[kernel]], capture_output=True, text=True, check=True
        ).stdout
        straight = [len(re.findall(r"\bfmla\tv\d+\.4s", stretch)) for stretch in BRANCH.split(listing)]
        assert max(straight) >= wanted, kernel
