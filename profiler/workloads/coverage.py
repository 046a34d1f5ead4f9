"""Which ops to profile so that any training step of a network is covered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from profiler.ops import Add, Geometry, Linear, Op, Optimizer, Pass
from profiler.workloads.head import head_geometries
from profiler.workloads.network import INPUT, Network
from profiler.workloads.plan import Head

#: What of each layer is profiled beside the ratios of output channels: input channels, and the bias alone.
_RATIOS_IN = (1 / 4, 1)


def network_ops(
    network: Network,
    head: Head | None = None,
    ratios: Sequence[float] = (1 / 8, 1 / 4, 1 / 2, 1),
    optimizers: Sequence[Optimizer] = ("adam",),
) -> list[Op]:
    """Every op that a training step of this network can contain, each once, in the order of a step.

    Args:
        network: The network.
        head: The loss; None leaves it out.
        ratios: Shares of the output channels for which ``grad_weight`` and ``update`` are listed. Of convolutions and
            linear layers also 1/4 and all of the input channels, and of all the bias alone.
        optimizers: Whose updates are listed.
    """
    ops: dict[Op, None] = {}
    layers = [(layer.geometry, layer.inputs) for layer in network.layers]
    if head is not None:
        layers += [(g, (network.output,)) for _, g in head_geometries(network, head)]
    for g, _ in layers:
        ops[Op(g, Pass.FORWARD)] = None
    uses: dict[str, int] = {}
    for g, inputs in reversed(layers):
        for name in inputs:
            if name == INPUT:
                continue  # no gradient is wanted there
            if not isinstance(g, Add):
                ops[Op(g, Pass.GRAD_INPUT)] = None
            uses[name] = uses.get(name, 0) + 1
    for name, count in uses.items():
        if count > 1:
            ops[Op(Add(math.prod(network[name].geometry.output_shape)), Pass.GRAD_INPUT)] = None
    for pass_, optimizer in [(Pass.GRAD_WEIGHT, "sgd"), *((Pass.UPDATE, o) for o in optimizers)]:
        for layer in network.trainable:
            for settings in _trainings(layer.geometry, ratios):
                ops[Op(layer.geometry, pass_, optimizer=optimizer, **settings)] = None
    return list(ops)


def _trainings(g: Geometry, ratios: Sequence[float]) -> Iterable[dict]:
    bias = bool(g.bias_elements)  # type: ignore[attr-defined]
    axes = [("out", ratios)]
    if g.kind in ("conv2d", Linear.kind):
        axes.append(("in", _RATIOS_IN))
    for axis, shares in axes:
        count = g.channels(axis)  # type: ignore[attr-defined]
        for share in shares:
            yield {"trained_channels": max(1, round(count * share)), "trained_axis": axis, "trains_bias": bias}
    if bias:
        yield {"trained_channels": 0, "trains_bias": True}
