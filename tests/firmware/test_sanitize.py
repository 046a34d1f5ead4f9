"""Address and undefined-behaviour sanitizers over the host build: kernels in buffers of exact size, and a session."""

from __future__ import annotations

import dataclasses

import numpy as np
import op_references
import pytest
from op_cases import KINDS_AND_PASSES, VARIANTS, random_case, random_op, seeded
from op_cases_s8 import KINDS_AND_PASSES_S8, check_s8, expected_s8, random_case_s8, random_op_s8
from op_references import check_all
from runner_executor import RunnerExecutor, compiled_runner

from profiler.link.errors import Refused
from profiler.link.session import open_device
from profiler.measure.verify import expected_outputs, verify
from profiler.ops import Linear, Op, Pass
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import microbenchmark, step_program
from profiler.workloads.step import training_step

pytestmark = pytest.mark.slow
#: Random geometries of each kind and pass, besides those of the other tests.
CASES = 12
FLAGS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanitized")
    executor = RunnerExecutor([compiled_runner(folder, "linux-sanitize", ["gcc", *FLAGS, "-DGUARD_WORDS=0"])])
    yield executor
    executor.close()


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES)
def test_kernels_stay_within_their_buffers_and_within_the_language(kind, pass_, sanitized):
    rng = seeded(kind, pass_)
    for _ in range(CASES):
        case = random_case(random_op(kind, pass_, rng), rng)
        reference = op_references.expected(case)
        for variant in VARIANTS:
            case = dataclasses.replace(case, op=dataclasses.replace(case.op, variant=variant))
            check_all(case, sanitized.execute(case), reference)


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES_S8)
def test_int8_kernels_stay_within_their_buffers_and_within_the_language(kind, pass_, sanitized):
    rng = seeded("s8", kind, pass_)
    for _ in range(CASES):
        case = random_case_s8(random_op_s8(kind, pass_, rng), rng)
        reference = expected_s8(case)
        in_place = ["in_place"] if (kind, pass_) == ("depthwise", Pass.FORWARD) else []
        for variant in [*VARIANTS, *in_place]:
            case = dataclasses.replace(case, op=dataclasses.replace(case.op, variant=variant))
            check_s8(case, sanitized.execute(case), reference)


def test_a_session_of_ops_a_step_and_refusals_comes_to_no_report():
    rng = np.random.default_rng(8)
    _, network = load_network("mcunet-5fps", (3, 32, 32))
    layers = {layer.name: LayerPlan((0, 2), bias=True) for layer in network.trainable[-6:-2]}
    step = training_step(network, StepPlan.for_network(network, layers))
    with open_device("native://sanitize") as device:
        for kind, pass_ in KINDS_AND_PASSES:
            program = microbenchmark(random_op(kind, pass_, rng), device.memory)
            assert verify(device, program, expected_outputs(program, 1, device.memory), 1).right, program.name
        for cold in (False, True):
            assert len(device.run(program, 60, 2, cold=cold).ticks) == 60  # ticks in pages
        program = step_program(step, device.memory)
        device.run(program, 1, 1)  # stored with begin, append and seal
        broken = dataclasses.replace(program, arena_bytes=64)
        with pytest.raises(Refused):
            device.run(broken, 1)
        assert len(device.peek(0, 2000)) == 2000
        with pytest.raises(Refused):
            device.peek(0xFFFFFFF0, 16)
        linear = microbenchmark(Op(Linear(12, 5), Pass.FORWARD), device.memory)
        assert verify(device, linear, expected_outputs(linear, 1, device.memory), 1).right
