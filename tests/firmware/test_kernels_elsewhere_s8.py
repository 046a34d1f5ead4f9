"""The int8 kernels where this machine is not: 64-bit Arm, and the emulated boards through the protocol."""

from __future__ import annotations

import dataclasses

import pytest
from op_cases import VARIANTS, seeded
from op_cases_s8 import KINDS_AND_PASSES_S8, check_s8, expected_s8, random_case_s8, random_op_s8
from test_kernels_elsewhere import aarch64, device  # noqa: F401 - fixtures

from profiler.measure.verify import expected_outputs, verify
from profiler.ops import Pass
from profiler.workloads.program import microbenchmark

#: Random ops of each kind and pass.
ON_ARM, ON_BOARDS = 40, 6


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES_S8)
def test_int8_kernels_agree_with_the_reference_on_64_bit_arm(kind: str, pass_: Pass, aarch64) -> None:  # noqa: F811
    rng = seeded("s8 arm", kind, pass_)
    for _ in range(ON_ARM):
        case = random_case_s8(random_op_s8(kind, pass_, rng), rng)
        reference = expected_s8(case)
        for variant in VARIANTS:
            case = dataclasses.replace(case, op=dataclasses.replace(case.op, variant=variant))
            check_s8(case, aarch64.execute(case), reference)


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES_S8)
def test_int8_kernels_agree_with_the_reference_on_devices(kind: str, pass_: Pass, device) -> None:  # noqa: F811
    rng = seeded("s8 devices", kind, pass_)
    for i in range(ON_BOARDS):
        program = microbenchmark(random_op_s8(kind, pass_, rng, VARIANTS[i % 2]), device.memory)
        verdict = verify(device, program, expected_outputs(program, i, device.memory), i)
        assert verdict.right, (program.name, verdict.sentence)
