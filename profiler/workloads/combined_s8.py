"""Which int8 kernels do the work of two: a pointwise convolution streamed into a depthwise one, a gradient applied at
once, a depthwise convolution that overwrites its input."""

from __future__ import annotations

import math

from profiler.kernels import supported
from profiler.ops import Conv2d, Depthwise, FusedConv2d, Geometry, Linear, PointwiseDepthwise


def streamed_geometry(first: Geometry, second: Geometry) -> PointwiseDepthwise | None:
    """The two layers as one that keeps no whole tensor in between; None: they are not pointwise and depthwise."""
    if not isinstance(second, Depthwise) or not _is_pointwise(first):
        return None
    assert isinstance(first, Conv2d)
    window = (second.kernel_h, second.kernel_w, second.stride_h, second.stride_w, second.pad_h, second.pad_w)
    map_ = (first.in_h, first.in_w, first.in_channels, first.out_channels)
    return PointwiseDepthwise(*map_, *window, first.has_bias, second.has_bias)


def fused_geometry(g: Geometry, *, trains_weights: bool) -> FusedConv2d | None:
    """The convolution that trains a layer's weights, or its bias alone, without keeping a gradient; None: there is
    none."""
    if isinstance(g, Conv2d) and (g.groups == 1 or not trains_weights):
        return FusedConv2d(*g.values())
    if isinstance(g, Linear):
        return FusedConv2d(1, 1, g.in_features, g.out_features, 1, 1, has_bias=g.has_bias)
    if isinstance(g, Depthwise) and not trains_weights:
        window = (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_h, g.pad_w)
        return FusedConv2d(g.in_h, g.in_w, g.in_channels, g.in_channels, *window, g.in_channels, g.has_bias)
    return None


def overwrites_input(g: Geometry) -> bool:
    """Whether there is a kernel for a depthwise convolution of this geometry that needs no second tensor."""
    if not isinstance(g, Depthwise) or ("depthwise", "forward", "s8", "in_place") not in supported():
        return False
    return math.prod(g.output_shape) <= math.prod(g.input_shape)


def _is_pointwise(g: Geometry) -> bool:
    return (
        isinstance(g, Conv2d)
        and (g.kernel_h, g.kernel_w, g.stride_h, g.stride_w, g.pad_h, g.pad_w, g.groups) == (1, 1, 1, 1, 0, 0, 1)
    )  # fmt: skip
