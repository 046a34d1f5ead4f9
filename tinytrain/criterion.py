"""TinyTrain's criterion: which layers are worth training for what they cost.

    P_i = Σ_o Δ_o
    s_i = P_i / [ (‖W_i‖ / max_l ‖W_l‖) · (c_i / max_l c_l) ]

‖W_i‖ is the number of layer i's weights. c_i is what the cost source says that the layer costs by itself: with
analytical costs M_i, its own MACs, as published; with a fitted cost model the predicted latency of its own backward
ops. The maxima run over all layers with weights, so that scores do not depend on how many of them are inspected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from costmodels.analytical import layer_parameters
from costmodels.sources import CostSource
from profiler.ops import Optimizer
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
    costs = {layer.name: source.layer_cost(layer, images=images, optimizer=optimizer) for layer in network.trainable}
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
