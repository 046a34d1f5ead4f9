"""Geometries of layers: a class a kind, each with its own fields and no others.

Fields are non-negative ints in the order in which they travel to the device (``firmware/kernels/op.h`` is the C twin).
Tensors are NHWC with batch 1. Convolution weights are OHWI ``[out][kh][kw][in / groups]``, depthwise weights
``[kh][kw][channels]``, linear weights ``[out][in]``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

Axis = Literal["out", "in"]


class Pass(StrEnum):
    """What is computed: the layer's output, one of its two gradients, or the optimiser's step."""

    FORWARD = "forward"
    GRAD_INPUT = "grad_input"
    GRAD_WEIGHT = "grad_weight"
    UPDATE = "update"


@dataclass(frozen=True)
class Geometry:
    """Base of all geometries."""

    kind: ClassVar[str]
    code: ClassVar[int]
    #: Passes that are ops of their own.
    passes: ClassVar[tuple[Pass, ...]] = (Pass.FORWARD, Pass.GRAD_INPUT)
    #: Fields that may be 0.
    may_be_zero: ClassVar[frozenset[str]] = frozenset({"pad_h", "pad_w", "has_bias", "maximum"})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in self.may_be_zero else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{self.kind}: {field.name} must be an integer of at least {least}, got {value!r}")

    def values(self) -> tuple[int, ...]:
        """The fields in order, as they are encoded."""
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def input_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def output_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    @property
    def trainable(self) -> bool:
        return Pass.GRAD_WEIGHT in self.passes

    @property
    def forward_macs(self) -> int:
        """Multiply-accumulates of the forward pass by the textbook formula (padding counted, bias not)."""
        return 0


class Window(Geometry):
    """What slides a window over a map: zero padded alike on both sides of an axis, dilation 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out_h < 1 or self.out_w < 1:
            raise ValueError(f"{self.kind}: the kernel is larger than the padded input: {self.values()}")

    @property
    def out_h(self) -> int:
        return (self.in_h + 2 * self.pad_h - self.kernel_h) // self.stride_h + 1

    @property
    def out_w(self) -> int:
        return (self.in_w + 2 * self.pad_w - self.kernel_w) // self.stride_w + 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_h, self.in_w, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.out_h, self.out_w, getattr(self, "out_channels", self.in_channels))


class Vector(Geometry):
    """What maps a vector to one of the same length, which is the geometry's first field."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.values()[:1]

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.values()[:1]


class Weighted(Geometry):
    """What convolution, depthwise convolution and linear share: weights and, mostly, a bias."""

    passes = (Pass.FORWARD, Pass.GRAD_INPUT, Pass.GRAD_WEIGHT, Pass.UPDATE)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def weight_gradient_shape(self, trained_channels: int, axis: Axis) -> tuple[int, ...]:
        """Shape of the compact gradient of ``trained_channels`` channels along ``axis``."""
        raise NotImplementedError

    def channels(self, axis: Axis) -> int:
        """How many channels there are to train along ``axis``."""
        raise NotImplementedError

    @property
    def bias_elements(self) -> int:
        return self.channels("out") if self.has_bias else 0

    @property
    def fan_in(self) -> int:
        """Inputs summed into one output element."""
        raise NotImplementedError


@dataclass(frozen=True)
class Conv2d(Window, Weighted):
    """2-D convolution."""

    kind: ClassVar[str] = "conv2d"
    code: ClassVar[int] = 1
    in_h: int
    in_w: int
    in_channels: int
    out_channels: int
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    groups: int = 1
    has_bias: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"conv2d: groups must divide {self.in_channels} input and {self.out_channels} output channels, "
                f"got {self.groups}"
            )

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.kernel_h, self.kernel_w, self.in_channels // self.groups)

    def weight_gradient_shape(self, trained_channels: int, axis: Axis) -> tuple[int, ...]:
        if axis == "out":
            return (trained_channels, *self.weight_shape[1:])
        # An input channel feeds only the outputs of its own group.
        return (self.out_channels // self.groups, self.kernel_h, self.kernel_w, trained_channels)

    def channels(self, axis: Axis) -> int:
        return self.out_channels if axis == "out" else self.in_channels

    @property
    def fan_in(self) -> int:
        return self.kernel_h * self.kernel_w * (self.in_channels // self.groups)

    @property
    def forward_macs(self) -> int:
        return self.out_h * self.out_w * self.out_channels * self.fan_in


@dataclass(frozen=True)
class Depthwise(Window, Weighted):
    """Depthwise 2-D convolution with channel multiplier 1. Its only axis to train is ``out``."""

    kind: ClassVar[str] = "depthwise"
    code: ClassVar[int] = 2
    in_h: int
    in_w: int
    in_channels: int
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    pad_h: int = 0
    pad_w: int = 0
    has_bias: int = 1

    @property
    def out_channels(self) -> int:
        return self.in_channels

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.kernel_h, self.kernel_w, self.in_channels)

    def weight_gradient_shape(self, trained_channels: int, axis: Axis) -> tuple[int, ...]:
        return (self.kernel_h, self.kernel_w, trained_channels)

    def channels(self, axis: Axis) -> int:
        return self.in_channels

    @property
    def fan_in(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def forward_macs(self) -> int:
        return self.out_h * self.out_w * self.in_channels * self.fan_in


@dataclass(frozen=True)
class Linear(Weighted):
    """Fully connected layer of one row: ``output = weight @ input + bias``."""

    kind: ClassVar[str] = "linear"
    code: ClassVar[int] = 3
    in_features: int
    out_features: int
    has_bias: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_features,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.out_features,)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.out_features, self.in_features)

    def weight_gradient_shape(self, trained_channels: int, axis: Axis) -> tuple[int, ...]:
        if axis == "out":
            return (trained_channels, self.in_features)
        return (self.out_features, trained_channels)

    def channels(self, axis: Axis) -> int:
        return self.out_features if axis == "out" else self.in_features

    @property
    def fan_in(self) -> int:
        return self.in_features

    @property
    def forward_macs(self) -> int:
        return self.in_features * self.out_features


@dataclass(frozen=True)
class GlobalAvgPool(Geometry):
    """Mean over all positions of a map."""

    kind: ClassVar[str] = "global_avg_pool"
    code: ClassVar[int] = 4
    in_h: int
    in_w: int
    in_channels: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_h, self.in_w, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.in_channels,)


@dataclass(frozen=True)
class _Pool2d(Window):
    in_h: int
    in_w: int
    in_channels: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_h: int = 0
    pad_w: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.pad_h > self.kernel_h or 2 * self.pad_w > self.kernel_w:
            raise ValueError(f"{self.kind}: padding must be at most half the kernel, got {self.values()}")


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """Average pooling; padding counts as zeros in the mean (torch's ``count_include_pad=True``)."""

    kind: ClassVar[str] = "avg_pool2d"
    code: ClassVar[int] = 5


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """Maximum pooling; the first maximum of a window in row-major order receives the gradient."""

    kind: ClassVar[str] = "max_pool2d"
    code: ClassVar[int] = 6


@dataclass(frozen=True)
class Add(Vector):
    """Elementwise sum of two tensors. Its ``grad_input`` sums two gradients that meet where a tensor forks."""

    kind: ClassVar[str] = "add"
    code: ClassVar[int] = 7
    elements: int


@dataclass(frozen=True)
class Relu(Vector):
    """ReLU (``maximum`` 0) or a ReLU clamped at ``maximum`` (6 for ReLU6). Gradient passes where 0 < y < maximum."""

    kind: ClassVar[str] = "relu"
    code: ClassVar[int] = 8
    elements: int
    maximum: int = 0


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Vector):
    """Softmax and cross-entropy against one label: loss and, backward, ``probabilities - onehot(label)``."""

    kind: ClassVar[str] = "softmax_cross_entropy"
    code: ClassVar[int] = 9
    classes: int


@dataclass(frozen=True)
class L2Normalize(Vector):
    """``output = input / max(‖input‖, 1e-12)``, as ``torch.nn.functional.normalize``."""

    kind: ClassVar[str] = "l2_normalize"
    code: ClassVar[int] = 10
    features: int


@dataclass(frozen=True)
class CosineHead(Geometry):
    """``logits = scale * prototypes @ input`` with unit-length prototypes held fixed and a normalised input."""

    kind: ClassVar[str] = "cosine_head"
    code: ClassVar[int] = 11
    features: int
    classes: int
    scale: int = 10

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.features,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.classes,)

    @property
    def forward_macs(self) -> int:
        return self.features * self.classes


@dataclass(frozen=True)
class Empty(Vector):
    """Nothing at all: what it measures is the harness's own cost, subtracted visibly from every op."""

    kind: ClassVar[str] = "empty"
    code: ClassVar[int] = 12
    passes: ClassVar[tuple[Pass, ...]] = (Pass.FORWARD,)
