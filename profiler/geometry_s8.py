"""Geometries of the kinds that there are for int8 training steps only, and the table of all kinds.

Backward, gradients are float32 and with respect to the int8 values: ``q`` in ``real = scale * (q - zero point)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from profiler.geometry import (
    Add,
    AvgPool2d,
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
    Vector,
    Window,
)
from profiler.geometry_norm import GroupNorm, UpsampleBilinear2d


@dataclass(frozen=True)
class FusedConv2d(Conv2d):
    """A convolution's ``grad_weight`` and ``update`` in one, of dtype ``s8``: no gradient is kept. One image, SGD."""

    kind: ClassVar[str] = "fused_conv2d"
    code: ClassVar[int] = 15
    passes: ClassVar[tuple[Pass, ...]] = (Pass.UPDATE,)


@dataclass(frozen=True)
class PointwiseDepthwise(Window):
    """A pointwise convolution streamed row by row into a depthwise one, of dtype ``s8``.

    The tensor in between is never whole in memory. Kernel, stride and padding are the depthwise convolution's.
    """

    kind: ClassVar[str] = "pointwise_depthwise"
    code: ClassVar[int] = 16
    passes: ClassVar[tuple[Pass, ...]] = (Pass.FORWARD,)
    may_be_zero: ClassVar[frozenset[str]] = Geometry.may_be_zero | {"has_depthwise_bias"}
    in_h: int
    in_w: int
    in_channels: int
    mid_channels: int
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    has_bias: int = 1
    has_depthwise_bias: int = 1

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.out_h, self.out_w, self.mid_channels)

    @property
    def pointwise(self) -> Conv2d:
        """The first half as a layer of its own."""
        return Conv2d(self.in_h, self.in_w, self.in_channels, self.mid_channels, 1, 1, has_bias=self.has_bias)

    @property
    def depthwise(self) -> Depthwise:
        """The second half as a layer of its own."""
        window = (self.kernel_h, self.kernel_w, self.stride_h, self.stride_w, self.pad_h, self.pad_w)
        return Depthwise(self.in_h, self.in_w, self.mid_channels, *window, self.has_depthwise_bias)

    @property
    def forward_macs(self) -> int:
        return self.pointwise.forward_macs + self.depthwise.forward_macs


class MaskSource(IntEnum):
    """Where :class:`Requantize` learns which outputs were clamped."""

    NONE = 0  # nothing is masked
    OUTPUT = 1  # from the saved output itself
    BITS = 2  # from a bit an element, as :class:`SaturationMask` writes them


@dataclass(frozen=True)
class Requantize(Geometry):
    """Backward of requantisation and clamp: the gradient of the accumulators from that of the int8 output.

    ``grad_input = grad_output * scale[channel]`` where the output lies strictly between its limits, else 0.
    """

    kind: ClassVar[str] = "requantize"
    code: ClassVar[int] = 17
    passes: ClassVar[tuple[Pass, ...]] = (Pass.GRAD_INPUT,)
    may_be_zero: ClassVar[frozenset[str]] = frozenset({"mask"})
    positions: int
    channels: int
    mask: int = MaskSource.OUTPUT

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mask", int(MaskSource(self.mask)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.positions, self.channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.positions, self.channels)


@dataclass(frozen=True)
class SaturationMask(Vector):
    """A bit for each element of an int8 tensor: 1 where it lies strictly between its limits."""

    kind: ClassVar[str] = "saturation_mask"
    code: ClassVar[int] = 18
    passes: ClassVar[tuple[Pass, ...]] = (Pass.FORWARD,)
    elements: int

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (-(-self.elements // 8),)


@dataclass(frozen=True)
class Dequantize(Vector):
    """``output = scale * (input - zero point)``, from int8 to float32."""

    kind: ClassVar[str] = "dequantize"
    code: ClassVar[int] = 19
    elements: int


#: Every kind by its name.
GEOMETRIES: dict[str, type[Geometry]] = {
    cls.kind: cls
    for cls in (
        Conv2d,
        Depthwise,
        Linear,
        GlobalAvgPool,
        AvgPool2d,
        MaxPool2d,
        Add,
        Relu,
        SoftmaxCrossEntropy,
        L2Normalize,
        CosineHead,
        Empty,
        GroupNorm,
        UpsampleBilinear2d,
        FusedConv2d,
        PointwiseDepthwise,
        Requantize,
        SaturationMask,
        Dequantize,
    )
}

_WEIGHTED = (Conv2d, Depthwise, Linear)
#: Kinds that have no other dtype than ``s8``.
S8_ONLY = (FusedConv2d, PointwiseDepthwise, Requantize, SaturationMask, Dequantize)
_S8_FORWARD = (GlobalAvgPool, AvgPool2d, MaxPool2d, Add)


def has_dtype(g: Geometry, pass_: Pass, dtype: str) -> bool:
    """Whether ops of this kind and pass exist in this data type."""
    if dtype == "f32":
        return not isinstance(g, S8_ONLY)
    return isinstance(g, _WEIGHTED + S8_ONLY) or (pass_ is Pass.FORWARD and isinstance(g, _S8_FORWARD))
