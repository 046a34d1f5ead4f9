import pytest
import torch
from made_up import MadeUpCosts

from costmodels.analytical import AnalyticalCosts
from profiler.ops import Op, Pass
from profiler.workloads.lower import lower
from tinytrain import backbones
from tinytrain.criterion import scores


@pytest.fixture(scope="module")
def network():
    return lower(backbones.create("mcunet-5fps"), (3, 64, 64), "mcunet-5fps")


def test_the_analytical_score_is_the_papers(network):
    # blocks.13.pointwise2: 576 × 160 weights at 2×2, the largest layer of all. blocks.0.depthwise: 16 × 3 × 3 at 32×32.
    information = {
        "blocks.13.pointwise2": torch.tensor([1.0, 2.0]),
        "blocks.0.depthwise": torch.tensor([0.25]),
    }
    result = scores(network, information, AnalyticalCosts())
    largest_macs = max(layer.geometry.forward_macs for layer in network.trainable)
    last = result["blocks.13.pointwise2"]
    assert (last.potential, last.parameters, last.cost, last.unit) == (3.0, 92160, 92160 * 4, "MACs")
    assert last.score == pytest.approx(3.0 / (1.0 * (92160 * 4 / largest_macs)))
    first = result["blocks.0.depthwise"]
    assert first.score == pytest.approx(0.25 / ((144 / 92160) * (144 * 32 * 32 / largest_macs)))


def test_a_fitted_source_scores_by_the_latency_of_the_layers_own_backward_ops(network):
    name = "blocks.9.depthwise"
    source, geometry = MadeUpCosts(), network[name].geometry
    result = scores(network, {name: torch.ones(192)}, source, images=4, optimizer="adam")[name]
    expected = source.op_latency_us(Op(geometry, Pass.GRAD_INPUT))
    expected += source.op_latency_us(Op(geometry, Pass.GRAD_WEIGHT, trained_channels=192, trains_bias=True))
    update = Op(geometry, Pass.UPDATE, trained_channels=192, trains_bias=True, optimizer="adam")
    expected += source.op_latency_us(update) / 4
    assert (result.unit, result.cost) == ("us", pytest.approx(expected))


def test_a_dearer_kind_falls_behind_under_the_source_that_knows(network):
    information = {"blocks.9.depthwise": torch.tensor([1.0]), "blocks.9.pointwise1": torch.tensor([1.0])}
    analytical = scores(network, information, AnalyticalCosts())
    fitted = scores(network, information, MadeUpCosts())

    def advantage(result):
        return result["blocks.9.depthwise"].score / result["blocks.9.pointwise1"].score

    assert advantage(fitted) < advantage(analytical)
