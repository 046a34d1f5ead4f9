"""What devices measure of memory against what the planner says, to the byte; and arenas in other regions."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import raw_device as raw
from op_cases import KINDS_AND_PASSES, random_op

from profiler.errors import UserError
from profiler.link.errors import Refused
from profiler.link.session import open_device
from profiler.measure.verify import expected_outputs, memory_mismatch, verify
from profiler.ops import Conv2d, Linear, Op, Pass, Relu
from profiler.workloads.arena import place
from profiler.workloads.lower import load_network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.program import DoesNotFit, microbenchmark, resident_weights, step_program
from profiler.workloads.program_size import ProgramSizes
from profiler.workloads.random_plans import random_plan
from profiler.workloads.step import training_step

AN500 = "qemu://mps2-an500"
OTHER_REGION = 2


@pytest.fixture(scope="module", params=["qemu://stm32f405", AN500, "native://"])
def device(request):
    with open_device(request.param) as opened:
        yield opened


def peaks(result):
    return result.arena_peak_bytes, result.scratch_peak_bytes


def test_arena_and_scratch_of_random_ops_are_the_planners_to_the_byte(device):
    rng = np.random.default_rng(5)
    for kind, pass_ in KINDS_AND_PASSES:
        for _ in range(2):
            try:
                program = microbenchmark(random_op(kind, pass_, rng), device.memory)
            except DoesNotFit:
                continue
            for repetitions, warmups in ((0, 1), (2, 0)):
                result = device.run(program, repetitions, warmups)
                assert peaks(result) == (program.arena_bytes, program.scratch_bytes), program.name


def test_arena_and_scratch_of_random_steps_are_the_planners_to_the_byte(device):
    _, network = load_network("mcunet-5fps", (3, 16, 16))
    fitted, draw = 0, random.Random(3)
    for _ in range(40):  # most are larger than the smallest board
        layers = {}
        for layer in draw.sample(network.trainable[-12:], draw.randint(1, 2)):
            layers[layer.name] = LayerPlan(tuple(range(draw.randint(1, 4))), bias=draw.random() < 0.5)
        try:
            program = step_program(training_step(network, StepPlan.for_network(network, layers)), device.memory)
        except DoesNotFit:
            continue
        assert memory_mismatch(program, device.run(program, 0, 1)) == ""
        fitted += 1
        if fitted == 3:
            return
    pytest.fail(f"only {fitted} of 40 steps fit")


def test_a_step_may_fill_the_memory_to_the_last_byte_and_not_one_more(device):
    _, network = load_network("mlperf-tiny-kws", (1, 49, 10))
    plan = StepPlan.for_network(network, {network.trainable[-1].name: LayerPlan((1, 5))})
    program = step_program(training_step(network, plan), device.memory)
    room = device.memory.arena_bytes - program.beside_arena_bytes(device.memory)
    full = dataclasses.replace(program, arena_bytes=room)
    full.check_fits(device.memory)
    assert len(device.run(full, 1).ticks) == 1
    excess = dataclasses.replace(program, arena_bytes=room + 1)
    with pytest.raises(DoesNotFit):
        excess.check_fits(device.memory)
    with pytest.raises(Refused, match=f"want {device.memory.arena_bytes + 1} bytes"):
        device.run(excess, 1)


@pytest.mark.parametrize(
    ("network", "shape", "dtype"),
    [
        ("mlperf-tiny-kws", (1, 49, 10), "f32"),
        ("mlperf-tiny-kws", (1, 49, 10), "s8"),
        ("mlperf-tiny-ic", (3, 32, 32), "s8"),
    ],
)
def test_a_step_runs_just_where_its_arena_and_program_are_foreseen_to_fit(network, shape, dtype):
    """On the smallest board at its full limit: int8 to the byte, float32 programs with what is foreseen too much."""
    network, rng, runs = load_network(network, shape)[1], np.random.default_rng(1), []
    with open_device("qemu://stm32f405") as board:
        sizes = ProgramSizes(board.memory)
        for _ in range(12):
            plan = dataclasses.replace(random_plan(network, rng, dtype=dtype), savings=frozenset(), images=1)
            step = training_step(network, plan)
            foreseen = place(step, resident=resident_weights(step, board.memory)).peak_bytes
            foreseen += sizes.step_bytes(network, step)
            try:
                program = step_program(step, board.memory)
                assert len(board.run(program, 1).ticks) == 1
            except DoesNotFit as error:
                runs.append(False)
                assert foreseen >= error.bytes_wanted > board.memory.arena_bytes
            else:
                runs.append(True)
                if dtype == "s8":
                    assert foreseen == program.wanted_bytes(board.memory) <= board.memory.arena_bytes
    assert any(runs)


def test_a_program_runs_in_the_region_that_it_names_and_is_right_there():
    with open_device(AN500, region="ssram23") as device:
        assert device.memory.arena_region == OTHER_REGION
        gradient = Op(Conv2d(9, 9, 8, 16, 3, 3), Pass.GRAD_WEIGHT, trained_channels=5)
        for op in (Op(Linear(40, 12), Pass.FORWARD), gradient, Op(Relu(9001), Pass.FORWARD)):
            program = microbenchmark(op, device.memory)
            written = {r & 15 for e in program.entries for r in e.references if r & 15 != 1}
            assert written == {OTHER_REGION}
            verdict = verify(device, program, expected_outputs(program, 1, device.memory), 1)
            assert verdict.right, verdict.sentence
            assert len(device.run(program, 3).ticks) == 3


def test_the_planner_counts_buffers_and_the_stored_program_in_their_own_regions():
    with open_device(AN500, region="ssram23") as device:
        largest = Op(Relu(device.memory.arena_bytes // 4 - 8), Pass.FORWARD)
        program = microbenchmark(largest, device.memory)  # in place: input and output together do not fit
        assert verify(device, program, expected_outputs(program, 1, device.memory), 1).right
        with pytest.raises(DoesNotFit, match=f"has {device.memory.arena_bytes:,}"):
            microbenchmark(Op(Relu(device.memory.arena_bytes // 4 + 8), Pass.FORWARD), device.memory)
        with pytest.raises(DoesNotFit, match="entries and ticks"):
            program.check_fits(dataclasses.replace(device.memory, store_bytes=100))


def test_an_unknown_region_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"no memory region 'dtcm'.*psram \(16,760,832 bytes, not cached\), ssram23"):
        open_device(AN500, region="dtcm").__enter__()
    with pytest.raises(UserError, match="no memory region 'ssram1'"):  # the blob
        open_device(AN500, region="ssram1").__enter__()


@pytest.fixture(scope="module")
def board():
    opened = raw.RawDevice(AN500)
    yield opened
    opened.close()


HERE = OTHER_REGION


def relu(source, output, region=OTHER_REGION):
    """A program that fills 64 words and clamps them, its arena of 512 bytes in a region."""
    op = [Relu.code, 0, 0, 0, [64, 0], [], [source, output]]
    return [512, 1, 1, 1, 2, region], [raw.fill(64, source), op]


@pytest.mark.parametrize(
    ("places", "answer"),
    [
        ((HERE, 256 | HERE), None),
        ((HERE, 1 << 20), None),  # the output in region 0
        ((1 << 20, HERE), None),
        ((HERE, 272 | HERE), [raw.BOUNDS, 1, 1]),  # past the arena
        ((HERE, 128 | HERE), [raw.OVERLAP, 1, 1 << 8]),
        ((HERE, 16_760_832 - 256), [raw.BOUNDS, 1, 1]),  # over the stored program
        ((HERE, 1), [raw.READ_ONLY, 1, 1]),
        ((HERE, 5), [raw.BAD_REGION, 1, 1]),
    ],
)
def test_buffers_in_several_regions_are_checked_one_by_one(board, places, answer):
    found = board.run(relu(*places))
    assert found[0] == raw.DONE if answer is None else found == [raw.REFUSED, *answer]


@pytest.mark.parametrize("region", [1, 7, 15])
def test_an_arena_lies_only_where_it_can_be_written(board, region):
    assert board.run(relu(0, 256, region)) == [raw.REFUSED, raw.NO_ARENA, 0, region]


def test_an_arena_larger_than_its_region_is_refused(board):
    header, entries = relu(HERE, 256 | HERE)
    header[0] = 5 << 20
    assert board.run((header, entries)) == [raw.REFUSED, raw.NO_MEMORY, 0, 5 << 20]


def test_ticks_never_run_into_a_buffer_of_region_0(board):
    """The output ends 600 bytes below the entries: 40 repetitions' ticks have room, 400 have not."""
    entry_bytes = board.identity[14]
    end = (16_760_832 - 2 * entry_bytes - 600) // 16 * 16
    program = relu(HERE, end - 256)
    assert board.run(program, 40)[0] == raw.DONE
    assert board.run(program, 400)[:2] == [raw.REFUSED, raw.NO_MEMORY]
