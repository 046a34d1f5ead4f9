"""Geometries of what TinyTL's lite residual modules (arXiv 2007.11622) need beside convolutions and pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from profiler.geometry import Axis, Geometry, Weighted

#: Added to the variance of every group, as ``torch.nn.GroupNorm`` does by default; there is no other.
GROUP_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class GroupNorm(Weighted):
    """Normalisation over the positions and channels of each group, then a scale and a shift a channel.

    As ``torch.nn.GroupNorm``: biased variance, epsilon :data:`GROUP_NORM_EPSILON`. The scale is the layer's weight, the
    shift its bias. Its only axis to train is ``out``.
    """

    kind: ClassVar[str] = "group_norm"
    code: ClassVar[int] = 13
    in_h: int
    in_w: int
    in_channels: int
    groups: int
    has_bias: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_channels % self.groups:
            raise ValueError(f"group_norm: groups must divide {self.in_channels} channels, got {self.groups}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_h, self.in_w, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.input_shape

    @property
    def statistics_shape(self) -> tuple[int, ...]:
        """Mean and reciprocal standard deviation of each group, which forward writes for the backward passes."""
        return (self.groups, 2)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels,)

    def weight_gradient_shape(self, trained_channels: int, axis: Axis) -> tuple[int, ...]:
        return (trained_channels,)

    def channels(self, axis: Axis) -> int:
        return self.in_channels

    @property
    def fan_in(self) -> int:
        return 1

    @property
    def forward_macs(self) -> int:
        """Two an element: its square in the variance, and scale and shift."""
        return 2 * self.in_h * self.in_w * self.in_channels


@dataclass(frozen=True)
class UpsampleBilinear2d(Geometry):
    """Twice the height and width, as ``torch.nn.Upsample(scale_factor=2, mode="bilinear")``: corners not aligned."""

    kind: ClassVar[str] = "upsample_bilinear2d"
    code: ClassVar[int] = 14
    in_h: int
    in_w: int
    in_channels: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.in_h, self.in_w, self.in_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (2 * self.in_h, 2 * self.in_w, self.in_channels)

    @property
    def forward_macs(self) -> int:
        """Four an output element, one for each of its nearest inputs."""
        return 16 * self.in_h * self.in_w * self.in_channels
