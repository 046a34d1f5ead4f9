"""The reference against torch's own training step, and against formulas written out element by element."""

import dataclasses

import numpy as np
import pytest
import torch
from host_device import HostDevice
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import MEMORY, NO_BLOB, check_against_torch, random_network, random_plan

from profiler import prng
from profiler.measure.verify import Expected
from profiler.ops import Conv2d, Depthwise, Linear, Op, Pass
from profiler.reference import expected
from profiler.reference_f32 import op_reference, trained_indices
from profiler.workloads.lower import load_network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.program import StepConstants, step_program
from profiler.workloads.step import training_step

SEEDS = st.integers(0, 10_000)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_a_training_step_is_the_one_of_autograd_and_torch_optim(seed):
    logits = 4 if seed % 3 == 0 else 0
    module, network = random_network(seed, logits)
    plan = random_plan(seed, network, logits)
    check_against_torch(module, network, plan, memory=NO_BLOB if seed % 5 == 0 else MEMORY, seed=seed)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("seed", range(3))
def test_a_sparse_step_of_mcunet_is_the_one_of_autograd_and_torch_optim(seed, optimizer):
    module, network = load_network("mcunet-5fps", (3, 32, 32))
    rng = np.random.default_rng(seed)
    layers = {}
    for index in rng.choice(len(network.trainable), size=6, replace=False):
        layer = network.trainable[index]
        axis = "in" if rng.integers(3) == 0 and layer.geometry.kind != "depthwise" else "out"
        count = layer.geometry.channels(axis)
        picked = rng.choice(count, size=count // int(rng.choice([1, 2, 4])), replace=False)
        channels = () if rng.integers(4) == 0 else tuple(sorted(map(int, picked)))
        layers[layer.name] = LayerPlan(channels, axis, not channels or bool(rng.integers(2)))
    plan = StepPlan.for_network(
        network, layers, head=Head(classes=5), images=2, optimizer=optimizer, learning_rate=0.01
    )
    module = module.double()
    check_against_torch(module, network, plan, memory=MEMORY, seed=seed)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_placed_programs_give_the_same_on_the_host_kernels(seed):
    logits = 4 if seed % 3 == 0 else 0
    _, network = random_network(seed, logits)
    plan = random_plan(seed, network, logits)
    memory = NO_BLOB if seed % 5 == 0 else MEMORY
    program = step_program(training_step(network, plan), memory)
    device = HostDevice(memory).run(program, seed)
    results = expected(program, seed, memory)
    for name, wanted in results.items():
        got = device[name].astype(np.float64)
        if name == "loss":
            assert abs(got - wanted)[0] < 1e-5 * plan.images * plan.head.scale
        elif "moment" in name:
            # Where the network is sure of its answer the gradient is a difference from 1, and rounding is most of it.
            rounding = 1e-6 * np.sqrt(wanted.size)
            assert np.linalg.norm(got - wanted) < 1e-4 * np.linalg.norm(wanted) + rounding, name
            assert Expected.of(wanted).error(prng.digest(got)) < 4e-4 + 4 * rounding / np.linalg.norm(wanted)
        else:
            # Adam's first step is nearly the gradient's sign, which rounding decides where the gradient is 0 but for
            # rounding: there weights may differ by two steps; elsewhere in a few places.
            wrong = np.abs(got - wanted) > 1e-4 * np.abs(wanted).max()
            moment = np.abs(results.get(f"{name}_moment1", np.ones(1)))
            undecided = moment < 1e-6 * max(1.0, moment.max())
            assert wrong.sum() <= undecided.sum() + 0.02 * wrong.size, name
            assert np.abs(got - wanted).max() <= 2.1 * plan.learning_rate * max(1.0, np.abs(wanted).max()), name


def test_a_misplaced_tensor_shows_as_a_wrong_result():
    _, network = random_network(1)
    program = step_program(training_step(network, random_plan(1, network, optimizer="sgd")), MEMORY)
    wanted = expected(program, 1, MEMORY)["loss"]
    right = HostDevice(MEMORY).run(program, 1)["loss"]
    assert right == pytest.approx(wanted, rel=1e-5)
    index, entry = next((i, e) for i, e in enumerate(program.entries) if e.op is not None and e.op.kind == "relu")
    # The activation is written 16 bytes further on than where its reader looks for it.
    wrong = dataclasses.replace(entry, references=(entry.references[0], entry.references[1] + 16))
    moved = dataclasses.replace(program, entries=(*program.entries[:index], wrong, *program.entries[index + 1 :]))
    assert Expected.of(wanted).error(prng.digest(HostDevice(MEMORY).run(moved, 1)["loss"])) > 1e-3


def literal_convolution_gradient(g, x, grad):
    """d loss / d weight [out][kh][kw][in / groups], by the definition."""
    ins, outs = g.in_channels // g.groups, g.out_channels // g.groups
    result = np.zeros(g.weight_shape)
    for o, i, j, c in np.ndindex(*g.weight_shape):
        for y, z in np.ndindex(g.out_h, g.out_w):
            row, column = y * g.stride_h + i - g.pad_h, z * g.stride_w + j - g.pad_w
            if 0 <= row < g.in_h and 0 <= column < g.in_w:
                result[o, i, j, c] += grad[y, z, o] * x[row, column, o // outs * ins + c]
    return result


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 1), (3, 3)])
def test_weight_gradients_of_grouped_convolutions_follow_the_definition(groups, kernel):
    g = Conv2d(5, 4, 6, 6, *kernel, 2, 1, 1, 0, groups)
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=g.input_shape), rng.normal(size=g.output_shape)
    full = literal_convolution_gradient(g, x, grad)
    for axis, channels in (("out", (1, 2, 5)), ("in", (0, 3, 4))):
        op = Op(g, Pass.GRAD_WEIGHT, trained_channels=3, trained_axis=axis, trains_bias=True)
        before = rng.normal(size=g.weight_gradient_shape(3, axis))
        bias = rng.normal(size=op.trained_biases)
        inputs = {"input": x, "grad_output": grad, "weight_gradient": before, "bias_gradient": bias}
        results = op_reference(op, inputs, channels=channels)
        wanted = before + full.reshape(-1)[trained_indices(g, axis, channels)]
        np.testing.assert_allclose(results["weight_gradient"], wanted, rtol=1e-10)
        sums = grad.sum((0, 1))
        np.testing.assert_allclose(results["bias_gradient"], bias + (sums[[1, 2, 5]] if axis == "out" else sums))


@settings(deadline=None, max_examples=40)
@given(
    extents=st.tuples(st.integers(3, 7), st.integers(3, 7), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_depthwise_tap_by_tap_is_torch_s_grouped_convolution(extents, kernel, stride, pad):
    g = Depthwise(*extents, *kernel, *stride, *pad)
    rng = np.random.default_rng(1)
    x, w, b = rng.normal(size=g.input_shape), rng.normal(size=g.weight_shape), rng.normal(size=g.in_channels)
    grad = rng.normal(size=g.output_shape)
    tx = torch.from_numpy(x).permute(2, 0, 1).unsqueeze(0).contiguous().requires_grad_()
    tw = torch.from_numpy(w).permute(2, 0, 1).unsqueeze(1).contiguous().requires_grad_()
    y = torch.nn.functional.conv2d(tx, tw, torch.from_numpy(b), stride, pad, groups=g.in_channels)
    y.backward(torch.from_numpy(grad).permute(2, 0, 1).unsqueeze(0).contiguous())
    forward = op_reference(Op(g, Pass.FORWARD), {"input": x, "weight": w, "bias": b})["output"]
    np.testing.assert_allclose(forward, y.detach()[0].permute(1, 2, 0), rtol=1e-10, atol=1e-12)
    back = op_reference(Op(g, Pass.GRAD_INPUT), {"grad_output": grad, "weight": w})["grad_input"]
    np.testing.assert_allclose(back, tx.grad[0].permute(1, 2, 0), rtol=1e-10, atol=1e-12)
    op = Op(g, Pass.GRAD_WEIGHT, trained_channels=1)
    inputs = {"input": x, "grad_output": grad, "weight_gradient": np.zeros((*kernel, 1))}
    weight = op_reference(op, inputs, channels=(g.in_channels - 1,))["weight_gradient"]
    np.testing.assert_allclose(weight[..., 0], tw.grad[-1, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("axis", ["out", "in"])
@pytest.mark.parametrize(
    "g", [Conv2d(3, 3, 4, 6, 3, 1, groups=2), Conv2d(3, 3, 4, 6, 1, 1), Linear(4, 6)], ids=lambda g: g.kind
)
def test_trained_weights_are_those_that_touch_a_trained_channel(g, axis):
    channels = (0, 3) if axis == "in" else (2, 5)
    index = trained_indices(g, axis, channels)
    assert index.shape == g.weight_gradient_shape(2, axis)
    assert len(np.unique(index)) == index.size
    places = np.stack(np.unravel_index(index.reshape(-1), g.weight_shape), axis=1)
    outputs = places[:, 0]
    if axis == "out":
        assert set(outputs) == set(channels)
    else:
        groups = getattr(g, "groups", 1)
        inputs = outputs // (6 // groups) * (4 // groups) + places[:, -1]
        assert set(inputs) == set(channels)


def test_no_channels_are_no_weights():
    for g in (Conv2d(3, 3, 4, 6, 3, 1), Depthwise(3, 3, 4, 3, 3), Linear(4, 6)):
        for axis in ("out",) if g.kind == "depthwise" else ("out", "in"):
            assert trained_indices(g, axis, ()).size == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_update_moves_only_trained_channels_and_leaves_gradients_at_zero(optimizer):
    g = Linear(4, 3)
    op = Op(g, Pass.UPDATE, trained_channels=2, trained_axis="in", trains_bias=True, optimizer=optimizer)
    rng = np.random.default_rng(2)
    inputs = {spec.role: np.abs(rng.normal(size=spec.shape)) for spec in op.buffers()}
    results = op_reference(op, inputs, channels=(1, 3), constants=StepConstants(0.1, 0.5))
    moved = results["weight"] != inputs["weight"]
    np.testing.assert_array_equal(moved, np.tile([False, True, False, True], (3, 1)))
    assert (results["bias"] != inputs["bias"]).all()
    assert not results["weight_gradient"].any()
    assert not results["bias_gradient"].any()
    if optimizer == "sgd":
        np.testing.assert_allclose(
            results["weight"][:, [1, 3]], inputs["weight"][:, [1, 3]] - 0.1 * 0.5 * inputs["weight_gradient"]
        )
