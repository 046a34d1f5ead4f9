"""TinyTL's lite residual modules: lowered from torch, and trained on the host's kernels and on an emulated board."""

import numpy as np
import pytest
import torch
from host_device import HostDevice
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import MEMORY, LiteNetwork, check_against_torch, torch_step
from torch import nn

from profiler import prng
from profiler.errors import UserError
from profiler.link.session import open_device
from profiler.measure.steps import check_outputs
from profiler.ops import AvgPool2d, Conv2d, GroupNorm, Op, Pass, Relu, UpsampleBilinear2d
from profiler.reference import expected
from profiler.workloads.arena import place
from profiler.workloads.coverage import companion_ops, network_ops
from profiler.workloads.lower import lower
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.program import step_program
from profiler.workloads.step import training_step

INPUT_SHAPE = (3, 16, 16)
NORMS = ("lites.0.norm", "lites.1.norm")


def lite_network(seed=0):
    torch.manual_seed(seed)
    module = LiteNetwork().double().eval()
    return module, lower(module, INPUT_SHAPE, "lite")


def everything_lite(network):
    """Every weight of the lite residuals, and of the blocks the biases only: what TinyTL trains."""
    layers = {}
    for layer in network.trainable:
        g = layer.geometry
        if layer.name.startswith("lites."):
            layers[layer.name] = LayerPlan(tuple(range(g.channels("out"))), bias=bool(g.bias_elements))
        elif layer.name.startswith("blocks."):
            layers[layer.name] = LayerPlan((), bias=True)
    return layers


def plan_of(network, layers, **choices):
    choices = {"images": 2, "optimizer": "adam", "learning_rate": 0.01} | choices
    return StepPlan.for_network(network, layers, head=Head(classes=4), **choices)


# ---------------------------------------------------------------- lowering


def test_a_lite_residual_is_lowered_layer_by_layer():
    _, network = lite_network()
    lite = [layer for layer in network.layers if layer.name.startswith("lites.0")]
    assert [layer.geometry for layer in lite] == [
        AvgPool2d(8, 8, 16, 2, 2, 2, 2),
        Conv2d(4, 4, 16, 16, 3, 3, 1, 1, 1, 1, groups=2, has_bias=0),
        GroupNorm(4, 4, 16, 2),
        Relu(4 * 4 * 16),
        Conv2d(4, 4, 16, 16, 1, 1, has_bias=0),
        UpsampleBilinear2d(4, 4, 16),
    ]
    assert network["lites.1.norm"].geometry == GroupNorm(4, 4, 16, 4, has_bias=0)
    assert network["lites.1.interpolate"].geometry == UpsampleBilinear2d(4, 4, 16)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.GroupNorm(2, 4, eps=1e-3), "GroupNorm (with eps 0.001, there is 1e-05)"),
        (nn.GroupNorm(2, 4, affine=False), "GroupNorm (without scale and shift)"),
        (nn.Upsample(scale_factor=2), "Upsample (nearest, there is bilinear)"),
        (nn.Upsample(scale_factor=3, mode="bilinear"), "from 8x8 to 24x24, there is twice height and width"),
        (nn.UpsamplingBilinear2d(scale_factor=2), "bilinear with aligned corners"),
        (nn.Sequential(nn.GroupNorm(2, 4), nn.BatchNorm2d(4)), "BatchNorm2d (only directly behind a convolution"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_kernels_do_otherwise_is_refused_and_said(module, says):
    with pytest.raises(UserError) as caught:
        lower(nn.Sequential(nn.Conv2d(3, 4, 1), module), (3, 8, 8), "refused")
    assert says in str(caught.value)


def test_a_size_that_is_twice_the_map_is_up_sampling_by_two():
    for module in (nn.Upsample((12, 10), mode="bilinear"), nn.Upsample(scale_factor=2.0, mode="bilinear")):
        network = lower(nn.Sequential(nn.Conv2d(3, 4, 1), module), (3, 6, 5), "sized")
        assert network.layers[-1].geometry == UpsampleBilinear2d(6, 5, 4)


def test_input_channels_of_a_normalisation_cannot_be_planned():
    _, network = lite_network()
    with pytest.raises(UserError, match="group_norm and has outputs only"):
        plan_of(network, {NORMS[0]: LayerPlan((1,), axis="in", bias=False)})


# ---------------------------------------------------------------- what is measured


def test_every_op_of_a_step_is_among_those_that_are_profiled():
    _, network = lite_network()
    profiled = set(network_ops(network, head=Head(classes=4), ratios=(1,)))
    step = training_step(network, plan_of(network, everything_lite(network)))
    assert {step_op.op for step_op in step.ops} <= profiled


def test_companions_of_the_two_kinds_keep_the_channels_of_a_group_and_are_no_larger():
    norm, up = GroupNorm(12, 10, 24, 3), UpsampleBilinear2d(6, 5, 24)
    ops = [Op(g, pass_) for g in (norm, up) for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)]
    companions = companion_ops([*ops, Op(norm, Pass.GRAD_WEIGHT, trained_channels=1)])
    for own in (norm, up):
        others = {op.geometry for op in companions if op.kind == own.kind}
        assert len(others) >= 4
        for g in others:
            assert g.in_h <= own.in_h and g.in_w <= own.in_w and g.in_channels <= own.in_channels
            assert own is up or g.in_channels // g.groups == 8
    assert {op.pass_ for op in companions if op.kind == norm.kind} == set(Pass) - {Pass.UPDATE}


# ---------------------------------------------------------------- training steps


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000))
def test_a_step_through_normalisation_and_up_sampling_is_autograd_s(seed):
    rng = np.random.default_rng(seed)
    module, network = lite_network(seed)
    layers = {}
    for layer in network.trainable:
        if rng.integers(2) or layer.name == NORMS[seed % 2]:
            picked = rng.choice(16, size=int(rng.integers(1, 17)), replace=False)
            bias = bool(layer.geometry.bias_elements) and bool(rng.integers(2))
            layers[layer.name] = LayerPlan(tuple(sorted(map(int, picked))), bias=bias)
    plan = plan_of(network, layers, optimizer="adam" if seed % 3 else "sgd", images=1 + seed % 3)
    check_against_torch(module, network, plan, memory=MEMORY, seed=seed)


def test_a_step_placed_in_the_arena_gives_the_same_on_the_host_kernels():
    _, network = lite_network()
    for optimizer in ("sgd", "adam"):
        plan = plan_of(network, everything_lite(network), optimizer=optimizer)
        program = step_program(training_step(network, plan), MEMORY)
        device = HostDevice(MEMORY)
        device.run(program, seed=3)
        checks = check_outputs(
            program,
            expected(program, 3, MEMORY),
            lambda reference, words, at=device: prng.digest(at.view(reference, words)),
            seed=3,
        )
        assert {f"{name}/weight" for name in NORMS} <= {check.name for check in checks}
        assert all(check.right for check in checks), checks


def test_what_backward_needs_of_a_normalisation_is_kept_and_nothing_else():
    """With the norm or anything before it trained its input is kept; with only what follows it is not."""
    _, network = lite_network()

    def last_reader(name, layers):
        step = training_step(network, plan_of(network, layers))
        return max(i for i, step_op in enumerate(step.ops) if name in step_op.inputs), step

    forwards = len(network.layers)
    norm_input = "lites.1.grouped/output"
    for trained in ("lites.1.norm", "lites.1.grouped"):
        last, step = last_reader(norm_input, {trained: LayerPlan((0, 1), bias=False)})
        assert step.ops[last].op.kind == "group_norm" and step.ops[last].op.pass_ is not Pass.FORWARD
    last, step = last_reader(norm_input, {"lites.1.pointwise": LayerPlan((0, 1), bias=False)})
    assert last < forwards and step.ops[last].op.pass_ is Pass.FORWARD
    shared = place(step).shared
    assert shared["lites.1.norm/output"] == norm_input  # nothing reads the input again: written over it


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_of_a_network_with_lite_residuals_on_an_emulated_board_is_torchs(optimizer):
    module, network = lite_network()
    plan = plan_of(network, everything_lite(network), optimizer=optimizer)
    with open_device("qemu://mps2-an500") as device:
        program = step_program(training_step(network, plan), device.memory)
        device.run(program, repetitions=0, warmups=1, seed=5)
        loss, weights = torch_step(module, network, plan, program, seed=5, memory=device.memory)
        wanted = expected(program, 5, device.memory) | weights | {"loss": np.array([loss])}
        checks = check_outputs(program, wanted, device.digest, seed=5)
    trained = {f"{name}/weight" for name, p in plan.layers.items() if p.channels}
    assert {*trained, "loss", "lites.0.norm/bias"} <= {check.name for check in checks}
    assert all(check.right for check in checks), [check for check in checks if not check.right]
