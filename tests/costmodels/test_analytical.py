"""Costs by formula, against numbers worked out by hand."""

import math

import pytest

from costmodels.analytical import (
    AnalyticalCosts,
    backward_macs,
    forward_macs,
    gradient_layers,
    layer_parameters,
    memory_bytes,
)
from costmodels.sources import CostSource
from profiler.errors import UserError
from profiler.ops import Add, Conv2d, Depthwise, GlobalAvgPool, Layer, Linear, Op, Pass, Relu
from profiler.workloads.lower import load_network
from profiler.workloads.network import Network
from profiler.workloads.plan import LayerPlan, StepPlan
from profiler.workloads.schemes import SCHEMES, published_scheme

# first: 4x4x1 -> 4x4x2, 3x3          16 positions x 2 x 9   =   288 MACs
# expand: 4x4x2 -> 4x4x4, 1x1         16 x 4 x 2             =   128
# depthwise: 4x4x4, 3x3               16 x 4 x 9             =   576
# project: 4x4x4 -> 4x4x2, 1x1        16 x 2 x 4             =   128
# classifier: 2 -> 3                                         =     6
FIRST, EXPAND, DEPTHWISE, PROJECT, CLASSIFIER = 288, 128, 576, 128, 6
FORWARD = FIRST + EXPAND + DEPTHWISE + PROJECT + CLASSIFIER


@pytest.fixture
def network():
    layers = (
        Layer("first", Conv2d(4, 4, 1, 2, 3, 3, 1, 1, 1, 1), ("input",)),
        Layer("expand", Conv2d(4, 4, 2, 4, 1, 1), ("first",)),
        Layer("relu", Relu(64), ("expand",)),
        Layer("depthwise", Depthwise(4, 4, 4, 3, 3, 1, 1, 1, 1), ("relu",)),
        Layer("project", Conv2d(4, 4, 4, 2, 1, 1), ("depthwise",)),
        Layer("add", Add(32), ("first", "project")),
        Layer("pool", GlobalAvgPool(4, 4, 2), ("add",)),
        Layer("classifier", Linear(2, 3), ("pool",)),
    )
    return Network("by-hand", (1, 4, 4), layers, "classifier")


def plan_of(network, images=1, **layers):
    return StepPlan.for_network(network, layers, images=images)


def everything(network):
    return plan_of(
        network,
        **{layer.name: LayerPlan(tuple(range(layer.geometry.channels("out")))) for layer in network.trainable},
    )


def test_forward_macs_are_the_sum_over_layers(network):
    assert forward_macs(network) == FORWARD


def test_number_of_parameters_counts_weights_only(network):
    assert [layer_parameters(layer.geometry) for layer in network.layers] == [18, 8, 0, 36, 8, 0, 0, 6]


def test_training_everything_costs_twice_the_forward_pass_on_own_macs(network):
    assert backward_macs(network, everything(network), "own") == 2 * FORWARD


def test_training_everything_needs_no_grad_input_of_the_first_layer_on_the_chain(network):
    assert backward_macs(network, everything(network), "chain") == 2 * FORWARD - FIRST


def test_chain_counts_every_layer_from_the_frontier_to_the_loss_and_own_only_what_trains(network):
    plan = plan_of(network, expand=LayerPlan((0, 2), bias=False))
    assert backward_macs(network, plan, "own") == EXPAND + EXPAND // 2
    assert backward_macs(network, plan, "chain") == EXPAND // 2 + DEPTHWISE + PROJECT + CLASSIFIER
    assert gradient_layers(network, plan) == {"relu", "depthwise", "project", "add", "pool", "classifier"}


def test_a_branch_that_no_trained_layer_feeds_has_no_gradient():
    layers = (
        Layer("left", Conv2d(4, 4, 1, 2, 1, 1), ("input",)),
        Layer("right", Conv2d(4, 4, 1, 2, 1, 1), ("input",)),
        Layer("right2", Conv2d(4, 4, 2, 2, 1, 1), ("right",)),
        Layer("add", Add(32), ("left", "right2")),
    )
    network = Network("fork", (1, 4, 4), layers, "add")
    assert gradient_layers(network, plan_of(network, left=LayerPlan((0,)))) == {"add"}


def test_a_bias_only_layer_extends_the_chain_but_has_no_macs_of_its_own(network):
    plan = plan_of(network, project=LayerPlan((), bias=True))
    assert backward_macs(network, plan, "own") == 0
    assert backward_macs(network, plan, "chain") == CLASSIFIER


def test_memory_is_the_largest_layer_in_floats_and_16_bytes_a_trained_parameter(network):
    # largest (in + out / groups): expand and project 32 + 64 = 96 words; depthwise only 64 + 64 / 4 = 80
    assert memory_bytes(network, plan_of(network)) == 96 * 4
    # half of expand: 2 of 4 channels x 2 weights + 2 biases
    assert memory_bytes(network, plan_of(network, expand=LayerPlan((1, 3)))) == 96 * 4 + 16 * 6
    # one input channel of project: 2 weights, and the whole bias
    assert memory_bytes(network, plan_of(network, project=LayerPlan((1,), "in"))) == 96 * 4 + 16 * 4


def test_step_latency_is_macs_of_forward_and_backward_of_all_images_times_the_scalar(network):
    plan = plan_of(network, images=3, classifier=LayerPlan((0, 1, 2)))
    costs = AnalyticalCosts(us_per_mac=0.5)
    step = costs.step(network, plan)
    assert step.latency_ms == pytest.approx(3 * (FORWARD + CLASSIFIER) * 0.5 / 1e3)
    assert step.table["latency_ms"].sum() == pytest.approx(step.latency_ms)
    assert step.table["macs"].sum() == costs.step_macs(network, plan)
    assert step.energy_mj is None


def test_without_a_scalar_there_are_macs_but_asking_for_a_latency_says_how_to_get_one(network):
    costs = AnalyticalCosts()
    op = Op(network["expand"].geometry, Pass.FORWARD)
    assert math.isnan(costs.predict([op])["latency_us"][0])
    assert math.isnan(costs.step(network, everything(network)).latency_ms)
    with pytest.raises(UserError, match="costmodels fit"):
        costs.op_latency_us(op)


def test_analytical_costs_are_a_cost_source():
    assert isinstance(AnalyticalCosts(), CostSource)


def test_an_unknown_accounting_is_refused(network):
    with pytest.raises(ValueError, match="'chain' or 'own'"):
        AnalyticalCosts(1.0, accounting="both").step(network, everything(network))


@pytest.fixture(scope="module")
def mcunet():
    return load_network("mcunet-5fps", (3, 128, 128))[1]


def test_mcunet_costs_the_published_44_9_m_backward_macs(mcunet):
    assert forward_macs(mcunet) == pytest.approx(22.45e6, rel=1e-3)
    assert backward_macs(mcunet, everything(mcunet), "own") == pytest.approx(44.9e6, rel=1e-3)


def test_the_published_99_kb_scheme_costs_11_9_m_backward_macs_of_which_79_percent_are_the_chain(mcunet):
    """SparseUpdate (arXiv 2206.15472): shares of the input channels of six convolutions, by index."""
    scheme = {21: 1, 24: 1, 27: 1, 30: 1, 36: 0.125, 39: 0.25}
    layers = {}
    for index, ratio in scheme.items():
        layer = mcunet.trainable[index]
        channels = round(layer.geometry.channels("in") * ratio)
        layers[layer.name] = LayerPlan(tuple(range(channels)), "in", bias=False)
    plan = StepPlan.for_network(mcunet, layers)
    total = backward_macs(mcunet, plan, "chain")
    weights = sum(_gradient_macs(mcunet, name, layer_plan) for name, layer_plan in layers.items())
    assert total == pytest.approx(11.9e6, rel=5e-3)
    assert 1 - weights / total == pytest.approx(0.79, abs=5e-3)


def _gradient_macs(network, name, layer_plan):
    count, axis = len(layer_plan.channels), layer_plan.axis
    return Op(network[name].geometry, Pass.GRAD_WEIGHT, trained_channels=count, trained_axis=axis).macs


@pytest.mark.parametrize("name", SCHEMES)
def test_a_published_int8_scheme_takes_the_memory_that_it_is_named_by(name) -> None:
    """Its authors' formula gives its name at 128x128, so indices, ratios and biases are theirs."""
    mcunet = load_network("mcunet-5fps", (3, 128, 128))[1]
    kib = memory_bytes(mcunet, published_scheme(mcunet, name)) / 1024
    assert kib == pytest.approx(int(name.removeprefix("mcunetv3-").removesuffix("kb")), abs=1)


def test_int8_memory_by_hand(network):
    layers = {
        "expand": LayerPlan((0,), "in", bias=True),  # 64 bits of mask, 4 biases, 16 positions of a channel, 4 weights
        "depthwise": LayerPlan((0, 1), bias=False),  # 64 bits, 2 channels of 16 positions, 18 weights
        "project": LayerPlan((), bias=True),  # 32 bits, 2 biases
    }
    plan = StepPlan.for_network(network, layers, dtype="s8")
    bits = (64 + 4 * 32 + 8 * (16 + 4)) + (64 + 8 * (32 + 18)) + (32 + 2 * 32)
    assert memory_bytes(network, plan) == bits // 8
