"""Which ops to profile so that any int8 training step of a network is covered: the twin of
:func:`profiler.workloads.coverage.network_ops`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from profiler.geometry import Weighted
from profiler.ops import (
    Add,
    Dequantize,
    MaskSource,
    MaxPool2d,
    Op,
    Optimizer,
    Pass,
    Requantize,
    SaturationMask,
)
from profiler.workloads.combined_s8 import fused_geometry, overwrites_input, streamed_geometry
from profiler.workloads.coverage import trainings
from profiler.workloads.head import head_geometries
from profiler.workloads.network import INPUT, Network
from profiler.workloads.plan import Head
from profiler.workloads.quantized import Node, output_node, quantized_nodes

#: Shares of a layer's weights that lie in a segment of their own in profiled ``forward`` and ``grad_input`` ops. The
#: kernels' work depends on them little, so one each way does.
_SEGMENTS = (("in", 1 / 4), ("out", 1 / 2))


def network_ops_s8(
    network: Network,
    head: Head | None = None,
    ratios: Sequence[float] = (1 / 8, 1 / 4, 1 / 2, 1),
    optimizers: Sequence[Optimizer] = ("sgd",),
) -> list[Op]:
    """Every op that a training step of dtype ``s8`` of this network can contain, each once, in the order of a step.

    Args:
        network: The network.
        head: The loss, which is float32; None leaves it out.
        ratios: Shares of the channels for which ``grad_weight`` and ``update`` are listed, of input channels too, which
            are what the published schemes train. Of grouped convolutions only biases train.
        optimizers: Whose updates are listed; with ``sgd`` also updates fused with their gradient.

    Raises:
        UserError: the network has a layer without int8 kernels.
    """
    nodes = quantized_nodes(network)
    last = nodes[output_node(network, nodes)].geometry
    ops = [*_forward(nodes), Op(Dequantize(math.prod(last.output_shape)), Pass.FORWARD, "s8")]
    if head is not None:
        loss = [g for _, g in head_geometries(network, head)]
        ops += [*(Op(g, Pass.FORWARD) for g in loss), *(Op(g, Pass.GRAD_INPUT) for g in reversed(loss))]
    ops += [Op(Dequantize(math.prod(last.output_shape)), Pass.GRAD_INPUT, "s8"), *_backward(nodes)]
    for node in nodes.values():
        ops += _training(node, ratios, optimizers)
    return list(dict.fromkeys(ops))


def _forward(nodes: dict[str, Node]) -> Iterable[Op]:
    readers = _readers(nodes)
    for node in nodes.values():
        g = node.geometry
        for segment in _segments(node):
            yield Op(g, Pass.FORWARD, "s8", **segment)
        source = node.inputs[0]
        alone = source != INPUT and len(readers[source]) == 1
        if alone and overwrites_input(g):
            for segment in _segments(node):
                yield Op(g, Pass.FORWARD, "s8", variant="in_place", **segment)
        if alone and (streamed := streamed_geometry(nodes[source].geometry, g)):
            yield Op(streamed, Pass.FORWARD, "s8")
        if isinstance(g, Weighted | Add):
            yield Op(SaturationMask(math.prod(g.output_shape)), Pass.FORWARD, "s8")


def _backward(nodes: dict[str, Node]) -> Iterable[Op]:
    for node in reversed(nodes.values()):
        g = node.geometry
        if isinstance(g, Weighted | Add):
            positions = math.prod(g.output_shape) // node.channels
            for mask in (MaskSource.OUTPUT, MaskSource.BITS):
                yield Op(Requantize(positions, node.channels, mask), Pass.GRAD_INPUT, "s8")
        if node.inputs[0] == INPUT or isinstance(g, Add | MaxPool2d):
            continue  # no gradient is wanted there; that of a sum is requantised; there is none of int8 max pooling
        if isinstance(g, Weighted):
            for segment in _segments(node):
                yield Op(g, Pass.GRAD_INPUT, "s8", **segment)
        else:
            yield Op(g, Pass.GRAD_INPUT)
    for name, readers in _readers(nodes).items():
        if len(readers) > 1 and name != INPUT:
            yield Op(Add(math.prod(nodes[name].geometry.output_shape)), Pass.GRAD_INPUT)


def _training(node: Node, ratios: Sequence[float], optimizers: Sequence[Optimizer]) -> Iterable[Op]:
    g = node.geometry
    if not isinstance(g, Weighted):
        return
    settings = [t for t in trainings(g, ratios, ratios) if getattr(g, "groups", 1) == 1 or not t["trained_channels"]]
    for t in settings:
        yield Op(g, Pass.GRAD_WEIGHT, "s8", **t)
    for optimizer in optimizers:
        for t in settings:
            yield Op(g, Pass.UPDATE, "s8", optimizer=optimizer, **t)
    if "sgd" in optimizers:
        for t in settings:
            if fused := fused_geometry(g, trains_weights=bool(t["trained_channels"])):
                yield Op(fused, Pass.UPDATE, "s8", **t)


def _segments(node: Node) -> list[dict]:
    """Settings of ``forward`` and ``grad_input``: all weights together, and some apart."""
    g = node.geometry
    if not isinstance(g, Weighted) or getattr(g, "groups", 1) > 1:
        return [{}]
    shares = [(axis, share) for axis, share in _SEGMENTS if axis == "out" or g.kind != "depthwise"]
    return [{}, *({"trained_channels": max(1, round(g.channels(a) * s)), "trained_axis": a} for a, s in shares)]


def _readers(nodes: dict[str, Node]) -> dict[str, list[Node]]:
    readers: dict[str, list[Node]] = {}
    for node in nodes.values():
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    return readers
