"""The planner against a checker that knows nothing of how it works."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import random_network, random_plan

from profiler import kernels
from profiler.ops import Conv2d, GlobalAvgPool, Layer, Relu
from profiler.workloads import arena
from profiler.workloads.arena import Block, pack, place
from profiler.workloads.blocks import Extents, aligned, largest_sum
from profiler.workloads.network import Network
from profiler.workloads.packing import BestFit, packed_bytes, set_aside
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.step import TRANSIENT, Role, training_step

SEEDS = st.integers(0, 10_000)


def step_of(seed):
    logits = 4 if seed % 3 == 0 else 0
    _, network = random_network(seed, logits)
    return training_step(network, random_plan(seed, network, logits))


def check(step, placement, resident=()):
    """Replay the step on a memory in which every byte knows whose it is; a tensor must be whole when it is read."""
    owner = np.full(placement.peak_bytes, -1)
    numbers = {name: index for index, name in enumerate(placement.offsets)}

    def extent(name):
        offset = placement.offsets[name]
        assert offset % 16 == 0
        assert offset + step.tensors[name].byte_count <= placement.peak_bytes
        return slice(offset, offset + step.tensors[name].byte_count)

    always = [n for n, t in step.tensors.items() if n in placement.offsets and t.role not in TRANSIENT]
    for name in always:
        assert (owner[extent(name)] == -1).all(), f"{name} lies on another tensor that lives through the run"
        owner[extent(name)] = numbers[name]
    for _ in range(2):  # two images: what persists must survive the first
        owner[extent("input")] = numbers["input"]
        for index, step_op in enumerate(step.ops):
            specs = step_op.op.buffers()
            for name, spec in zip(step_op.tensors, specs, strict=True):
                if name not in placement.offsets:
                    assert step.tensors[name].role in (Role.WEIGHT, Role.BIAS)
                    assert not step.tensors[name].trained
                    assert name not in resident
                elif spec.access != "write":
                    assert (owner[extent(name)] == numbers[name]).all(), f"{name} was overwritten before op {index}"
            rules = kernels.in_place(step_op.op)
            used = np.zeros(placement.peak_bytes, bool)
            for position, (name, spec) in enumerate(zip(step_op.tensors, specs, strict=True)):
                if name not in placement.offsets or spec.access == "read":
                    continue
                for other, (other_name, _) in enumerate(zip(step_op.tensors, specs, strict=True)):
                    if other == position or other_name not in placement.offsets:
                        continue
                    a, b = extent(name), extent(other_name)
                    if a.start < b.stop and b.start < a.stop:
                        assert rules.get(position) == other, f"{step_op.op.key}: {spec.role} must not overlap"
                        assert a == b
                        assert step_op.tensors.count(other_name) == 1
            if index in placement.scratch:
                offset = placement.scratch[index]
                used[offset : offset + arena.scratch_bytes(step_op.op)] = True
                assert offset % 16 == 0
                owner[used] = -1
                for name in step_op.tensors:
                    if name in placement.offsets:
                        assert not used[extent(name)].any(), "scratch lies on a buffer of its op"
            for name, spec in zip(step_op.tensors, specs, strict=True):
                if name in placement.offsets and spec.access != "read":
                    owner[extent(name)] = numbers[name]
        for name in always:
            assert (owner[extent(name)] == numbers[name]).all(), f"{name} did not live through the run"


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_no_tensor_is_overwritten_while_it_is_needed(seed):
    step = step_of(seed)
    placement = place(step)
    check(step, placement)
    ends = [placement.offsets[n] + step.tensors[n].byte_count for n in placement.offsets]
    assert placement.peak_bytes == max(ends)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, data=st.data())
def test_scratch_and_frozen_weights_in_the_arena_are_kept_apart_too(seed, data):
    step = step_of(seed)
    frozen = sorted(n for n, t in step.tensors.items() if t.role in (Role.WEIGHT, Role.BIAS) and not t.trained)
    resident = data.draw(st.sets(st.sampled_from(frozen))) if frozen else set()
    wanted = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arena, "scratch_bytes", lambda op: 4 * wanted[len(op.key) % len(wanted)])
        placement = place(step, resident=resident)
        assert resident <= placement.offsets.keys()
        check(step, placement, resident)


blocks = st.lists(
    st.builds(
        lambda size, start, duration: Block(size, start, start + duration),
        st.integers(1, 5000),
        st.integers(0, 30),
        st.integers(0, 12),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(blocks=blocks)
def test_blocks_that_live_at_the_same_time_do_not_overlap(blocks):
    offsets, peak, bound = pack(blocks)
    for i, a in enumerate(blocks):
        assert offsets[i] % 16 == 0
        assert offsets[i] + a.byte_count <= peak
        for j, b in enumerate(blocks[:i]):
            if a.start <= b.stop and b.start <= a.stop:
                assert offsets[i] >= offsets[j] + b.byte_count or offsets[j] >= offsets[i] + a.byte_count
    alive = [sum(-(-b.byte_count // 16) * 16 for b in blocks if b.start <= t <= b.stop) for t in range(45)]
    assert bound == max(alive)
    assert bool(blocks) == (peak > 0)
    assert peak > bound - 16


@settings(deadline=None)
@given(blocks=blocks)
def test_the_peak_is_known_without_offsets(blocks):
    assert packed_bytes(blocks) == pack(blocks)[1:]


@settings(deadline=None)
@given(blocks=blocks.filter(bool), data=st.data())
def test_what_is_set_aside_finds_room_wherever_the_others_lie(blocks, data):
    core, aside = set_aside(Extents.of(blocks), largest_sum(blocks))
    assert sorted(core + aside) == list(range(len(blocks)))
    order = data.draw(st.permutations(core))
    fit = BestFit(blocks)
    lowest = largest_sum(blocks) - 16
    _, peak = BestFit([blocks[i] for i in order]).place(range(len(order)))
    offsets, whole = fit.place([*order, *aside])
    assert whole == peak > lowest
    if aligned(peak) == largest_sum(blocks):
        assert all(offsets[i] + blocks[i].byte_count <= lowest for i in aside)


def test_few_blocks_of_a_step_that_is_fullest_early_have_to_be_tried():
    blocks = [Block(size, time, time + 1) for time, size in enumerate([400, 1000, 1000, 200, 300, 40, 200, 100])]
    core, aside = set_aside(Extents.of(blocks), largest_sum(blocks))
    assert core == [1, 2]
    assert sorted(aside) == [0, 3, 4, 5, 6, 7]


def chain(elements):
    """A network of ReLUs behind one convolution: each may overwrite its input."""
    layers = [Layer("conv", Conv2d(4, 4, 3, elements, 1, 1), ("input",))]
    layers.append(Layer("relu", Relu(16 * elements), ("conv",)))
    layers.append(Layer("relu2", Relu(16 * elements, 6), ("relu",)))
    layers.append(Layer("pool", GlobalAvgPool(4, 4, elements), ("relu2",)))
    return Network("chain", (3, 4, 4), tuple(layers), "pool")


LIVES = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 9), st.integers(0, 4)), min_size=2, max_size=12)


@given(lives=LIVES, data=st.data())
def test_what_a_changed_order_reaches_is_all_that_has_to_be_placed_anew(lives, data):
    fit = BestFit([Block(size, start, start + length) for size, start, length in lives])
    order = data.draw(st.permutations(range(len(lives))))
    known, peak = fit.place(order)
    i, j = (data.draw(st.integers(0, len(lives) - 1)) for _ in range(2))
    changed = list(order)
    if data.draw(st.booleans()):
        changed[i], changed[j] = changed[j], changed[i]
    else:
        changed.insert(j, changed.pop(i))
    expected = fit.place(changed)
    moved = (order[i], order[j])
    assert fit.replace(changed, min(i, j), moved, known, lambda peak: True) == expected
    found = fit.replace(changed, min(i, j), moved, known, lambda now: now <= peak)
    assert found == (expected if expected[1] <= peak else None)


def test_a_chain_of_activations_takes_the_memory_of_one():
    network = chain(8)
    step = training_step(network, StepPlan.for_network(network, {}))
    placement = place(step)
    assert placement.offsets["relu2/output"] == placement.offsets["conv/output"]
    assert placement.shared["relu/output"] == "conv/output"


def test_an_activation_that_the_backward_pass_reads_is_not_overwritten():
    network = chain(8)
    plan = StepPlan.for_network(network, {"conv": LayerPlan((0,))})
    step = training_step(network, plan)
    placement = place(step)
    assert placement.offsets["relu/output"] != placement.offsets["relu2/output"]
    check(step, placement)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_the_lowest_peak_is_known_without_placing(seed):
    step = step_of(seed)
    frozen = next((t.name for t in step.tensors.values() if t.role is Role.WEIGHT and not t.trained), None)
    for resident in ((), (frozen,)):
        assert arena.lowest_peak(step, resident=resident) == place(step, resident=resident).lower_bound_bytes


def test_training_late_layers_needs_less_memory_than_training_early_ones():
    _, network = random_network(7)
    first, last = network.trainable[0].name, network.trainable[-1].name
    late = place(training_step(network, StepPlan.for_network(network, {last: LayerPlan((0,))})))
    both = StepPlan.for_network(network, {first: LayerPlan((0,)), last: LayerPlan((0,))}, head=Head())
    assert late.peak_bytes < place(training_step(network, both)).peak_bytes


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_persists_is_weights_gradients_and_moments_of_what_trains(optimizer):
    network = chain(8)
    plan = StepPlan.for_network(network, {"conv": LayerPlan((1, 3), bias=True)}, optimizer=optimizer)
    step = training_step(network, plan)
    names = {n for n, t in step.tensors.items() if t.role not in TRANSIENT and n in place(step).offsets}
    expected = {"label", "loss", "prototypes", "conv/weight", "conv/bias", "conv/weight_gradient", "conv/bias_gradient"}
    if optimizer == "adam":
        expected |= {f"conv/{part}_moment{n}" for part in ("weight", "bias") for n in (1, 2)}
    assert names == expected
    assert step.tensors["conv/weight"].elements == 8 * 3
    assert step.tensors["conv/weight_gradient"].elements == 2 * 3
