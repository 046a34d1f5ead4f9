"""Layers and ops: what is measured, fitted and predicted.

An *op* is one pass of one layer with its geometry and data type. This module is the single Python definition of
what an op is: its buffers in their fixed order, its multiply-accumulates and its codes on the wire.
The C twin is ``firmware/kernels/op.h``; ``tests/firmware`` holds the two against each other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from profiler.geometry import (
    GEOMETRIES,
    Add,
    AvgPool2d,
    Axis,
    Conv2d,
    CosineHead,
    Depthwise,
    Empty,
    Geometry,
    GlobalAvgPool,
    L2Normalize,
    Linear,
    MaxPool2d,
    Pass,
    Relu,
    SoftmaxCrossEntropy,
    Weighted,
)

__all__ = [
    "AXIS_CODES", "DTYPE_CODES", "GEOMETRIES", "OPTIMIZER_CODES", "PASS_CODES", "VARIANT_CODES", "WORD_BYTES",
    "Access", "Add", "AvgPool2d", "Axis", "BufferSpec", "Conv2d", "CosineHead", "Depthwise", "Empty", "Geometry",
    "GlobalAvgPool", "L2Normalize", "Layer", "Linear", "MaxPool2d", "Op", "Optimizer", "Pass", "Relu",
    "SoftmaxCrossEntropy",
]  # fmt: skip

Optimizer = Literal["sgd", "adam"]

#: Word size of every buffer of a float32 op, in bytes.
WORD_BYTES = 4


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
    """

    role: str
    shape: tuple[int, ...]
    access: Access

    @property
    def elements(self) -> int:
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def byte_count(self) -> int:
        return self.elements * WORD_BYTES


PASS_CODES: dict[Pass, int] = {Pass.FORWARD: 0, Pass.GRAD_INPUT: 1, Pass.GRAD_WEIGHT: 2, Pass.UPDATE: 3}
DTYPE_CODES: dict[str, int] = {"f32": 0, "s8": 1}
VARIANT_CODES: dict[str, int] = {"blocked": 0, "reference": 1}
AXIS_CODES: dict[str, int] = {"out": 0, "in": 1}
OPTIMIZER_CODES: dict[str, int] = {"sgd": 0, "adam": 1}


@dataclass(frozen=True)
class Layer:
    """One node of a network.

    Attributes:
        name: The torch module's qualified name (``blocks.3.depthwise``), unique in its network.
        geometry: What it computes.
        inputs: Names of the layers (or ``"input"``, the network's own input) whose outputs it reads.
    """

    name: str
    geometry: Geometry
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Op:
    """One pass of one layer with its geometry and data type.

    Attributes:
        geometry: The layer's geometry.
        pass_: Which pass.
        dtype: ``f32`` (``s8`` is reserved).
        trained_channels: For ``grad_weight`` and ``update``: how many channels' weights train. 0 with ``trains_bias``
            is a bias-only op. Must be 0 for other passes.
        trained_axis: Whether those are output or input channels.
        trains_bias: For ``grad_weight`` and ``update``: whether the bias trains too: the bias of the trained channels
            if ``trained_axis`` is ``out`` and any channel trains, else the whole bias.
        optimizer: For ``update``.
        variant: ``blocked`` (what is deployed) or ``reference`` (the plain kernel beside it).
    """

    geometry: Geometry
    pass_: Pass
    dtype: str = "f32"
    trained_channels: int = 0
    trained_axis: Axis = "out"
    trains_bias: bool = False
    optimizer: Optimizer = "sgd"
    variant: str = "blocked"

    def __post_init__(self) -> None:
        g = self.geometry
        if self.pass_ not in g.passes:
            raise ValueError(f"{g.kind} has no pass {self.pass_}; it has {', '.join(g.passes)}")
        if self.dtype not in DTYPE_CODES or self.variant not in VARIANT_CODES:
            raise ValueError(f"unknown dtype or kernel variant: {self.dtype}, {self.variant}")
        if self.trained_axis not in get_args(Axis) or self.optimizer not in get_args(Optimizer):
            raise ValueError(f"unknown trained axis or optimizer: {self.trained_axis}, {self.optimizer}")
        if self.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            assert isinstance(g, Weighted)
            if self.trained_axis == "in" and (isinstance(g, Depthwise)):
                raise ValueError("depthwise trains output channels only")
            if not 0 <= self.trained_channels <= g.channels(self.trained_axis):
                raise ValueError(
                    f"{g.kind}: trained_channels must be 0 to {g.channels(self.trained_axis)}, "
                    f"got {self.trained_channels}"
                )
            if self.trains_bias and not g.bias_elements:
                raise ValueError(f"{g.kind}: the layer has no bias to train")
            if not self.trained_channels and not self.trains_bias:
                raise ValueError(f"{g.kind} {self.pass_}: nothing to train: 0 channels and no bias")
        elif self.trained_channels or self.trains_bias:
            raise ValueError(f"{self.pass_} trains nothing: trained_channels and trains_bias must be unset")
        # Fields without a meaning for this op take their default, so that equal work compares equal.
        if self.pass_ is not Pass.UPDATE:
            object.__setattr__(self, "optimizer", "sgd")
        if not self.trained_channels:
            object.__setattr__(self, "trained_axis", "out")

    @property
    def kind(self) -> str:
        return self.geometry.kind

    @property
    def trained_weights(self) -> int:
        """Weights (without bias) that this op computes a gradient of, or updates."""
        if not self.trained_channels:
            return 0
        shape = self.geometry.weight_gradient_shape(self.trained_channels, self.trained_axis)  # type: ignore[attr-defined]
        return BufferSpec("", shape, Access.READ).elements

    @property
    def trained_biases(self) -> int:
        if not self.trains_bias:
            return 0
        if self.trained_channels and self.trained_axis == "out":
            return self.trained_channels
        return self.geometry.bias_elements  # type: ignore[attr-defined]

    @property
    def macs(self) -> int:
        """Multiply-accumulates by the textbook formula; 0 for elementwise kinds and for ``update``."""
        g = self.geometry
        if self.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT):
            return g.forward_macs
        if self.pass_ is Pass.UPDATE or not self.trained_channels:
            return 0
        return g.forward_macs * self.trained_channels // g.channels(self.trained_axis)  # type: ignore[attr-defined]

    def buffers(self) -> tuple[BufferSpec, ...]:
        """Every buffer but scratch, in the order in which the firmware takes them."""
        return tuple(_buffers(self))

    @property
    def outputs(self) -> tuple[BufferSpec, ...]:
        return tuple(b for b in self.buffers() if b.access is not Access.READ)

    @property
    def bytes_touched(self) -> int:
        """Sum of all buffers' bytes, scratch left out."""
        return sum(b.byte_count for b in self.buffers())

    @property
    def key(self) -> str:
        """A short, stable name: equal ops have equal keys."""
        parts = [self.kind, str(self.pass_), self.dtype, "x".join(map(str, self.geometry.values()))]
        if self.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            parts.append(f"{self.trained_axis}{self.trained_channels}{'b' if self.trains_bias else ''}")
        if self.pass_ is Pass.UPDATE:
            parts.append(self.optimizer)
        if self.variant != "blocked":
            parts.append(self.variant)
        return "/".join(parts)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready record; :meth:`from_dict` reads it back."""
        record: dict[str, object] = {
            "kind": self.kind,
            "pass": str(self.pass_),
            "dtype": self.dtype,
            "geometry": {f.name: getattr(self.geometry, f.name) for f in dataclasses.fields(self.geometry)},
            "variant": self.variant,
        }
        if self.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            record |= {
                "trained_channels": self.trained_channels,
                "trained_axis": self.trained_axis,
                "trains_bias": self.trains_bias,
            }
        if self.pass_ is Pass.UPDATE:
            record["optimizer"] = self.optimizer
        return record

    @classmethod
    def from_dict(cls, record: dict) -> Op:
        """Read :meth:`to_dict`'s record.

        Raises:
            ValueError: an unknown kind or pass, or fields that are no such op.
        """
        try:
            geometry = GEOMETRIES[record["kind"]](**record["geometry"])
            return cls(
                geometry,
                Pass(record["pass"]),
                dtype=record["dtype"],
                trained_channels=record.get("trained_channels", 0),
                trained_axis=record.get("trained_axis", "out"),
                trains_bias=record.get("trains_bias", False),
                optimizer=record.get("optimizer", "sgd"),
                variant=record.get("variant", "blocked"),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an op record: {error}") from None


def _buffers(op: Op) -> list[BufferSpec]:
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
                BufferSpec("label", (1,), read),
                BufferSpec("probabilities", y, write),
                BufferSpec("loss", (1,), both),  # accumulated over the images of a step
            ]
        return [
            BufferSpec("probabilities", y, read),
            BufferSpec("label", (1,), read),
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
    bias = [BufferSpec("bias", (g.bias_elements,), read)] if g.bias_elements else []
    if op.pass_ is Pass.FORWARD:
        return [
            BufferSpec("input", g.input_shape, read),
            weight,
            *bias,
            BufferSpec("output", g.output_shape, write),
        ]
    if op.pass_ is Pass.GRAD_INPUT:
        return [
            BufferSpec("grad_output", g.output_shape, read),
            weight,
            BufferSpec("grad_input", g.input_shape, write),
        ]
    weight_shape = g.weight_gradient_shape(op.trained_channels, op.trained_axis)
    bias_shape = (op.trained_biases,)
    if op.pass_ is Pass.GRAD_WEIGHT:
        # The input is needed only for the weights' gradient: bias-only training saves no activation.
        specs = [BufferSpec("input", g.input_shape, read)] if op.trained_channels else []
        specs.append(BufferSpec("grad_output", g.output_shape, read))
        if op.trained_channels:
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
