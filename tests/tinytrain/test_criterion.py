import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import MadeUpCosts

from costmodels.analytical import AnalyticalCosts
from profiler.ops import Op, Pass
from profiler.workloads.lower import lower
from profiler.workloads.plan import LayerPlan, StepPlan
from tinytrain import backbones
from tinytrain.criterion import persistent_bytes, scores

NETWORK = lower(backbones.create("mcunet-5fps"), (3, 64, 64), "mcunet-5fps")
TEMPLATE = StepPlan.for_network(NETWORK, {})


def literal(potential: dict[str, list[float]]) -> dict[str, float]:
    """s_i from the torch network's own shapes: sums over channels, weights and multiplications counted one by one."""
    model, sizes, macs = backbones.create("mcunet-5fps"), {}, {}

    def count(name):
        def hook(module, inputs, output):
            weight = module.weight
            sizes[name] = weight.numel()
            macs[name] = sum(weight[o].numel() for o in range(len(weight))) * output[0, 0].numel()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count(name))
    model(torch.zeros(1, 3, 64, 64))
    result = {}
    for name, deltas in potential.items():
        total = 0.0
        for delta in deltas:
            total += delta
        result[name] = total / ((sizes[name] / max(sizes.values())) * (macs[name] / max(macs.values())))
    return result


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), names=st.sets(st.sampled_from([x.name for x in NETWORK.trainable]), min_size=1))
def test_the_published_score_is_the_literal_one(seed, names):
    generator = torch.Generator().manual_seed(seed)
    information = {
        name: torch.rand(NETWORK[name].geometry.channels("out"), generator=generator, dtype=torch.float64)
        for name in names
    }
    expected = literal({name: delta.tolist() for name, delta in information.items()})
    for source in (AnalyticalCosts(), MadeUpCosts()):
        found = scores(NETWORK, information, source, TEMPLATE, denominator="published")
        for name, score in found.items():
            assert score.score == pytest.approx(expected[name], rel=1e-6)


def test_what_is_no_potential_is_no_score():
    found = scores(NETWORK, {"first_conv": torch.zeros(16)}, AnalyticalCosts(), TEMPLATE)
    assert found["first_conv"].score == 0


def test_training_keeps_weights_gradients_moments_and_the_input():
    layer = NETWORK["blocks.9.pointwise1"]  # 48 to 192 channels at 4x4
    plan = LayerPlan(tuple(range(24)))
    adam, sgd = TEMPLATE, StepPlan.for_network(NETWORK, {}, optimizer="sgd")
    full, some = 192 * 48 * 4 + 192 * 4, 24 * 48 * 4 + 24 * 4
    assert persistent_bytes(layer, plan, adam, saved_input=False) == full + 3 * some
    assert persistent_bytes(layer, plan, sgd, saved_input=False) == full + some
    assert persistent_bytes(layer, plan, sgd, saved_input=True) == full + some + 48 * 16 * 4
    assert persistent_bytes(layer, LayerPlan(), sgd, saved_input=True) == 2 * 192 * 4  # a bias needs no input
    # Int8: a byte a trained weight and an element of the input; gradients, where they are kept, and biases are words.
    int8 = StepPlan.for_network(NETWORK, {}, optimizer="sgd", dtype="s8")
    fused = StepPlan.for_network(NETWORK, {}, optimizer="sgd", dtype="s8", savings=frozenset({"fused_update"}))
    trained = 24 * 48 + 192 * 4
    assert persistent_bytes(layer, plan, int8, saved_input=True) == trained + some + 48 * 16
    assert persistent_bytes(layer, plan, fused, saved_input=True) == trained + 48 * 16


def test_a_score_that_knows_the_frontier_counts_the_layers_behind():
    names = ["blocks.13.pointwise2", "blocks.13.depthwise", "blocks.9.pointwise1"]
    information = {name: torch.ones(NETWORK[name].geometry.channels("out")) for name in names}
    own = scores(NETWORK, information, AnalyticalCosts(), TEMPLATE)
    chain = scores(NETWORK, information, AnalyticalCosts(), TEMPLATE, frontier=True)
    position = [layer.name for layer in NETWORK.layers].index
    for name in names:
        later = [x for x in NETWORK.layers if position(x.name) > position(name)]
        assert chain[name].cost == own[name].cost + sum(x.geometry.forward_macs for x in later)
    # On a device what is not multiplied counts too, such as activations; of the last layer's tail, pooling.
    source = MadeUpCosts()
    own = scores(NETWORK, information, source, TEMPLATE)
    chain = scores(NETWORK, information, source, TEMPLATE, frontier=True)
    grows = [chain[name].cost - own[name].cost for name in names]
    pooling = [x for x in NETWORK.layers if position(x.name) > position(names[0])]
    assert grows[0] == pytest.approx(sum(source.op_latency_us(Op(x.geometry, Pass.GRAD_INPUT)) for x in pooling))
    assert grows == sorted(grows) and grows[0] > 0
    assert math.isfinite(chain[names[0]].score)


def test_analytical_costs_as_a_devices_are_time_in_every_part():
    names = ["blocks.13.pointwise2", "blocks.9.pointwise1"]
    information = {name: torch.ones(NETWORK[name].geometry.channels("out")) for name in names}
    costs = {"source": AnalyticalCosts(0.01), "template": TEMPLATE, "denominator": "device"}
    own = scores(NETWORK, information, **costs)
    chain = scores(NETWORK, information, **costs, frontier=True)
    position = [layer.name for layer in NETWORK.layers].index
    for name in names:
        later = [x for x in NETWORK.layers if position(x.name) > position(name)]
        assert own[name].unit == "us"
        assert own[name].cost == pytest.approx(0.01 * 2 * NETWORK[name].geometry.forward_macs)  # both gradients
        assert chain[name].cost - own[name].cost == pytest.approx(0.01 * sum(x.geometry.forward_macs for x in later))


def test_an_unknown_denominator_is_refused():
    with pytest.raises(ValueError, match="published or device"):
        scores(NETWORK, {}, AnalyticalCosts(), TEMPLATE, denominator="guessed")


def test_the_analytical_score_is_the_papers():
    # blocks.13.pointwise2: 576 × 160 weights at 2×2, the largest layer of all. blocks.0.depthwise: 16 × 3 × 3 at 32×32.
    information = {
        "blocks.13.pointwise2": torch.tensor([1.0, 2.0]),
        "blocks.0.depthwise": torch.tensor([0.25]),
    }
    result = scores(NETWORK, information, AnalyticalCosts(), TEMPLATE)
    largest_macs = max(layer.geometry.forward_macs for layer in NETWORK.trainable)
    last = result["blocks.13.pointwise2"]
    assert (last.potential, last.memory, last.memory_unit, last.cost, last.unit) == (
        3.0,
        92160,
        "weights",
        92160 * 4,
        "MACs",
    )
    assert last.score == pytest.approx(3.0 / (1.0 * (92160 * 4 / largest_macs)))
    first = result["blocks.0.depthwise"]
    assert first.score == pytest.approx(0.25 / ((144 / 92160) * (144 * 32 * 32 / largest_macs)))


def test_a_fitted_source_scores_by_the_latency_of_the_layers_own_backward_ops():
    name = "blocks.9.depthwise"
    source, geometry = MadeUpCosts(), NETWORK[name].geometry
    template = StepPlan.for_network(NETWORK, {}, images=4)
    result = scores(NETWORK, {name: torch.ones(192)}, source, template)[name]
    expected = source.op_latency_us(Op(geometry, Pass.GRAD_INPUT))
    expected += source.op_latency_us(Op(geometry, Pass.GRAD_WEIGHT, trained_channels=192, trains_bias=True))
    update = Op(geometry, Pass.UPDATE, trained_channels=192, trains_bias=True, optimizer="adam")
    expected += source.op_latency_us(update) / 4
    assert (result.unit, result.cost) == ("us", pytest.approx(expected))


def test_a_dearer_kind_falls_behind_under_the_source_that_knows():
    information = {"blocks.9.depthwise": torch.tensor([1.0]), "blocks.9.pointwise1": torch.tensor([1.0])}
    analytical = scores(NETWORK, information, AnalyticalCosts(), TEMPLATE)
    fitted = scores(NETWORK, information, MadeUpCosts(), TEMPLATE)

    def advantage(result):
        return result["blocks.9.depthwise"].score / result["blocks.9.pointwise1"].score

    assert advantage(fitted) < advantage(analytical)
