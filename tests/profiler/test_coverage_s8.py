"""What is profiled of a network in int8 covers its int8 training steps."""

from __future__ import annotations

import dataclasses
import math
from itertools import combinations
from typing import get_args

import pytest

from profiler import kernels
from profiler.errors import UserError
from profiler.geometry import Weighted
from profiler.ops import Conv2d, FusedConv2d, Layer, Linear, MaskSource, Op, Pass, PointwiseDepthwise, Relu, Requantize
from profiler.workloads.coverage import companion_ops
from profiler.workloads.coverage_s8 import network_ops_s8
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, Saving, StepPlan
from profiler.workloads.schemes import SCHEMES, published_scheme
from profiler.workloads.step import training_step

SAVINGS = get_args(Saving)


@pytest.fixture(scope="module")
def mcunet():
    return load_network("mcunet-5fps", (3, 64, 64))[1]


@pytest.fixture(scope="module")
def profiled(mcunet):
    return network_ops_s8(mcunet, Head(classes=5), optimizers=("sgd", "adam"))


def whole(op: Op) -> Op:
    """The op with all of the weights it reads in one place: how many lie apart is a matter of the plan."""
    if op.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT):
        return dataclasses.replace(op, trained_channels=0)
    return op


def test_gradients_of_sums_are_profiled_by_the_channels_of_their_terms(mcunet, profiled) -> None:
    requantized = {op.geometry for op in profiled if isinstance(op.geometry, Requantize)}
    of_weights = {(math.prod(g.output_shape[:-1]), g.output_shape[-1]) for g in (x.geometry for x in mcunet.trainable)}
    assert {(g.positions, g.channels) for g in requantized} == of_weights


def test_each_is_listed_once_and_has_a_kernel(profiled) -> None:
    assert len(profiled) == len(set(profiled))
    assert {(op.kind, str(op.pass_), op.dtype, op.variant) for op in profiled} <= kernels.supported()


@pytest.mark.parametrize("count", range(len(SAVINGS) + 1))
def test_every_op_of_the_published_schemes_is_profiled(mcunet, profiled, count) -> None:
    known = set(map(whole, profiled))
    for savings in combinations(SAVINGS, count):
        for name in SCHEMES:
            plan = published_scheme(mcunet, name, savings=savings)
            ops = {whole(step_op.op) for step_op in training_step(mcunet, plan).ops}
            assert ops <= known, [op.key for op in ops - known]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_op_of_a_step_that_trains_all_layers_is_profiled(mcunet, profiled, optimizer) -> None:
    known = set(map(whole, profiled))
    for axis, share in (("out", 1 / 8), ("out", 1), ("in", 1 / 4), ("in", 1)):
        layers = {}
        for layer in mcunet.trainable:
            on = "out" if layer.geometry.kind == "depthwise" else axis
            layers[layer.name] = LayerPlan(tuple(range(round(share * layer.geometry.channels(on)))), on)
        plan = StepPlan.for_network(mcunet, layers, dtype="s8", optimizer=optimizer, head=Head(classes=5), images=2)
        ops = {whole(step_op.op) for step_op in training_step(mcunet, plan).ops}
        assert ops <= known, [op.key for op in ops - known]


def test_nothing_is_profiled_that_no_step_has(mcunet, profiled) -> None:
    """Activations are folded, the image gets no gradient, and both ways to know what was clamped are there."""
    assert not [op for op in profiled if isinstance(op.geometry, Relu)]
    first = mcunet.trainable[0].geometry
    assert Op(first, Pass.FORWARD, "s8") in profiled
    assert Op(first, Pass.GRAD_INPUT, "s8") not in profiled
    masks = {op.geometry.mask for op in profiled if isinstance(op.geometry, Requantize)}
    assert masks == {MaskSource.OUTPUT, MaskSource.BITS}


def test_weights_in_segments_are_profiled_on_both_axes(profiled) -> None:
    for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT):
        axes = {op.trained_axis for op in profiled if op.pass_ is pass_ and op.kind == "conv2d" and op.trained_channels}
        assert axes == {"in", "out"}


def test_updates_that_keep_no_gradient_are_for_sgd(mcunet) -> None:
    for optimizers, there in ((("sgd",), True), (("adam",), False)):
        ops = network_ops_s8(mcunet, optimizers=optimizers)
        assert any(isinstance(op.geometry, FusedConv2d) for op in ops) is there


def test_of_grouped_convolutions_only_the_bias_trains() -> None:
    grouped = Conv2d(4, 4, 4, 6, 3, 3, 1, 1, 1, 1, groups=2)
    network = Network("grouped", (3, 4, 4), (
        Layer("first", Conv2d(4, 4, 3, 4, 1, 1), ("input",)),
        Layer("grouped", grouped, ("first",)),
        Layer("last", Linear(96, 5), ("grouped",)),
    ), "last", False)  # fmt: skip
    trained = [op for op in network_ops_s8(network) if op.geometry == grouped and op.pass_ is Pass.GRAD_WEIGHT]
    assert [(op.trained_channels, op.trains_bias) for op in trained] == [(0, True)]


def test_a_layer_without_int8_kernels_is_named() -> None:
    network = Network("alone", (3, 2, 2), (Layer("relu", Relu(12), ("input",)),), "relu", False)
    with pytest.raises(UserError, match="alone has layers without int8 kernels: relu"):
        network_ops_s8(network)


def test_companions_of_int8_ops_are_int8_with_the_same_passes_and_variants(profiled) -> None:
    companions = companion_ops(profiled)
    assert {op.dtype for op in companions} == {"s8"}
    own = {(type(op.geometry), op.pass_, op.variant) for op in profiled}
    assert {(type(op.geometry), op.pass_, op.variant) for op in companions} <= own
    assert {op.variant for op in companions if op.kind == "depthwise"} == {"blocked", "in_place"}
    assert any(isinstance(op.geometry, PointwiseDepthwise) for op in companions)
    for op in companions:
        kernels.work(op)  # raises where the firmware takes no such op
    assert not set(companions) & set(profiled)


def test_a_companion_of_a_fused_update_updates() -> None:
    op = Op(FusedConv2d(8, 8, 16, 24, 1, 1), Pass.UPDATE, "s8", 4, "in", True)
    companions = companion_ops([op])
    assert {c.pass_ for c in companions} == {Pass.UPDATE}
    assert len({c.geometry for c in companions}) > 3


def test_companions_of_both_dtypes_are_those_of_each(mcunet, profiled) -> None:
    floats = [Op(layer.geometry, Pass.FORWARD) for layer in mcunet.layers if isinstance(layer.geometry, Weighted)]
    together = companion_ops([*floats, *profiled])
    assert set(together) == set(companion_ops(floats)) | set(companion_ops(profiled))
