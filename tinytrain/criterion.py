"""TinyTrain's criterion: which layers are worth training for what they cost.

    P_i = Σ_o Δ_o
    s_i = P_i / [ (‖W_i‖ / max_l ‖W_l‖) · (c_i / max_l c_l) ]

‖W_i‖ is the number of layer i's weights. With analytical costs c_i is M_i, the layer's own MACs, as published; with
a fitted cost model it is the predicted latency of the layer's own backward ops. The maxima run over all layers with
weights, so that scores do not depend on how many of them are inspected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from costmodels.analytical import AnalyticalCosts, layer_macs, layer_parameters
from costmodels.sources import CostSource
from profiler.ops import Layer, Op, Optimizer, Pass
from profiler.workloads.network import Network


@dataclass(frozen=True)
class Score:
    """A layer's standing.

    Attributes:
        layer: Its name.
        potential: P_i.
        parameters: ‖W_i‖.
        cost: c_i, in ``unit``.
        unit: ``MACs`` or ``us``.
        score: s_i.
    """

    layer: str
    potential: float
    parameters: int
    cost: float
    unit: str
    score: float


def layer_cost(source: CostSource, layer: Layer, *, images: int, optimizer: Optimizer) -> tuple[float, str]:
    """c_i and its unit.

    Analytical: own MACs. Fitted: latency in us, an image, of ``grad_weight`` of all channels, of the layer's own
    ``grad_input``, and of the ``update``'s share.
    """
    if isinstance(source, AnalyticalCosts):
        return float(layer_macs(layer.geometry)), "MACs"
    g = layer.geometry
    everything = {"trained_channels": g.channels("out"), "trains_bias": bool(g.bias_elements)}
    latency_us = source.op_latency_us(Op(g, Pass.GRAD_WEIGHT, **everything))
    latency_us += source.op_latency_us(Op(g, Pass.GRAD_INPUT))
    latency_us += source.op_latency_us(Op(g, Pass.UPDATE, optimizer=optimizer, **everything)) / images
    return latency_us, "us"


def scores(
    network: Network,
    information: Mapping[str, Tensor],
    source: CostSource,
    *,
    images: int = 1,
    optimizer: Optimizer = "adam",
) -> dict[str, Score]:
    """s_i of every layer of which the information is known.

    Args:
        network: The network.
        information: Δ_o by layer name, shape (output channels,) each.
        source: Where costs come from.
        images: Images in the batch, over which the update is shared.
        optimizer: Of the update.
    """
    costs = {layer.name: layer_cost(source, layer, images=images, optimizer=optimizer) for layer in network.trainable}
    largest_cost = max(cost for cost, _ in costs.values())
    largest_size = max(layer_parameters(layer.geometry) for layer in network.trainable)
    result = {}
    for name, delta in information.items():
        potential = float(delta.sum())
        size = layer_parameters(network[name].geometry)
        cost, unit = costs[name]
        score = potential / ((size / largest_size) * (cost / largest_cost))
        result[name] = Score(name, potential, size, cost, unit, score)
    return result
