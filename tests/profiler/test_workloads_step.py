"""The ops of a training step: what is in it, what is left out, in which order."""

import dataclasses
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import random_network, random_plan

from profiler.errors import UserError
from profiler.ops import Add, Conv2d, Depthwise, GlobalAvgPool, Layer, Linear, Op, Pass, Relu
from profiler.workloads.arena import place
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import Head, LayerPlan, StepPlan
from profiler.workloads.random_plans import random_plan as random_plan_of
from profiler.workloads.step import TRANSIENT, assembled, network_ops, parts_of, training_step

SEEDS = st.integers(0, 10_000)


def step_of(seed):
    logits = 4 if seed % 3 == 0 else 0
    _, network = random_network(seed, logits)
    return network, training_step(network, random_plan(seed, network, logits))


def of_pass(step, pass_):
    return [s for s in step.ops if s.op.pass_ is pass_]


def network_of(*layers, ends_in_map=False):
    return Network("hand", (3, 4, 4), layers, layers[-1].name, ends_in_map)


#: A residual block behind a stem: the stem's output forks.
RESIDUAL = network_of(
    Layer("stem", Conv2d(4, 4, 3, 6, 1, 1), ("input",)),
    Layer("branch", Conv2d(4, 4, 6, 6, 3, 3, 1, 1, 1, 1), ("stem",)),
    Layer("relu", Relu(96), ("branch",)),
    Layer("add", Add(96), ("stem", "relu")),
    Layer("pool", GlobalAvgPool(4, 4, 6), ("add",)),
)


def plan_of(network, **layers):
    return StepPlan.for_network(network, layers)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_a_step_holds_what_the_plan_says_and_nothing_more(seed):
    network, step = step_of(seed)
    forward = [s.layer for s in of_pass(step, Pass.FORWARD)]
    assert forward[: len(network.layers)] == [layer.name for layer in network.layers]
    for pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        ops = {s.layer: s for s in of_pass(step, pass_)}
        assert ops.keys() == step.plan.layers.keys()
        for name, p in step.plan.layers.items():
            op = ops[name].op
            assert (op.trained_channels, op.trains_bias) == (len(p.channels), p.bias)
            assert op.trained_axis == (p.axis if p.channels else "out")
            assert ops[name].channels in (None, p.channels)
            assert ops[name].channels is not None or p.channels == tuple(range(len(p.channels)))
    assert all(s.per_image == (s.op.pass_ is not Pass.UPDATE) for s in step.ops)
    assert [s.per_image for s in step.ops] == sorted((s.per_image for s in step.ops), reverse=True)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_every_tensor_is_written_before_it_is_read_and_fits_its_op(seed):
    _, step = step_of(seed)
    outside = {"input", "label", "loss", "prototypes"}
    written = set(outside)
    for s in step.ops:
        for name, spec in zip(s.tensors, s.op.buffers(), strict=True):
            assert step.tensors[name].elements == spec.elements
            part = name.rsplit("/", 1)[-1]
            starts_filled = part in ("weight", "bias") or part.endswith("_gradient") or "moment" in part
            assert spec.access == "write" or name in written or starts_filled, f"{name} is read before it is written"
        written.update(s.outputs)
        assert set(s.inputs) | set(s.outputs) == set(s.tensors)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_gradients_go_down_only_where_something_trains(seed):
    network, step = step_of(seed)
    trains = set()
    for layer in network.layers:
        if layer.name in step.plan.layers or trains & set(layer.inputs):
            trains.add(layer.name)
    wanted = Counter()
    for layer in network.layers:
        if layer.name in trains and layer.geometry.kind != "add":
            wanted[layer.name] += sum(name in trains for name in layer.inputs)
    got = Counter(s.layer for s in of_pass(step, Pass.GRAD_INPUT) if s.layer in network.by_name and s.op.kind != "add")
    assert got == +wanted


def test_the_frontier_needs_no_gradient_of_its_input():
    step = training_step(RESIDUAL, plan_of(RESIDUAL, stem=LayerPlan((0,))))
    assert "conv2d" not in [s.op.kind for s in of_pass(step, Pass.GRAD_INPUT) if s.layer == "stem"]


def test_gradients_that_meet_at_a_fork_are_summed_once():
    step = training_step(RESIDUAL, plan_of(RESIDUAL, stem=LayerPlan((0,))))
    (meeting,) = [s for s in of_pass(step, Pass.GRAD_INPUT) if s.op.kind == "add"]
    assert meeting.layer == "stem"
    assert meeting.op == Op(Add(96), Pass.GRAD_INPUT)
    (weight,) = of_pass(step, Pass.GRAD_WEIGHT)
    assert meeting.outputs[0] in weight.inputs


def test_a_branch_below_which_nothing_trains_gets_no_gradient():
    step = training_step(RESIDUAL, plan_of(RESIDUAL, branch=LayerPlan((0,))))
    kinds = [(s.layer, s.op.kind) for s in of_pass(step, Pass.GRAD_INPUT) if not s.layer.startswith("head")]
    assert kinds == [("pool", "global_avg_pool"), ("relu", "relu")]


def test_adding_a_tensor_to_itself_doubles_its_gradient():
    network = network_of(
        Layer("conv", Conv2d(4, 4, 3, 6, 1, 1), ("input",)),
        Layer("double", Add(96), ("conv", "conv")),
        Layer("pool", GlobalAvgPool(4, 4, 6), ("double",)),
    )
    step = training_step(network, plan_of(network, conv=LayerPlan((0,))))
    (meeting,) = [s for s in of_pass(step, Pass.GRAD_INPUT) if s.op.kind == "add"]
    assert meeting.tensors[0] == meeting.tensors[1]
    assert place(step).offsets[meeting.tensors[2]] != place(step).offsets[meeting.tensors[0]]


def test_bias_only_layers_save_no_activation():
    step = training_step(RESIDUAL, plan_of(RESIDUAL, branch=LayerPlan()))
    (weight,) = of_pass(step, Pass.GRAD_WEIGHT)
    assert [step.tensors[name].role for name in weight.inputs] == ["gradient", "accumulator"]


def test_a_plan_that_trains_nothing_is_the_forward_pass_and_the_loss():
    step = training_step(RESIDUAL, plan_of(RESIDUAL, stem=LayerPlan((), bias=False)))
    assert {s.op.pass_ for s in step.ops} == {Pass.FORWARD}
    assert [s.layer for s in step.ops[-3:]] == ["head.normalize", "head.cosine", "head.loss"]


def test_sums_overwrite_the_term_that_nothing_reads_any_more():
    step = training_step(RESIDUAL, plan_of(RESIDUAL, branch=LayerPlan((0,))))
    (add,) = [s for s in of_pass(step, Pass.FORWARD) if s.layer == "add"]
    assert add.tensors[0] == "stem/output"  # relu's output is read again by its gradient, the stem's is not
    assert add.tensors[1] == "relu/output" or place(step).shared["add/output"] == "stem/output"


def test_the_head_takes_features_or_logits():
    network = network_of(Layer("fc", Linear(48, 7), ("input",)))
    cosine = training_step(network, StepPlan.for_network(network, {}, head=Head(classes=3)))
    assert [s.layer for s in cosine.ops] == ["fc", "head.normalize", "head.cosine", "head.loss"]
    plain = training_step(network, StepPlan.for_network(network, {}, head=Head("cross_entropy", 7)))
    assert [s.layer for s in plain.ops] == ["fc", "head.loss"]
    assert plain.ops[-1].tensors[0] == "fc/output"


@pytest.mark.parametrize(
    ("head", "ends_in_map", "message"),
    [
        (Head("cross_entropy", 5), False, "has 5 classes, but the network hand gives 7 logits"),
        (Head("triplet"), False, "the head 'triplet'"),
        (Head(), True, "ends in a map of more than one position"),
    ],
)
def test_a_head_that_does_not_suit_the_network_is_one_sentence(head, ends_in_map, message):
    network = network_of(Layer("fc", Linear(48, 7), ("input",)), ends_in_map=ends_in_map)
    with pytest.raises(UserError, match=message):
        training_step(network, StepPlan.for_network(network, {}, head=head))


def test_a_layer_that_is_called_as_one_of_the_head_is_one_sentence():
    network = network_of(
        Layer("head.normalize", Linear(48, 7), ("input",)), Layer("fc", Linear(7, 7), ("head.normalize",))
    )
    with pytest.raises(UserError, match=r"hand has a layer 'head\.normalize', which is what a layer of the loss"):
        training_step(network, plan_of(network))


def test_a_plan_for_another_network_is_refused():
    other = dataclasses.replace(RESIDUAL, input_shape=(3, 5, 5))
    with pytest.raises(UserError, match="the plan was made for network hand at 3x5x5"):
        training_step(RESIDUAL, plan_of(other, stem=LayerPlan((0,))))


def test_a_layer_that_the_output_does_not_depend_on_cannot_train():
    loose = network_of(Layer("loose", Linear(48, 7), ("input",)), Layer("fc", Linear(48, 7), ("input",)))
    with pytest.raises(UserError, match="'loose', which the output of hand does not depend on"):
        training_step(loose, plan_of(loose, loose=LayerPlan((0,)), fc=LayerPlan((0,))))


def test_the_profiled_ops_cover_every_op_of_a_step_with_profiled_ratios():
    _, network = load_network("mcunet-5fps", (3, 64, 64))
    ops = network_ops(network, Head(classes=5))
    assert len(ops) == len(set(ops)) < 600
    known = set(ops)
    for share in (1 / 8, 1 / 4, 1 / 2, 1):
        layers = {}
        for index, layer in enumerate(network.trainable):
            count = layer.geometry.channels("out")
            layers[layer.name] = LayerPlan(tuple(range(round(count * share)))) if index % 3 else LayerPlan()
        step = training_step(network, StepPlan.for_network(network, layers, head=Head(classes=5)))
        assert {s.op for s in step.ops} <= known


def test_the_profiled_ops_of_any_network_are_those_of_its_steps():
    for seed in range(20):
        _, network = random_network(seed)
        layers = {layer.name: LayerPlan.whole(layer) for layer in network.trainable}
        plan = StepPlan.for_network(network, layers, head=Head(classes=3), optimizer="sgd")
        assert {s.op for s in training_step(network, plan).ops} <= set(
            network_ops(network, Head(classes=3), optimizers=("sgd",))
        )


def test_a_step_is_planned_fast_enough_to_be_planned_often():
    _, network = load_network("mcunet-5fps", (3, 64, 64))
    layers = {
        layer.name: LayerPlan(tuple(range(math.ceil(layer.geometry.channels("out") / 2))))
        for layer in network.trainable
    }
    plan = StepPlan.for_network(network, layers)
    place(training_step(network, plan))
    fastest = math.inf
    for _ in range(5):
        began = time.process_time()
        place(training_step(network, plan))
        fastest = min(fastest, time.process_time() - began)
    assert fastest < 0.05


SHARED = {
    "mcunet": load_network("mcunet-5fps", (3, 16, 16))[1],
    "ic": load_network("mlperf-tiny-ic", (3, 32, 32))[1],
}


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(SHARED)), dtype=st.sampled_from(["f32", "s8"]), seed=st.integers(0, 10**6))
def test_a_step_is_the_same_whatever_steps_were_made_before(name, dtype, seed):
    network = SHARED[name]
    plan = random_plan_of(network, np.random.default_rng(seed), dtype=dtype)
    parts = parts_of.__wrapped__(network, plan.dtype, plan.head, plan.optimizer, plan.savings)
    alone = assembled(network, plan, [*parts.of_image(plan), *parts.of_update(plan)])
    step = training_step(network, plan)
    assert alone == step
    assert list(alone.tensors) == list(step.tensors)


def test_masks_are_not_found_again_where_no_layer_with_weights_reads_what_is_clamped():
    """They would be while that layer's gradient is computed."""
    network = network_of(
        Layer("stem", Conv2d(4, 4, 3, 8, 1, 1), ("input",)),
        Layer("expand", Conv2d(4, 4, 8, 16, 1, 1), ("stem",)),
        Layer("depthwise", Depthwise(4, 4, 16, 3, 3, pad_h=1, pad_w=1), ("expand",)),
        Layer("pool", GlobalAvgPool(4, 4, 16), ("depthwise",)),
    )
    layers = {"stem": LayerPlan(), "expand": LayerPlan((0,), "out", True)}
    settings_ = {"dtype": "s8", "optimizer": "sgd", "savings": frozenset(["recompute_masks"])}
    step = training_step(network, StepPlan.for_network(network, layers, **settings_))
    written = set()
    for item in step.ops:
        read = set(item.inputs) - {"input", "label", "prototypes"}
        assert {name for name in read if step.tensors[name].role in TRANSIENT} <= written
        written |= set(item.outputs)
    assert "depthwise/mask" in written
