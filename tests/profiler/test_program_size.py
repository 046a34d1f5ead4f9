"""Predicted sizes of programs beside those of the programs themselves."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import MEMORY, NO_BLOB, random_network

from profiler.ops import Pass
from profiler.workloads.entries import DeviceMemory, channel_list_bytes
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head
from profiler.workloads.program import resident_weights, starting_values, step_program
from profiler.workloads.program_size import ProgramSizes, weight_starts
from profiler.workloads.random_plans import random_plan
from profiler.workloads.step import FIXED, Role, training_step

#: Segments as in the firmware's blob: float32 weights of four scales, and all that int8 steps read.
FIRMWARE = DeviceMemory(
    arena_bytes=1 << 40,
    blob_bytes=786_432,
    blob_seed=7,
    blob_segments=(*(127,) * 6, *(126,) * 6, *(125,) * 6, *(124,) * 6, 0, 237, 8, 10, 11, 223, 216, 213),
    entry_bytes=92,
)
MEMORIES = {"firmware": FIRMWARE, "small blob": MEMORY, "no blob": NO_BLOB}
NETWORKS = {
    "mcunet": load_network("mcunet-5fps", (3, 32, 32))[1],
    "kws": load_network("mlperf-tiny-kws", (1, 49, 10))[1],
    "ad": load_network("mlperf-tiny-ad", (640, 1, 1))[1],
} | {f"random {seed}": random_network(seed)[1] for seed in range(8)}


@pytest.fixture(autouse=True, scope="module")
def unsearched():
    """How large a program is does not depend on how well its buffers are placed, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("profiler.workloads.arena.SEARCHES", 0)
        yield


def first_channels_lists(step) -> int:
    """Bytes of lists that are counted though the first so many channels train, which need none."""
    return sum(
        channel_list_bytes(item.op.trained_channels)
        for item in step.ops
        if item.op.dtype == "f32"
        and item.channels is None
        and 0 < item.op.trained_channels < item.op.geometry.channels(item.op.trained_axis)
        and item.op.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE)
    )


def both_bytes(network, memory, seed, dtype):
    """What is foreseen of a random step's program, without lists that it does not need, and what it takes."""
    plan = random_plan(network, np.random.default_rng(seed), dtype=dtype, head=Head(classes=3))
    step = training_step(network, plan)
    actual = step_program(step, memory).beside_arena_bytes(memory)
    return ProgramSizes(memory).step_bytes(network, step) - first_channels_lists(step), actual


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from(sorted(NETWORKS)), memory=st.sampled_from(sorted(MEMORIES)), seed=st.integers(0, 10**6))
def test_bytes_of_a_float32_program_are_foreseen_from_tightly_above(name, memory, seed):
    predicted, actual = both_bytes(NETWORKS[name], MEMORIES[memory], seed, "f32")
    # Where the blob has no room for a layer's weights in one scale, theirs may be many.
    fills = {"no blob": 0, "firmware": 4, "small blob": 12}[memory]
    assert actual <= predicted <= actual + fills * MEMORIES[memory].entry_bytes


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(["mcunet", "kws", "ad"]),
    memory=st.sampled_from(sorted(MEMORIES)),
    seed=st.integers(0, 10**6),
)
def test_bytes_of_an_int8_program_are_foreseen_exactly(name, memory, seed):
    predicted, actual = both_bytes(NETWORKS[name], MEMORIES[memory], seed, "s8")
    assert predicted == actual


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(sorted(NETWORKS)), memory=st.sampled_from(sorted(MEMORIES)), seed=st.integers(0, 10**6))
def test_float32_weights_start_in_a_way_that_was_foreseen(name, memory, seed):
    network, memory = NETWORKS[name], MEMORIES[memory]
    foreseen = weight_starts(network, memory)
    step = training_step(network, random_plan(network, np.random.default_rng(seed), head=Head(classes=3)))
    program = step_program(step, memory)
    for entry in program.entries[: program.setup_end]:
        for name_ in entry.tensors:
            if step.tensors[name_].role is Role.WEIGHT:
                ways = {(start.mode, start.parameter) for start in foreseen[name_.rpartition("/")[0]]}
                assert (entry.fill.mode, entry.fill.parameter) in ways


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(["mcunet", "kws", "ad"]),
    memory=st.sampled_from([*sorted(MEMORIES), "tiny blob"]),
    dtype=st.sampled_from(["f32", "s8"]),
    seed=st.integers(0, 10**6),
)
def test_frozen_weights_lie_in_the_arena_where_they_start_there(name, memory, dtype, seed):
    network = NETWORKS[name]
    tiny = dataclasses.replace(FIRMWARE, blob_bytes=16_384)
    memory = tiny if memory == "tiny blob" else MEMORIES[memory]
    step = training_step(network, random_plan(network, np.random.default_rng(seed), dtype=dtype))
    starts, windows = starting_values(step, memory)
    frozen = {t.name for t in step.tensors.values() if t.role in FIXED and not t.trained}
    assert resident_weights(step, memory) == frozen & starts.keys()
    assert frozen - starts.keys() == windows.keys()


def test_a_program_takes_nothing_of_an_arena_in_another_region():
    network = NETWORKS["kws"]
    step = training_step(network, random_plan(network, np.random.default_rng(1)))
    elsewhere = dataclasses.replace(FIRMWARE, arena_region=2, store_bytes=1 << 30)
    assert ProgramSizes(FIRMWARE).step_bytes(network, step) > 0
    assert ProgramSizes(elsewhere).step_bytes(network, step) == 0
    assert step_program(step, elsewhere).beside_arena_bytes(elsewhere) == 0


@pytest.mark.parametrize("region", [0, 2])
def test_as_many_repetitions_run_at_once_as_their_ticks_have_room(region):
    network = NETWORKS["kws"]
    step = training_step(network, random_plan(network, np.random.default_rng(1)))
    program = step_program(step, FIRMWARE)
    for room in (0, 1, 8 * len(program.timed) - 1, 8 * len(program.timed), 50 * len(program.timed)):
        bytes_ = program.wanted_bytes(FIRMWARE) + room
        tight = dataclasses.replace(FIRMWARE, arena_bytes=bytes_)
        if region:
            store = program.beside_arena_bytes(FIRMWARE) + room
            tight = dataclasses.replace(FIRMWARE, arena_region=region, store_bytes=store)
        most = program.most_repetitions(tight)
        assert most == 1 + room // (8 * len(program.timed))
        program.check_fits(tight, most)
