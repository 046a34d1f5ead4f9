"""Layers and ops: what is measured, fitted and predicted.

An *op* is one pass of one layer with its geometry and data type. This module is the single Python definition of
what an op is: its buffers in their fixed order, its multiply-accumulates and its codes on the wire.
The C twin is ``firmware/kernels/op.h``; ``tests/firmware`` holds the two against each other.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from profiler.buffers import Access, BufferSpec, buffers_f32
from profiler.buffers_s8 import buffers_s8
from profiler.geometry import (
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
from profiler.geometry_norm import GroupNorm, UpsampleBilinear2d
from profiler.geometry_s8 import (
    GEOMETRIES,
    Dequantize,
    FusedConv2d,
    MaskSource,
    PointwiseDepthwise,
    Requantize,
    SaturationMask,
    has_dtype,
)

__all__ = [
    "AXIS_CODES", "DTYPE_CODES", "GEOMETRIES", "OPTIMIZER_CODES", "PASS_CODES", "VARIANT_CODES", "WORD_BYTES",
    "Access", "Add", "AvgPool2d", "Axis", "BufferSpec", "Conv2d", "CosineHead", "Depthwise", "Dequantize", "Empty",
    "FusedConv2d", "Geometry", "GlobalAvgPool", "GroupNorm", "L2Normalize", "Layer", "Linear", "MaskSource",
    "MaxPool2d", "Op", "Optimizer", "Pass", "PointwiseDepthwise", "Quantization", "Relu", "Requantize",
    "SaturationMask", "SoftmaxCrossEntropy", "UpsampleBilinear2d",
]  # fmt: skip

Optimizer = Literal["sgd", "adam"]
_AXES, _OPTIMIZERS = frozenset(get_args(Axis)), frozenset(get_args(Optimizer))

#: Bytes of a float32 or int32 element.
WORD_BYTES = 4

PASS_CODES: dict[Pass, int] = {Pass.FORWARD: 0, Pass.GRAD_INPUT: 1, Pass.GRAD_WEIGHT: 2, Pass.UPDATE: 3}
DTYPE_CODES: dict[str, int] = {"f32": 0, "s8": 1}
VARIANT_CODES: dict[str, int] = {"blocked": 0, "reference": 1, "in_place": 2}
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
class Quantization:
    """The scalars of an int8 op, all from -128 to 127. They decide its result and not its cost.

    Attributes:
        input_zero_point: Of the input (for ``add`` of its first one).
        output_zero_point: Of the output.
        activation_min: Least value of the output.
        activation_max: Largest value of the output.
        second_zero_point: Of ``add``'s second input, or of the tensor between the halves of ``pointwise_depthwise``.
        second_min: Least value of that tensor.
        second_max: Largest value of that tensor.
    """

    input_zero_point: int = -7
    output_zero_point: int = 4
    activation_min: int = -128
    activation_max: int = 127
    second_zero_point: int = 3
    second_min: int = -128
    second_max: int = 127

    def __post_init__(self) -> None:
        values = self.values()
        if any(not -128 <= v <= 127 for v in values):
            raise ValueError(f"quantization: every value must be from -128 to 127, got {values}")
        if self.activation_min > self.activation_max or self.second_min > self.second_max:
            raise ValueError(f"quantization: a least value is above its largest: {values}")

    def values(self) -> tuple[int, ...]:
        """The fields in order, as they are encoded."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))


@dataclass(frozen=True)
class Op:
    """One pass of one layer with its geometry and data type.

    Attributes:
        geometry: The layer's geometry.
        pass_: Which pass.
        dtype: ``f32``, or ``s8``: int8 forward, float32 gradients against int8 weights backward.
        trained_channels: For ``grad_weight`` and ``update``: how many channels' weights train. 0 with ``trains_bias``
            is a bias-only op. For ``forward`` and ``grad_input`` of dtype ``s8``: of how many leading channels the
            weights lie in a segment of their own, which can be written. Else 0.
        trained_axis: Whether those are output or input channels.
        trains_bias: For ``grad_weight`` and ``update``: whether the bias trains too: the bias of the trained channels
            if ``trained_axis`` is ``out`` and any channel trains, else the whole bias.
        optimizer: For ``update``.
        variant: ``blocked`` (what is deployed), ``reference`` (the plain kernel beside it), or ``in_place`` (int8
            depthwise forward that overwrites its input).
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
        if not has_dtype(g, self.pass_, self.dtype):
            raise ValueError(f"{g.kind} {self.pass_} has no dtype {self.dtype}")
        if self.trained_axis not in _AXES or self.optimizer not in _OPTIMIZERS:
            raise ValueError(f"unknown trained axis or optimizer: {self.trained_axis}, {self.optimizer}")
        if self.trained_channels or self.trains_bias or self.pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
            self._check_trained()
        # Fields without a meaning for this op take their default, so that equal work compares equal.
        if self.pass_ is not Pass.UPDATE:
            object.__setattr__(self, "optimizer", "sgd")
        if not self.trained_channels:
            object.__setattr__(self, "trained_axis", "out")

    def __hash__(self) -> int:
        # Lowering and placing a step looks up each of its ops a dozen times: the hash of all fields is kept.
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash((self.geometry, self.pass_, self.dtype, self.trained_channels, self.trained_axis,
                          self.trains_bias, self.optimizer, self.variant))  # fmt: skip
            object.__setattr__(self, "_hash", known)
        return known

    def __getstate__(self) -> dict[str, object]:
        # Another process hashes strings otherwise.
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    def _check_trained(self) -> None:
        g = self.geometry
        reads_weights = self.pass_ in (Pass.FORWARD, Pass.GRAD_INPUT)
        segmented = self.dtype == "s8" and isinstance(g, Weighted) and not self.trains_bias
        if reads_weights and not segmented:
            raise ValueError(f"{self.pass_} trains nothing: trained_channels and trains_bias must be unset")
        assert isinstance(g, Weighted)
        if self.trained_axis == "in" and isinstance(g, Depthwise | GroupNorm):
            raise ValueError(f"{g.kind} trains output channels only")
        if not 0 <= self.trained_channels <= g.channels(self.trained_axis):
            raise ValueError(
                f"{g.kind}: trained_channels must be 0 to {g.channels(self.trained_axis)}, got {self.trained_channels}"
            )
        if self.dtype == "s8" and self.trained_channels and getattr(g, "groups", 1) > 1:
            raise ValueError(f"{g.kind}: int8 weights of a grouped convolution train all or none")
        if self.trains_bias and not g.bias_elements:
            raise ValueError(f"{g.kind}: the layer has no bias to train")
        if not self.trained_channels and not self.trains_bias:
            raise ValueError(f"{g.kind} {self.pass_}: nothing to train: 0 channels and no bias")

    @property
    def kind(self) -> str:
        return self.geometry.kind

    @property
    def trained_weights(self) -> int:
        """Weights (without bias) that this op computes a gradient of, or updates."""
        if not self.trained_channels:
            return 0
        shape = self.geometry.weight_gradient_shape(self.trained_channels, self.trained_axis)  # type: ignore[attr-defined]
        return math.prod(shape)

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
        if not self.trained_channels or (self.pass_ is Pass.UPDATE and not isinstance(g, FusedConv2d)):
            return 0
        return g.forward_macs * self.trained_channels // g.channels(self.trained_axis)  # type: ignore[attr-defined]

    def buffers(self) -> tuple[BufferSpec, ...]:
        """Every buffer but scratch, in the order in which the firmware takes them."""
        return tuple(buffers_s8(self) if self.dtype == "s8" else buffers_f32(self))

    @property
    def outputs(self) -> tuple[BufferSpec, ...]:
        return tuple(b for b in self.buffers() if b.access is not Access.READ)

    @property
    def bytes_touched(self) -> int:
        """Sum of all buffers' bytes, scratch left out."""
        return sum(b.byte_count for b in self.buffers())

    @cached_property
    def key(self) -> str:
        """A short, stable name: equal ops have equal keys."""
        parts = [self.kind, str(self.pass_), self.dtype, "x".join(map(str, self.geometry.values()))]
        if self.trained_channels or self.trains_bias:
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
        if self.trained_channels or self.trains_bias:
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
