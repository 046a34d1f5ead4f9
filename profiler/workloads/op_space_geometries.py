"""Geometries at random: of small vision and audio networks (MCUNet, MobileNetV2 and ProxylessNAS at 48 to 224 pixels;
MLPerf Tiny's DS-CNN, MobileNetV1, ResNet-8 and autoencoder), and odd ones beside them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from profiler.ops import (
    Add,
    AvgPool2d,
    Conv2d,
    CosineHead,
    Depthwise,
    Dequantize,
    FusedConv2d,
    Geometry,
    GlobalAvgPool,
    GroupNorm,
    L2Normalize,
    Linear,
    MaskSource,
    MaxPool2d,
    PointwiseDepthwise,
    Relu,
    Requantize,
    SaturationMask,
    SoftmaxCrossEntropy,
    UpsampleBilinear2d,
)

#: Height and width of inputs: images, and spectrograms of keyword spotting.
_INPUTS = (
    *((r, r) for r in (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224)),
    (49, 10), (25, 5), (98, 40), (64, 96),
)  # fmt: skip
#: Typical channels after so many halvings of the map.
_CHANNELS = (3, 14, 20, 36, 76, 140)
_EXPANSIONS = (1, 2, 3, 4, 5, 6)
#: Share of geometries as networks have them; the others are any.
_USUAL = 0.55
#: Share of channels drawn at random that are less than a block of eight, and of matrices with fewer columns than a
#: block of four has: kernels take them through loops of their own.
_FEW, _NARROW = 0.05, 0.06
#: Share of odd windows that lie in the padding altogether at a map's border.
_BEYOND = 0.04
_ODD_KERNELS = (
    (1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (1, 5), (5, 1), (1, 7), (7, 1), (5, 3), (3, 5), (10, 4), (2, 2),
    (4, 4), (8, 1), (3, 7),
)  # fmt: skip
_POOLED = ((2, 2), (2, 2), (3, 3), (3, 3), (2, 1), (1, 2), (4, 4), (5, 5), (7, 7), (3, 2))
_STRIDES = ((1, 1), (1, 1), (1, 1), (2, 2), (2, 2), (1, 2), (2, 1), (3, 3), (3, 1))


def geometry_of(cls: type[Geometry], rng: random.Random) -> Geometry:
    """A geometry of a kind at random."""
    return _DRAWS[cls](rng)


def _log_uniform(low: float, high: float, rng: random.Random) -> int:
    """A whole number whose logarithm is even between those of the two, both included."""
    return min(int(high), int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))


def _evened(channels: float, rng: random.Random) -> int:
    """About so many channels: half the time a multiple of 8, as networks round them, else of any remainder modulo 8."""
    eights = channels / 8
    if rng.random() < 0.5:
        return max(1, round(eights)) * 8
    return max(1, 8 * math.floor(eights) + rng.randrange(8))


def _stage(rng: random.Random) -> tuple[int, int, int]:
    """Height, width and channels somewhere in a network: channels grow as maps shrink."""
    height, width = rng.choice(_INPUTS)
    depth = rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 4, 5))
    typical = _CHANNELS[depth] * math.exp(rng.gauss(0, 0.5))
    channels = 3 if depth == 0 and rng.random() < 0.5 else _evened(typical, rng)
    return max(1, -(-height >> depth)), max(1, -(-width >> depth)), channels


def _map(rng: random.Random, most: int = 64) -> tuple[int, int]:
    """Any map: half of them square, some a single line, column or position."""
    height = _log_uniform(1, most, rng)
    if rng.random() < 0.5:
        return height, height
    return height, _log_uniform(1, most, rng)


def _any_channels(rng: random.Random, most: int = 384) -> int:
    """Any number; some are fewer than kernels take at a time."""
    if rng.random() < _FEW:
        return rng.randint(1, 7)
    return _evened(_log_uniform(1, most, rng), rng)


def _window(height: int, width: int, rng: random.Random) -> tuple[int, int, int, int, int, int]:
    """An odd kernel, its strides and paddings, so that at least one position is left."""
    while True:
        kernel_h, kernel_w = rng.choice(_ODD_KERNELS)
        stride_h, stride_w = rng.choice(_STRIDES)
        pads = "beyond" if rng.random() < _BEYOND else rng.choice(("same", "same", "none", "any"))
        pad_h, pad_w = {
            "same": (kernel_h // 2, kernel_w // 2),
            "none": (0, 0),
            "beyond": (kernel_h, kernel_w),
            "any": (rng.randint(0, kernel_h // 2), rng.randint(0, kernel_w // 2)),
        }[pads]
        if height + 2 * pad_h >= kernel_h and width + 2 * pad_w >= kernel_w:
            return kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w


def _usual_window(kernels: tuple[int, ...], rng: random.Random) -> tuple[int, int, int, int, int, int]:
    kernel = rng.choice(kernels)
    stride = rng.choice((1, 1, 2))
    return kernel, kernel, stride, stride, kernel // 2, kernel // 2


def _bias(rng: random.Random) -> int:
    return int(rng.random() < 0.85)


def _conv2d(rng: random.Random) -> Conv2d:
    if rng.random() < _USUAL:
        return _usual_conv2d(rng)
    height, width = _map(rng)
    window = _window(height, width, rng)
    ins, outs = _any_channels(rng), _any_channels(rng)
    groups = 1
    if rng.random() < 0.12:
        groups = rng.choice((2, 3, 4, 8, ins if ins < 64 else 4))
        ins, outs = max(1, ins // groups) * groups, max(1, outs // groups) * groups
    return Conv2d(height, width, ins, outs, *window, groups, _bias(rng))


def _usual_conv2d(rng: random.Random) -> Conv2d:
    height, width, channels = _stage(rng)
    role = rng.random()
    wide = channels * rng.choice(_EXPANSIONS)
    if role < 0.65:  # pointwise: widening, narrowing, or neither
        ins, outs = rng.choice(((channels, wide), (wide, channels), (channels, _evened(channels * 1.5, rng))))
        return Conv2d(height, width, ins, outs, 1, 1, has_bias=_bias(rng))
    if role < 0.75:  # DS-CNN's first layer
        kernel = rng.choice(((10, 4), (3, 3), (8, 4), (4, 10)))
        window = (*kernel, rng.choice((1, 2)), rng.choice((1, 2)), kernel[0] // 2, kernel[1] // 2)
        return Conv2d(max(height, 8), max(width, 8), rng.choice((1, 1, 3)), _evened(32, rng), *window, 1, _bias(rng))
    if role < 0.8:  # ResNet's shortcut
        return Conv2d(height, width, channels, 2 * channels, 1, 1, 2, 2, has_bias=_bias(rng))
    return Conv2d(height, width, channels, _evened(channels * rng.choice((1, 2)), rng), *_usual_window((3, 3, 5), rng))


def _depthwise(rng: random.Random) -> Depthwise:
    if rng.random() < _USUAL:
        height, width, channels = _stage(rng)
        wide = channels * rng.choice(_EXPANSIONS)
        return Depthwise(height, width, wide, *_usual_window((3, 3, 5, 7), rng), _bias(rng))
    height, width = _map(rng)
    return Depthwise(height, width, _any_channels(rng), *_window(height, width, rng), _bias(rng))


def _pointwise_depthwise(rng: random.Random) -> PointwiseDepthwise:
    if rng.random() < _USUAL:
        height, width, channels = _stage(rng)
        wide = channels * rng.choice(_EXPANSIONS)
        return PointwiseDepthwise(height, width, channels, wide, *_usual_window((3, 3, 5, 7), rng), 1, _bias(rng))
    height, width = _map(rng, 48)
    window = _window(height, width, rng)
    channels = (_any_channels(rng), _any_channels(rng))
    return PointwiseDepthwise(height, width, *channels, *window, _bias(rng), _bias(rng))


def _fused_conv2d(rng: random.Random) -> FusedConv2d:
    role = rng.random()
    if role < 0.15:  # of a linear layer
        g = _linear(rng)
        return FusedConv2d(1, 1, g.in_features, g.out_features, 1, 1, has_bias=g.has_bias)
    if role < 0.25:  # of a depthwise convolution, whose bias alone trains
        d = _depthwise(rng)
        window = (d.kernel_h, d.kernel_w, d.stride_h, d.stride_w, d.pad_h, d.pad_w)
        return FusedConv2d(d.in_h, d.in_w, d.in_channels, d.in_channels, *window, d.in_channels, 1)
    return FusedConv2d(*_conv2d(rng).values())


def _narrow(rng: random.Random) -> tuple[int, int]:
    """Columns and rows of a matrix: sums over so many rows can still be told from wrong ones, of two columns too."""
    return rng.randint(2, 3), _log_uniform(8, 64, rng)


def _linear(rng: random.Random) -> Linear:
    if rng.random() < _NARROW:
        return Linear(*_narrow(rng), _bias(rng))
    usual = rng.random()
    if usual < 0.15:
        ins, outs = rng.choice(((640, 128), (128, 128), (128, 8), (8, 128), (128, 640), (256, 2), (64, 10), (64, 12)))
        return Linear(ins, outs, _bias(rng))
    if usual < 0.5:  # the last layer of a network
        return Linear(_evened(_log_uniform(32, 1280, rng), rng), _log_uniform(2, 200, rng), _bias(rng))
    return Linear(_any_channels(rng, 2048), _any_channels(rng, 1024), _bias(rng))


def _cosine_head(rng: random.Random) -> CosineHead:
    if rng.random() < _NARROW:
        return CosineHead(*_narrow(rng))
    return CosineHead(_any_channels(rng, 1280), _log_uniform(2, 100, rng))


def _pooled(cls: type[AvgPool2d] | type[MaxPool2d]) -> Callable[[random.Random], Geometry]:
    def draw(rng: random.Random) -> Geometry:
        height, width, channels = _any_map(rng)
        for _ in range(20):
            kernel_h, kernel_w = rng.choice(
                ((2, 2), (2, 2), (3, 3), (3, 3), (2, 1), (1, 2), (4, 4), (5, 5), (7, 7), (3, 2))
            )
            stride_h, stride_w = rng.choice(((kernel_h, kernel_w), (2, 2), (1, 1), (2, 1)))
            pad_h, pad_w = rng.choice(((0, 0), (kernel_h // 2, kernel_w // 2)))
            if height + 2 * pad_h >= kernel_h and width + 2 * pad_w >= kernel_w:
                return cls(height, width, channels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w)
        return cls(height, width, channels, 1, 1, 1, 1)

    return draw


def _any_map(rng: random.Random) -> tuple[int, int, int]:
    if rng.random() < _USUAL:
        return _stage(rng)
    return (*_map(rng), _any_channels(rng))


def _elements(rng: random.Random) -> int:
    """Of a tensor, or any number."""
    return math.prod(_any_map(rng)) if rng.random() < 0.6 else _log_uniform(1, 60_000, rng)


def _group_norm(rng: random.Random) -> GroupNorm:
    height, width, channels = _any_map(rng)
    groups = rng.choice([g for g in (1, 2, 4, 8, 16, channels) if channels % g == 0])
    return GroupNorm(height, width, channels, groups, _bias(rng))


def _requantize(rng: random.Random) -> Requantize:
    height, width, channels = _any_map(rng)
    return Requantize(height * width, channels, int(rng.choice(tuple(MaskSource))))


_DRAWS: dict[type[Geometry], Callable[[random.Random], Geometry]] = {
    Conv2d: _conv2d,
    Depthwise: _depthwise,
    PointwiseDepthwise: _pointwise_depthwise,
    FusedConv2d: _fused_conv2d,
    Linear: _linear,
    GlobalAvgPool: lambda rng: GlobalAvgPool(*_any_map(rng)),
    AvgPool2d: _pooled(AvgPool2d),
    MaxPool2d: _pooled(MaxPool2d),
    Add: lambda rng: Add(_elements(rng)),
    Relu: lambda rng: Relu(_elements(rng), rng.choice((0, 6, 6))),
    SoftmaxCrossEntropy: lambda rng: SoftmaxCrossEntropy(_log_uniform(2, 1000, rng)),
    L2Normalize: lambda rng: L2Normalize(_any_channels(rng, 1280)),
    CosineHead: _cosine_head,
    GroupNorm: _group_norm,
    UpsampleBilinear2d: lambda rng: UpsampleBilinear2d(*_any_map(rng)),
    Requantize: _requantize,
    SaturationMask: lambda rng: SaturationMask(_elements(rng)),
    Dequantize: lambda rng: Dequantize(_elements(rng)),
}
