"""Buffers of the ops of dtype ``s8``: int8 forward, float32 gradients with respect to the int8 values backward."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from profiler.buffers import Access, BufferSpec
from profiler.geometry import Add, Pass, Weighted
from profiler.geometry_s8 import Dequantize, FusedConv2d, MaskSource, PointwiseDepthwise, Requantize, SaturationMask

if TYPE_CHECKING:
    from profiler.ops import Op

_READ, _WRITE, _BOTH = Access.READ, Access.WRITE, Access.READ_WRITE


def buffers_s8(op: Op) -> list[BufferSpec]:
    """The buffers of an op of dtype ``s8``, in order.

    ``requantization`` holds a pair (multiplier, shift) a channel, ``scales`` the input's scale and then that of every
    output channel's weights.
    """
    g = op.geometry
    if isinstance(g, FusedConv2d):
        return _fused(op, g)
    if isinstance(g, Weighted):
        return _weighted(op, g)
    x, y = g.input_shape, g.output_shape
    if isinstance(g, PointwiseDepthwise):
        return [
            BufferSpec("input", x, _READ, "s8"),
            BufferSpec("weight", g.pointwise.weight_shape, _READ, "s8"),
            *_bias("bias", g.pointwise.bias_elements),
            _requantization("requantization", g.mid_channels),
            BufferSpec("depthwise_weight", g.depthwise.weight_shape, _READ, "s8"),
            *_bias("depthwise_bias", g.depthwise.bias_elements),
            _requantization("depthwise_requantization", g.mid_channels),
            BufferSpec("output", y, _WRITE, "s8"),
        ]
    if isinstance(g, Requantize):
        mask = {
            MaskSource.NONE: [],
            MaskSource.OUTPUT: [BufferSpec("output", y, _READ, "s8")],
            MaskSource.BITS: [BufferSpec("mask", (-(-math.prod(y) // 8),), _READ, "u8")],
        }[MaskSource(g.mask)]
        scale = BufferSpec("scale", (g.channels,), _READ)
        return [*mask, scale, BufferSpec("grad_output", y, _READ), BufferSpec("grad_input", x, _WRITE)]
    if isinstance(g, SaturationMask):
        return [BufferSpec("input", x, _READ, "s8"), BufferSpec("mask", y, _WRITE, "u8")]
    if isinstance(g, Dequantize):
        scale = BufferSpec("scale", (1,), _READ)
        if op.pass_ is Pass.FORWARD:
            return [BufferSpec("input", x, _READ, "s8"), scale, BufferSpec("output", y, _WRITE)]
        return [BufferSpec("grad_output", y, _READ), scale, BufferSpec("grad_input", x, _WRITE)]
    if isinstance(g, Add):
        terms = [BufferSpec(name, x, _READ, "s8") for name in ("a", "b")]
        return [*terms, _requantization("requantization", 3), BufferSpec("output", y, _WRITE, "s8")]
    return [BufferSpec("input", x, _READ, "s8"), BufferSpec("output", y, _WRITE, "s8")]


def _requantization(role: str, channels: int) -> BufferSpec:
    return BufferSpec(role, (channels, 2), _READ, "s32")


def _bias(role: str, elements: int) -> list[BufferSpec]:
    return [BufferSpec(role, (elements,), _READ, "s32")] if elements else []


def _frozen_shape(op: Op, g: Weighted) -> tuple[int, ...]:
    """Of the segment that holds the channels from ``op.trained_channels`` on; a 0 in it: there is none."""
    if not op.trained_channels:
        return g.weight_shape
    return g.weight_gradient_shape(g.channels(op.trained_axis) - op.trained_channels, op.trained_axis)


def _trained_shape(op: Op, g: Weighted) -> tuple[int, ...]:
    return g.weight_gradient_shape(op.trained_channels, op.trained_axis)


def _segments(op: Op, g: Weighted) -> list[BufferSpec]:
    frozen = BufferSpec("weight", _frozen_shape(op, g), _READ, "s8")
    segments = [frozen] if frozen.elements else []
    if op.trained_channels:
        segments.append(BufferSpec("trained_weight", _trained_shape(op, g), _READ, "s8"))
    return segments


def _scales(g: Weighted) -> BufferSpec:
    return BufferSpec("scales", (1 + g.output_shape[-1],), _READ)


def _weighted(op: Op, g: Weighted) -> list[BufferSpec]:
    x, y = g.input_shape, g.output_shape
    if op.pass_ is Pass.FORWARD:
        return [
            BufferSpec("input", x, _READ, "s8"),
            *_segments(op, g),
            *_bias("bias", g.bias_elements),
            _requantization("requantization", y[-1]),
            BufferSpec("output", y, _WRITE, "s8"),
        ]
    if op.pass_ is Pass.GRAD_INPUT:
        return [BufferSpec("grad_output", y, _READ), *_segments(op, g), BufferSpec("grad_input", x, _WRITE)]
    specs: list[BufferSpec] = []
    if op.pass_ is Pass.GRAD_WEIGHT:
        if op.trained_channels:
            specs.append(BufferSpec("input", x, _READ, "s8"))
        specs.append(BufferSpec("grad_output", y, _READ))
        if op.trained_channels:
            specs.append(BufferSpec("weight_gradient", _trained_shape(op, g), _BOTH))
        if op.trains_bias:
            specs.append(BufferSpec("bias_gradient", (op.trained_biases,), _BOTH))
        return specs
    if op.trained_channels:
        shape = _trained_shape(op, g)
        specs += _update(op, BufferSpec("trained_weight", shape, _BOTH, "s8"), "weight", shape)
    if op.trains_bias:
        bias = BufferSpec("bias", (g.bias_elements,), _BOTH, "s32")
        specs += _update(op, bias, "bias", (op.trained_biases,))
    return [*specs, _scales(g)]


def _update(op: Op, parameter: BufferSpec, name: str, compact: tuple[int, ...]) -> list[BufferSpec]:
    moments = (f"{name}_moment1", f"{name}_moment2") if op.optimizer == "adam" else ()
    return [parameter, *(BufferSpec(role, compact, _BOTH) for role in (f"{name}_gradient", *moments))]


def _fused(op: Op, g: FusedConv2d) -> list[BufferSpec]:
    specs = [BufferSpec("input", g.input_shape, _READ, "s8")] if op.trained_channels else []
    specs.append(BufferSpec("grad_output", g.output_shape, _READ))
    if op.trained_channels:
        specs.append(BufferSpec("trained_weight", _trained_shape(op, g), _BOTH, "s8"))
    if op.trains_bias:
        specs.append(BufferSpec("bias", (g.bias_elements,), _BOTH, "s32"))
    return [*specs, _scales(g)]
