"""The layers between a network's output and the loss."""

from __future__ import annotations

import math

from profiler.errors import UserError
from profiler.ops import CosineHead, Geometry, L2Normalize, SoftmaxCrossEntropy
from profiler.workloads.network import Network
from profiler.workloads.plan import Head

NORMALIZE_LAYER, COSINE_LAYER, LOSS_LAYER = "head.normalize", "head.cosine", "head.loss"
#: Between them and a network of int8.
DEQUANTIZE_LAYER = "head.dequantize"
_LAYERS = (DEQUANTIZE_LAYER, NORMALIZE_LAYER, COSINE_LAYER, LOSS_LAYER)
HEAD_KINDS = ("cosine_prototype", "cross_entropy")


def head_geometries(network: Network, head: Head) -> list[tuple[str, Geometry]]:
    """The head's layers, (name, geometry), in forward order.

    Raises:
        UserError: an unknown head, a network that ends in a map, logits that are not as many as the classes, or a layer
            of the network that is called as one of the head's is.
    """
    elements = math.prod(network[network.output].geometry.output_shape)
    if network.ends_in_map:
        raise UserError(
            f"the network {network.name} ends in a map of more than one position, and a "
            "training step needs a vector of features or logits",
            hint="end it in pooling to 1x1, flattening or a linear layer",
        )
    if taken := [name for name in _LAYERS if name in network.by_name]:
        raise UserError(
            f"the network {network.name} has a layer {taken[0]!r}, which is what a layer of the loss is called",
            hint="rename that module",
        )
    if head.kind not in HEAD_KINDS:
        raise UserError(f"the plan asks for the head {head.kind!r}", hint=f"there are {' and '.join(HEAD_KINDS)}")
    loss = (LOSS_LAYER, SoftmaxCrossEntropy(head.classes))
    if head.kind == "cross_entropy":
        if elements != head.classes:
            raise UserError(
                f"the plan's head has {head.classes} classes, but the network {network.name} gives {elements} logits",
                hint="make the plan's head.classes equal to the network's logits, or use the head cosine_prototype",
            )
        return [loss]
    return [
        (NORMALIZE_LAYER, L2Normalize(elements)),
        (COSINE_LAYER, CosineHead(elements, head.classes, head.scale)),
        loss,
    ]
