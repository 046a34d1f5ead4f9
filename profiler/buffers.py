"""Buffers of ops: what a kernel reads and writes, in the order in which the firmware takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import numpy as np

from profiler.geometry import (
    Add,
    CosineHead,
    Empty,
    L2Normalize,
    MaxPool2d,
    Pass,
    Relu,
    SoftmaxCrossEntropy,
    Weighted,
)
from profiler.geometry_norm import GroupNorm

if TYPE_CHECKING:
    from profiler.ops import Op

#: Types of elements: a label is an ``s32``; bits come eight to a ``u8``.
Element = Literal["f32", "s8", "s32", "u8"]
#: numpy's types of them.
ELEMENT_TYPES: dict[Element, type[np.generic]] = {"f32": np.float32, "s8": np.int8, "s32": np.int32, "u8": np.uint8}
ELEMENT_BYTES: dict[Element, int] = {element: np.dtype(kind).itemsize for element, kind in ELEMENT_TYPES.items()}


class Access(StrEnum):
    READ = "read"
    WRITE = "write"
    READ_WRITE = "read_write"


@dataclass(frozen=True)
class BufferSpec:
    """One buffer of an op.

    Attributes:
        role: What it holds, for example ``input`` or ``weight_gradient``.
        shape: Elements along each axis, as laid out on the device.
        access: Whether the kernel reads it, writes it, or both.
        element: Type of its elements.
    """

    role: str
    shape: tuple[int, ...]
    access: Access
    element: Element = "f32"

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def byte_count(self) -> int:
        return self.elements * ELEMENT_BYTES[self.element]


def buffers_f32(op: Op) -> list[BufferSpec]:
    """The buffers of an op of dtype ``f32``, in order."""
    g, read, write, both = op.geometry, Access.READ, Access.WRITE, Access.READ_WRITE
    if isinstance(g, Empty):
        return []
    if isinstance(g, Weighted):
        return _weighted_buffers(op, g)
    x, y = g.input_shape, g.output_shape
    forward = op.pass_ is Pass.FORWARD
    if isinstance(g, Add):
        # Both passes sum: activations forward, gradients that meet at a fork backward.
        return [BufferSpec("a", x, read), BufferSpec("b", x, read), BufferSpec("output", y, write)]
    if isinstance(g, SoftmaxCrossEntropy):
        if forward:
            return [
                BufferSpec("input", x, read),
                BufferSpec("label", (1,), read, "s32"),
                BufferSpec("probabilities", y, write),
                BufferSpec("loss", (1,), both),  # accumulated over the images of a step
            ]
        return [
            BufferSpec("probabilities", y, read),
            BufferSpec("label", (1,), read, "s32"),
            BufferSpec("grad_input", x, write),
        ]
    if isinstance(g, CosineHead):
        prototypes = BufferSpec("prototypes", (g.classes, g.features), read)
        if forward:
            return [BufferSpec("input", x, read), prototypes, BufferSpec("output", y, write)]
        return [BufferSpec("grad_output", y, read), prototypes, BufferSpec("grad_input", x, write)]
    if forward:
        return [BufferSpec("input", x, read), BufferSpec("output", y, write)]
    gradients = [BufferSpec("grad_output", y, read), BufferSpec("grad_input", x, write)]
    if isinstance(g, Relu):
        return [BufferSpec("output", y, read), *gradients]
    if isinstance(g, MaxPool2d | L2Normalize):
        return [BufferSpec("input", x, read), *gradients]
    return gradients


def _weighted_buffers(op: Op, g: Weighted) -> list[BufferSpec]:
    read, write, both = Access.READ, Access.WRITE, Access.READ_WRITE
    weight = BufferSpec("weight", g.weight_shape, read)
    norm = isinstance(g, GroupNorm)
    bias = [BufferSpec("bias", (g.bias_elements,), read)] if g.bias_elements else []
    if op.pass_ is Pass.FORWARD:
        return [
            BufferSpec("input", g.input_shape, read),
            weight,
            *bias,
            BufferSpec("output", g.output_shape, write),
            *([BufferSpec("statistics", g.statistics_shape, write)] if norm else []),
        ]
    if op.pass_ is Pass.GRAD_INPUT:
        return [
            *([BufferSpec("input", g.input_shape, read)] if norm else []),
            BufferSpec("grad_output", g.output_shape, read),
            weight,
            *([BufferSpec("statistics", g.statistics_shape, read)] if norm else []),
            BufferSpec("grad_input", g.input_shape, write),
        ]
    weight_shape = g.weight_gradient_shape(op.trained_channels, op.trained_axis)
    bias_shape = (op.trained_biases,)
    if op.pass_ is Pass.GRAD_WEIGHT:
        # The input is needed only for the weights' gradient: bias-only training saves no activation.
        specs = [BufferSpec("input", g.input_shape, read)] if op.trained_channels else []
        specs.append(BufferSpec("grad_output", g.output_shape, read))
        if op.trained_channels:
            specs += [BufferSpec("statistics", g.statistics_shape, read)] if norm else []
            specs.append(BufferSpec("weight_gradient", weight_shape, both))
        if op.trains_bias:
            specs.append(BufferSpec("bias_gradient", bias_shape, both))
        return specs
    specs = []
    for name, full, compact, present in (
        ("weight", g.weight_shape, weight_shape, bool(op.trained_channels)),
        ("bias", (g.bias_elements,), bias_shape, op.trains_bias),
    ):
        if not present:
            continue
        specs += [BufferSpec(name, full, both), BufferSpec(f"{name}_gradient", compact, both)]
        if op.optimizer == "adam":
            specs += [BufferSpec(f"{name}_moment1", compact, both), BufferSpec(f"{name}_moment2", compact, both)]
    return specs
