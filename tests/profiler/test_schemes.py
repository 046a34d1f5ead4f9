"""The published update schemes against the network that they were searched for."""

from __future__ import annotations

import pytest

from profiler.errors import UserError
from profiler.ops import Conv2d
from profiler.workloads.lower import load_network
from profiler.workloads.schemes import SCHEMES, published_scheme


@pytest.fixture(scope="module")
def mcunet():
    return load_network("mcunet-5fps", (3, 128, 128))[1]


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_train_in_the_first_pointwise_convolutions_of_blocks(mcunet, name) -> None:
    plan = published_scheme(mcunet, name)
    with_weights = {layer: p for layer, p in plan.layers.items() if p.channels}
    assert len(with_weights) == len(SCHEMES[name].input_ratios)
    for layer, p in with_weights.items():
        g = mcunet[layer].geometry
        assert layer.endswith(".pointwise1")
        assert isinstance(g, Conv2d)
        assert (g.kernel_h, g.kernel_w) == (1, 1)
        assert g.out_channels > g.in_channels
        assert p.axis == "in"
        assert p.bias
        assert p.channels == tuple(range(len(p.channels)))


def test_channels_of_the_99_kb_scheme(mcunet) -> None:
    plan = published_scheme(mcunet, "mcunetv3-99kb", savings=("in_place",))
    counts = {name: len(p.channels) for name, p in plan.layers.items() if p.channels}
    assert counts == {
        "blocks.7.pointwise1": 40,
        "blocks.8.pointwise1": 48,
        "blocks.9.pointwise1": 48,
        "blocks.10.pointwise1": 48,
        "blocks.12.pointwise1": 12,
        "blocks.13.pointwise1": 24,
    }
    assert len(plan.layers) == 22
    assert next(iter(plan.layers)) == "blocks.6.pointwise2"
    assert (plan.dtype, plan.optimizer, plan.images, plan.savings) == ("s8", "sgd", 1, {"in_place"})


def test_an_unknown_scheme_and_another_network_are_refused() -> None:
    proxyless = load_network("proxyless-w0.3", (3, 64, 64))[1]
    with pytest.raises(UserError, match="there is no scheme 'mcunetv3-1kb'"):
        published_scheme(proxyless, "mcunetv3-1kb")
    with pytest.raises(UserError, match=r"mcunetv3-99kb is for mcunet-5fps.*42 convolutions"):
        published_scheme(proxyless, "mcunetv3-99kb")
