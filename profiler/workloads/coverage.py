"""Which ops to profile so that any training step of a network is covered."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Sequence

from profiler.ops import (
    Add,
    Conv2d,
    Depthwise,
    FusedConv2d,
    Geometry,
    GroupNorm,
    Linear,
    Op,
    Optimizer,
    Pass,
    PointwiseDepthwise,
    UpsampleBilinear2d,
)
from profiler.workloads.combined_s8 import overwrites_input
from profiler.workloads.head import head_geometries
from profiler.workloads.network import INPUT, Network
from profiler.workloads.plan import Head

#: What of each layer is profiled beside the ratios of output channels: input channels, and the bias alone.
_RATIOS_IN = (1 / 4, 1)
#: Geometries of a kind from which on the network's own tell its kernels' loops apart.
_ENOUGH_GEOMETRIES = 20
#: With fewer, each gets companions until there are about so many, but at most as many as its kind allows; a network may
#: have a single map size of the last two kinds, whose ops take little time.
_WANTED_GEOMETRIES = 36
_COMPANIONS_EACH: dict[type[Geometry], int] = {
    Conv2d: 6,
    Depthwise: 6,
    Linear: 6,
    GroupNorm: 12,
    UpsampleBilinear2d: 12,
    FusedConv2d: 6,
    PointwiseDepthwise: 6,
}


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
            for settings in trainings(layer.geometry, ratios):
                ops[Op(layer.geometry, pass_, optimizer=optimizer, **settings)] = None
    return list(ops)


def trainings(g: Geometry, ratios: Sequence[float], ratios_in: Sequence[float] = _RATIOS_IN) -> Iterable[dict]:
    """What of a layer is profiled to train, as settings of :class:`~profiler.ops.Op`."""
    bias = bool(g.bias_elements)  # type: ignore[attr-defined]
    axes = [("out", ratios)]
    if g.kind in ("conv2d", Linear.kind):
        axes.append(("in", ratios_in))
    for axis, shares in axes:
        count = g.channels(axis)  # type: ignore[attr-defined]
        for share in shares:
            yield {"trained_channels": max(1, round(count * share)), "trained_axis": axis, "trains_bias": bias}
    if bias:
        yield {"trained_channels": 0, "trains_bias": True}


def companion_ops(ops: Sequence[Op]) -> list[Op]:
    """Ops of no layer, measured so that a cost model can tell apart the loops of kernels that a network uses little.

    A network has few geometries of a kind (13 depthwise convolutions, say, of four kernel sizes and two strides), fewer
    than its kernels have loops. Companions keep kernel, stride, padding and groups (of a GroupNorm the channels of a
    group) and vary the map and the channels; they are never larger than the layer that they accompany.

    Args:
        ops: What is profiled.

    Returns:
        ``forward``, ``grad_input`` and ``grad_weight`` of each companion (of kinds that only update, ``update``), as
        far as ``ops`` has those passes of the kind and dtype; always the same for the same ops.
    """
    companions: dict[Op, None] = {}
    for dtype in dict.fromkeys(op.dtype for op in ops):
        for cls, most in _COMPANIONS_EACH.items():
            own = [op for op in ops if op.dtype == dtype and type(op.geometry) is cls]
            geometries = list(dict.fromkeys(op.geometry for op in own))
            if not geometries or len(geometries) >= _ENOUGH_GEOMETRIES:
                continue
            each = min(most, math.ceil(_WANTED_GEOMETRIES / len(geometries)) - 1)
            for geometry in geometries:
                rng = random.Random(repr(geometry.values()))
                for companion in (_companion(geometry, rng) for _ in range(each)):
                    companions |= dict.fromkeys(_passes_of(companion, own, rng))
    return [op for op in companions if op not in set(ops)]


def _passes_of(companion: Geometry, own: Sequence[Op], rng: random.Random) -> Iterable[Op]:
    """A companion's ops of the passes and variants that ``own``, all of its kind and dtype, have."""
    dtype = own[0].dtype
    there = {(op.pass_, op.variant) for op in own}
    for pass_ in (Pass.FORWARD, Pass.GRAD_INPUT):
        for variant in sorted(variant for p, variant in there if p is pass_):
            if variant == "in_place" and not overwrites_input(companion):
                continue
            yield Op(companion, pass_, dtype, variant=variant)
    for pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        if (pass_, "blocked") in there and (pass_ is Pass.GRAD_WEIGHT or not companion.trainable):
            count = rng.randint(1, companion.channels("out"))  # type: ignore[attr-defined]
            if dtype == "s8" and getattr(companion, "groups", 1) > 1:
                count = 0
            bias = bool(companion.bias_elements)  # type: ignore[attr-defined]
            if count or bias:
                yield Op(companion, pass_, dtype, trained_channels=count, trains_bias=bias)


def _companion(g: Geometry, rng: random.Random) -> Geometry:
    def smaller(extent: int, least: int = 1, step: int = 1) -> int:
        return max(least, round(extent / step * rng.uniform(0.3, 1))) * step

    if isinstance(g, Linear):
        return dataclasses.replace(g, in_features=smaller(g.in_features), out_features=smaller(g.out_features))
    if isinstance(g, GroupNorm | UpsampleBilinear2d):
        changes = {"in_h": smaller(g.in_h), "in_w": smaller(g.in_w)}
        if isinstance(g, UpsampleBilinear2d):
            return dataclasses.replace(g, in_channels=smaller(g.in_channels), **changes)
        groups = smaller(g.groups)
        return dataclasses.replace(g, in_channels=g.in_channels // g.groups * groups, groups=groups, **changes)
    changes = {"in_h": smaller(g.in_h, min(g.in_h, g.kernel_h)), "in_w": smaller(g.in_w, min(g.in_w, g.kernel_w))}
    groups = g.groups if isinstance(g, Conv2d) else 1
    changes["in_channels"] = smaller(g.in_channels, step=groups)
    if isinstance(g, Conv2d):
        changes["out_channels"] = smaller(g.out_channels, step=groups)
    if isinstance(g, PointwiseDepthwise):
        changes["mid_channels"] = smaller(g.mid_channels)
    return dataclasses.replace(g, **changes)
