"""Programs: places, fills, sizes and what travels."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from host_device import HostDevice
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import MEMORY, NO_BLOB, random_network, random_plan

from profiler import prng
from profiler.measure.verify import Expected
from profiler.ops import (
    Add,
    Conv2d,
    CosineHead,
    Depthwise,
    Empty,
    Linear,
    MaxPool2d,
    Op,
    Pass,
    Relu,
    SoftmaxCrossEntropy,
)
from profiler.reference import expected
from profiler.workloads.arena import place
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.program import DoesNotFit, microbenchmark, offset_of, region_of, step_program
from profiler.workloads.step import network_ops, training_step

SEEDS = st.integers(0, 10_000)
CONV = Conv2d(6, 5, 4, 6, 3, 3, 1, 1, 1, 1)


def step_of(seed, **settings_):
    logits = 4 if seed % 3 == 0 else 0
    _, network = random_network(seed, logits)
    return training_step(network, random_plan(seed, network, logits, **settings_))


def small_ops(seed):
    _, network = random_network(seed)
    return network_ops(network, Head(classes=3), optimizers=("adam", "sgd"))


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_microbenchmarks_give_the_reference_s_results_on_the_host_kernels(seed):
    memory = NO_BLOB if seed % 4 == 0 else MEMORY
    for op in small_ops(seed)[:: 1 + seed % 3]:
        program = microbenchmark(op, memory)
        device = HostDevice(memory).run(program, seed)
        for name, wanted in expected(program, seed, memory).items():
            error = np.linalg.norm(device[name] - wanted) / max(np.linalg.norm(wanted), 1e-30)
            assert error < 1e-5, f"{op.key} {name}"


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_buffers_of_a_microbenchmark_lie_apart_and_inside(seed):
    for op in small_ops(seed):
        program = microbenchmark(op, MEMORY)
        (entry,) = program.entries[program.image_end :]
        spans = []
        for reference, spec in zip(entry.references, op.buffers(), strict=True):
            assert offset_of(reference) % 16 == 0
            if region_of(reference) == 1:
                assert spec.access == "read"
                assert offset_of(reference) + spec.byte_count <= MEMORY.blob_bytes
                continue
            spans.append((offset_of(reference), offset_of(reference) + spec.byte_count))
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert program.arena_bytes == max((end for _, end in spans), default=0)
        assert len(program.entries) <= 8  # travels inside one request
        filled = {s.name for e in program.entries[: program.setup_end] for s in e.fill.slices}
        in_blob = {spec.role for r, spec in zip(entry.references, op.buffers(), strict=True) if region_of(r) == 1}
        assert filled | in_blob == {spec.role for spec in op.buffers() if spec.access != "write"}


@pytest.mark.parametrize("pass_", [Pass.FORWARD, Pass.GRAD_INPUT])
def test_frozen_weights_lie_in_the_blob_where_it_is_large_enough(pass_):
    op = Op(CONV, pass_)
    weight = [spec.role for spec in op.buffers()].index("weight")
    assert region_of(microbenchmark(op, MEMORY).entries[-1].references[weight]) == 1
    tiny = dataclasses.replace(MEMORY, blob_bytes=64)
    assert region_of(microbenchmark(op, tiny).entries[-1].references[weight]) == 0


def test_weights_that_are_updated_lie_in_the_arena():
    op = Op(CONV, Pass.UPDATE, trained_channels=2, trains_bias=True, optimizer="adam")
    program = microbenchmark(op, MEMORY)
    assert {region_of(r) for r in program.entries[-1].references} == {0}
    assert program.constants is not None
    assert len(program.header()[-1]) == 4


def test_windows_are_scaled_to_the_fan_in():
    for fan_in, in_channels in ((9, 1), (180, 20), (1800, 200)):
        g = Conv2d(3, 3, in_channels, 2, 3, 3)
        program = microbenchmark(Op(g, Pass.FORWARD), MEMORY)
        offset = offset_of(program.entries[-1].references[1])
        window = prng.blob_window(77, MEMORY.blob_segments, MEMORY.blob_bytes, offset, 2 * fan_in)
        he = np.sqrt(2 / fan_in)
        assert window.std() == pytest.approx(min(max(he, 2**-4 / 3**0.5), 2**-1 / 3**0.5), rel=0.5)


def test_a_microbenchmark_runs_in_place_where_it_would_not_fit_otherwise():
    op = Op(Relu(1000, 6), Pass.FORWARD)
    roomy = microbenchmark(op, MEMORY)
    assert roomy.arena_bytes == 8000
    tight = dataclasses.replace(MEMORY, arena_bytes=6000)
    program = microbenchmark(op, tight)
    assert program.arena_bytes == 4000
    assert program.entries[-1].references == (0, 0)
    np.testing.assert_allclose(
        HostDevice(tight).run(program, 1)["output"], expected(program, 1, tight)["output"], rtol=1e-6
    )


@pytest.mark.parametrize("op", [Op(MaxPool2d(40, 40, 8, 2, 2, 2, 2), Pass.FORWARD), Op(Add(4000), Pass.FORWARD)])
def test_what_does_not_fit_says_how_many_bytes_it_wants(op):
    wanted = microbenchmark(op, MEMORY).wanted_bytes(MEMORY)
    arena = 20_000
    with pytest.raises(DoesNotFit, match=r"wants [\d,]+ bytes of memory and the device has 20,000") as error:
        microbenchmark(op, dataclasses.replace(MEMORY, arena_bytes=arena))
    assert error.value.bytes_available == arena
    assert arena < error.value.bytes_wanted <= wanted


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_a_step_fits_exactly_the_bytes_that_it_wants(seed):
    step = step_of(seed)
    wanted = step_program(step, MEMORY).wanted_bytes(MEMORY)
    exact = dataclasses.replace(MEMORY, arena_bytes=wanted)
    assert step_program(step, exact).arena_bytes <= wanted
    with pytest.raises(DoesNotFit) as error:
        step_program(step, dataclasses.replace(MEMORY, arena_bytes=wanted - 1))
    assert error.value.bytes_wanted == wanted


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, repetitions=st.integers(1, 1000))
def test_store_and_ticks_are_counted(seed, repetitions):
    program = step_program(step_of(seed), MEMORY)
    lists = sum((2 * len(e.channels) + 3) // 4 * 4 for e in program.entries if e.channels is not None)
    store = len(program.entries) * MEMORY.entry_bytes + lists
    ticks = 8 * repetitions * len(program.timed)
    wanted = program.wanted_bytes(MEMORY, repetitions)
    assert program.arena_bytes + store + ticks <= wanted < program.arena_bytes + store + ticks + 32
    exact = dataclasses.replace(MEMORY, arena_bytes=wanted)
    program.check_fits(exact, repetitions)
    with pytest.raises(DoesNotFit):
        program.check_fits(exact, repetitions + 5)


def test_too_many_entries_do_not_fit_either():
    step = step_of(3)
    entries = len(step_program(step, MEMORY).entries)
    with pytest.raises(DoesNotFit, match=f"wants {entries} entries and the device has {entries - 1}"):
        step_program(step, dataclasses.replace(MEMORY, largest_program=entries - 1))


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_the_program_s_arena_is_the_planner_s_peak(seed):
    step = step_of(seed)
    assert step_program(step, MEMORY).arena_bytes == place(step).peak_bytes


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS)
def test_fills_write_what_they_name_and_nothing_that_another_fills(seed):
    program = step_program(step_of(seed), NO_BLOB if seed % 2 else MEMORY)
    covered, streams = [], set()
    for index, entry in enumerate(program.entries[: program.image_end]):
        f, start = entry.fill, offset_of(entry.references[0])
        assert region_of(entry.references[0]) == 0
        assert start + 4 * f.elements <= program.arena_bytes
        assert f.stream not in streams
        streams.add(f.stream)
        if index < program.setup_end:
            covered.append((start, start + 4 * f.elements))
        for s in f.slices:
            for later in program.entries[program.image_end :]:
                if s.name in later.tensors:
                    assert later.references[later.tensors.index(s.name)] == start + 4 * s.first
    covered.sort()
    assert all(a[1] <= b[0] for a, b in pairwise(covered))
    assert len(covered) <= 10  # gradients and moments are zeroed together, weights of one scale filled together


def test_sections_follow_the_protocol():
    step = step_of(5, images=3)
    program = step_program(step, MEMORY)
    assert [e.fill is not None for e in program.entries] == [i < program.image_end for i in range(len(program.entries))]
    assert [e.op for e in program.entries[program.image_end :]] == [s.op for s in step.ops]
    assert program.body_end - program.image_end == len(step.image_ops)
    image_fills = program.entries[program.setup_end : program.image_end]
    assert [e.tensors for e in image_fills] == [("input",), ("label",)]
    assert program.header()[:5] == [
        program.arena_bytes,
        3,
        program.setup_end,
        program.image_end,
        program.body_end,
    ]
    assert program.timed == tuple((s.layer, s.op) for s in step.ops)


def test_entries_travel_as_positional_lists():
    op = Op(CONV, Pass.GRAD_WEIGHT, trained_channels=3, trained_axis="in", trains_bias=True)
    program = microbenchmark(op, MEMORY)
    fill, positive, entry = program.wire_entries()
    assert fill == [0, 0, 0, 0, [program.entries[0].fill.elements, 1, 128, 1], [], [0]]
    grad_output = entry[6][1]
    assert positive == [0, 0, 0, 0, [5 * 6 * 6, 3, 128, 2], [], [grad_output]]
    assert entry[:6] == [1, 2, 0, 0, list(CONV.values()), [3, 1, 1, 0]]
    assert entry[6] == list(program.entries[2].references)
    assert len(entry) == 7
    assert program.header() == [program.arena_bytes, 1, 2, 2, 3]


def test_picked_channels_travel_as_a_bitmap():
    _, network = random_network(2)
    name, g = next((n.name, n.geometry) for n in network.trainable if n.geometry.channels("out") >= 3)
    count = g.channels("out")
    plan = StepPlan.for_network(network, {name: LayerPlan((0, count - 1), bias=False)})
    program = step_program(training_step(network, plan), MEMORY)
    maps = [entry[7] for entry in program.wire_entries() if len(entry) == 8]
    assert len(maps) == 2  # grad_weight and update
    bits = np.unpackbits(np.frombuffer(maps[0], np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == [0, count - 1]


def test_constants_travel_as_float32_values():
    header = step_program(step_of(5, images=3, optimizer="adam"), MEMORY).header()
    assert [float(np.float32(v)) for v in header[5]] == header[5]
    assert header[5] == pytest.approx([0.01, 1 / 3, 0.1, 0.001], rel=1e-6)


def test_the_empty_op_is_a_program_of_one_entry():
    program = microbenchmark(Op(Empty(), Pass.FORWARD), MEMORY)
    assert program.wire_entries() == [[12, 0, 0, 0, [], [], []]]
    assert program.header() == [0, 1, 0, 0, 1]
    assert expected(program, 1, MEMORY) == {}


@pytest.mark.parametrize(
    "op",
    [
        Op(Relu(500, 6), Pass.FORWARD),
        Op(Relu(500, 6), Pass.GRAD_INPUT),
        Op(Relu(500), Pass.GRAD_INPUT),
        Op(SoftmaxCrossEntropy(12), Pass.FORWARD),
        Op(CosineHead(40, 7), Pass.FORWARD),
        Op(Depthwise(5, 5, 7, 3, 3), Pass.UPDATE, trained_channels=7, trains_bias=True, optimizer="adam"),
        Op(Linear(30, 20), Pass.GRAD_WEIGHT, trained_channels=4, trained_axis="in"),
    ],
    ids=lambda op: op.key,
)
def test_the_inputs_exercise_the_op(op):
    program = microbenchmark(op, MEMORY)
    for name, values in expected(program, 1, MEMORY).items():
        assert np.isfinite(values).all()
        if not name.endswith("_gradient") or op.pass_ is not Pass.UPDATE:
            assert values.any(), name
    if op.kind == "relu":
        output = expected(program, 1, MEMORY)
        values = next(iter(output.values()))
        assert 0.1 < (values == 0).mean() < 0.9
        if op.pass_ is Pass.FORWARD:
            assert (values == 6).any()
            assert ((values > 0) & (values < 6)).any()


@pytest.mark.parametrize("seed", range(20))
def test_sums_over_large_maps_are_not_lost_in_rounding(seed):
    op = Op(Depthwise(64, 64, 3, 3, 3, 1, 1, 1, 1), Pass.GRAD_WEIGHT, trained_channels=1, trains_bias=True)
    program = microbenchmark(op, MEMORY)
    device, wanted = HostDevice(MEMORY).run(program, seed), expected(program, seed, MEMORY)
    for name, values in wanted.items():
        assert Expected.of(values).error(prng.digest(device[name])) < 1e-5


def test_long_programs_stay_finite_and_their_gradients_alive():
    for seed in range(12):
        program = step_program(step_of(seed, optimizer="adam"), MEMORY)
        for name, values in expected(program, seed, MEMORY).items():
            assert np.isfinite(values).all(), name
            if name.endswith("weight_moment1"):
                assert 1e-12 < np.abs(values).max() < 1e6, name
