"""A network as int8 kernels compute it: activations folded into the layers that they follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from profiler.errors import UserError
from profiler.geometry_s8 import has_dtype
from profiler.ops import Add, Geometry, Pass, Quantization, Relu
from profiler.workloads.network import INPUT, Network

#: Zero points. Behind a ReLU 0 is the least int8, so that the clamp to int8 is the ReLU; elsewhere values have either
#: sign. What they are exactly does not matter to the cost.
RELU_ZERO_POINT, SIGNED_ZERO_POINT, IMAGE_ZERO_POINT = -128, 3, -2


@dataclass(frozen=True)
class Node:
    """A layer with what follows it, as one int8 op.

    Attributes:
        name: The layer's name.
        geometry: The layer's.
        inputs: Names of the nodes (or ``input``) that it reads.
        relu: Whether a ReLU is folded into it.
        zero_point: Of its output.
        channels: Of its output; a sum, whose geometry knows elements only, has those of its first term.
    """

    name: str
    geometry: Geometry
    inputs: tuple[str, ...]
    relu: bool
    zero_point: int
    channels: int


#: Nodes of the networks that were asked for last, by fingerprint: every plan of a network asks again.
_KNOWN: dict[str, Mapping[str, Node]] = {}
_MOST_KNOWN = 64


def quantized_nodes(network: Network) -> Mapping[str, Node]:
    """The network's nodes by name, in order. Read-only, since they are remembered.

    Raises:
        UserError: a layer that there is no int8 kernel for, or a ReLU that cannot be folded.
    """
    if network.fingerprint not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[network.fingerprint] = MappingProxyType(_nodes(network))
    return _KNOWN[network.fingerprint]


def _nodes(network: Network) -> dict[str, Node]:
    readers: dict[str, int] = {}
    for layer in network.layers:
        for name in layer.inputs:
            readers[name] = readers.get(name, 0) + 1
    relu_of = {layer.inputs[0] for layer in network.layers if isinstance(layer.geometry, Relu)}
    nodes: dict[str, Node] = {}
    alias: dict[str, str] = {}
    missing: list[str] = []
    for layer in network.layers:
        g = layer.geometry
        inputs = tuple(alias.get(name, name) for name in layer.inputs)
        if isinstance(g, Relu):
            source = nodes.get(inputs[0])
            foldable = source is not None and (source.geometry.trainable or isinstance(source.geometry, Add))
            if not foldable or readers[layer.inputs[0]] > 1:
                missing.append(f"{layer.name} (a ReLU that does not alone follow a layer with weights or a sum)")
            alias[layer.name] = inputs[0]
            continue
        if not has_dtype(g, Pass.FORWARD, "s8"):
            missing.append(f"{layer.name} ({g.kind})")  # and on, so that one error names them all
        relu = layer.name in relu_of
        zero_point = RELU_ZERO_POINT if relu else SIGNED_ZERO_POINT
        if not (g.trainable or isinstance(g, Add)):  # pooling keeps its input's scale
            zero_point = _zero_point(nodes, inputs[0])
        channels = g.output_shape[-1]
        if isinstance(g, Add):
            channels = network.input_shape[0] if inputs[0] == INPUT else nodes[inputs[0]].channels
        nodes[layer.name] = Node(layer.name, g, inputs, relu, zero_point, channels)
    if missing:
        raise UserError(
            f"the network {network.name} has layers without int8 kernels: {', '.join(missing)}",
            hint="take dtype f32 for this network",
        )
    return nodes


def output_node(network: Network, nodes: Mapping[str, Node]) -> str:
    """Name of the node that gives the network's output."""
    if network.output in nodes:
        return network.output
    return network[network.output].inputs[0]


def _zero_point(nodes: Mapping[str, Node], name: str) -> int:
    return IMAGE_ZERO_POINT if name == INPUT else nodes[name].zero_point


#: The same scalars are those of many ops, and are checked once.
_quantization = lru_cache(maxsize=1024)(Quantization)


def quantization_of(nodes: Mapping[str, Node], node: Node) -> Quantization:
    """The scalars of a node's forward op, and of those backward that read its input or output."""
    first = _zero_point(nodes, node.inputs[0])
    second = _zero_point(nodes, node.inputs[1]) if len(node.inputs) > 1 else 0
    return _quantization(first, node.zero_point, -128, 127, second)


def streamed_quantization(nodes: Mapping[str, Node], pointwise: Node, depthwise: Node) -> Quantization:
    """The scalars of a pointwise convolution streamed into a depthwise one."""
    return _quantization(
        _zero_point(nodes, pointwise.inputs[0]), depthwise.zero_point, -128, 127, pointwise.zero_point, -128, 127
    )
