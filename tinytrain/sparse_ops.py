"""Passes of single nodes of a network that compute and keep what a plan needs, and nothing else.

:class:`SparseLayer` is a convolution or linear layer, with the clamp behind it where there is one. Torch's own
convolution keeps its input and computes the gradient of its whole weight once any of it is wanted, and ReLU6 keeps its
input in floats; here

- the input is kept only where weights train, and of it only the channels that their gradient reads,
- of the clamp one byte an element is kept, or nothing where the next layer keeps the output anyway,
- ``grad_input`` is computed only where something before the layer trains,
- ``grad_weight`` only for the chosen output or input channels, into a tensor of that size.

Every node is an *op*: ``run`` gives its output and what ``back`` needs to turn the output's gradient into those of its
inputs and parameters. They are written out, not left to autograd: in a step of a few images on small maps its
book-keeping takes as long as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from profiler.workloads.plan import LayerPlan

_BACKWARD = torch.ops.aten.convolution_backward
#: Up to so many of a depthwise kernel torch has a fast ``grad_weight``.
_TAPS = 9


class Op(Protocol):
    """A node of the network.

    Attributes:
        parameters: Stand for what trains in it, in autograd: gradients are of their shapes.
    """

    parameters: Sequence[Tensor]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The output, nothing kept."""

    def run(self, *inputs: Tensor) -> tuple[Tensor, Any]:
        """The output, and what is kept: tensors, or tuples of them."""

    def back(self, kept: Any, gradient: Tensor, wanted: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor]]:
        """Gradients of the inputs, those that are ``wanted``, and of the parameters."""


@dataclass(frozen=True, eq=False)
class Clamp:
    """ReLU (0 to infinity) or ReLU6 (0 to 6)."""

    low: float
    high: float

    def apply_(self, y: Tensor) -> Tensor:
        return y.clamp_(self.low, self.high) if self.high < float("inf") else y.clamp_(min=self.low)

    def passes(self, y: Tensor) -> Tensor:
        """Where the gradient goes through, as bool; ``y`` is clamped already, so that only the ends are 0."""
        # Comparisons of floats take several times as long.
        return y.to(torch.bool) if self.high == float("inf") else (self.high - y).mul_(y).to(torch.bool)

    def back(self, gradient: Tensor, y: Tensor) -> Tensor:
        """The gradient in front of it; ``y`` is its output, or :meth:`passes`."""
        if y.dtype == torch.bool:
            return gradient * y.view(torch.uint8)
        return torch.ops.aten.hardtanh_backward(gradient, y, self.low, self.high)


@dataclass(eq=False, kw_only=True)
class Training:
    """What may train in a node.

    Attributes:
        weight: Stands for the chosen weights in autograd: gradients are of its shape, its values are not read. None
            where no weight trains.
        bias: The same for biases.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def parameters(self) -> list[Tensor]:
        return [t for t in (self.weight, self.bias) if t is not None]


@dataclass(eq=False)
class SparseLayer(Training):
    """A convolution or linear layer under a plan.

    Attributes:
        module: With its weights, which are read at every pass.
        plan: What trains in it; None for nothing.
        clamp: Behind it, or None.
        output_kept: Whether what reads its output keeps it whole, so that nothing else is kept of the clamp.
    """

    module: nn.Conv2d | nn.Linear
    plan: LayerPlan | None
    clamp: Clamp | None
    output_kept: bool = False

    def forward(self, x: Tensor) -> Tensor:
        m = self.module
        if isinstance(m, nn.Linear):
            y = nn.functional.linear(x, m.weight, m.bias)
        else:
            y = torch.conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)
        return y if self.clamp is None else self.clamp.apply_(y)

    def run(self, x: Tensor) -> tuple[Tensor, tuple]:
        y = self.forward(x)
        if self.clamp is None:
            return y, (self.kept_input(x), None, x.shape)
        return y, (self.kept_input(x), y if self.output_kept else self.clamp.passes(y), x.shape)

    def back(self, kept: tuple, gradient: Tensor, wanted: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor]]:
        x, y, shape = kept
        if y is not None:
            gradient = self.clamp.back(gradient, y)
        found = self._back_of_rows if self._is_matrix else self._back_of_maps
        own, weight, bias = found(x, gradient, shape, wanted[0])
        return [own], [t for t in (weight, bias) if t is not None]

    @cached_property
    def keeps_input(self) -> bool:
        """Whether its input is kept whole where weights train."""
        if self.plan is None or not self.plan.channels:
            return False
        return not self._selects_input or len(self.plan.channels) == self.module.weight.shape[1]

    def kept_input(self, x: Tensor) -> Tensor | None:
        """What ``grad_weight`` will read of the input."""
        if self.weight is None:
            return None
        return self._select(x) if self._selects_input else x

    @cached_property
    def is_depthwise(self) -> bool:
        module = self.module
        return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels

    @cached_property
    def _is_matrix(self) -> bool:
        """Whether it is a matrix product, at every position or of vectors."""
        m = self.module
        if isinstance(m, nn.Linear):
            return True
        return (m.kernel_size, m.stride, self._padding, m.groups) == ((1, 1), (1, 1), (0, 0), 1)

    @cached_property
    def _padding(self) -> tuple[int, int]:
        """Rows and columns of zeros on each side, also where the module has a word for them."""
        m = self.module
        if m.padding == "same":
            return (m.kernel_size[0] // 2, m.kernel_size[1] // 2)
        return (0, 0) if m.padding == "valid" else m.padding

    @cached_property
    def _selects_input(self) -> bool:
        return self.is_depthwise or self.plan.axis == "in"

    @cached_property
    def _selects_output(self) -> bool:
        return self.plan is not None and self.plan.axis == "out" and len(self.plan.channels) > 0

    @cached_property
    def _index(self) -> Tensor:
        return torch.tensor(self.plan.channels)

    def _select(self, x: Tensor) -> Tensor:
        """The plan's channels of a map or of vectors, in the memory format that convolutions are fast in."""
        if len(self.plan.channels) == x.shape[1]:
            return x
        if x.dim() == 2:
            return x.index_select(1, self._index)
        return x.permute(0, 2, 3, 1).index_select(3, self._index).permute(0, 3, 1, 2)

    def _back_of_rows(self, x: Tensor | None, gradient: Tensor, shape: torch.Size, wanted: bool) -> tuple:
        """Gradients of the input, the chosen weights (flat) and the chosen biases; None where not wanted."""
        rows = _rows(gradient)
        chosen = self._select(rows) if self._selects_output else rows
        weight = None if self.weight is None else (chosen.T @ _rows(x)).flatten()
        bias = None if self.bias is None else chosen.sum(0)
        if not wanted:
            return None, weight, bias
        own = rows @ self.module.weight.flatten(1)
        if len(shape) == 4:
            own = own.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        return own, weight, bias

    def _back_of_maps(self, x: Tensor | None, gradient: Tensor, shape: torch.Size, wanted: bool) -> tuple:
        """As :meth:`_back_of_rows`."""
        chosen = self._select(gradient) if self._selects_output else gradient
        weight = None if self.weight is None else self._weight_gradient(gradient, chosen, x)
        bias = None if self.bias is None else chosen.sum((0, 2, 3))
        if not wanted:
            return None, weight, bias
        # The values of the input are not read for its own gradient, only its shape and memory format.
        like = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last)
        return self._backward(gradient, like, self.module.weight, self.module.groups, 0), weight, bias

    def _weight_gradient(self, gradient: Tensor, chosen: Tensor, kept: Tensor) -> Tensor:
        module, channels = self.module, self.plan.channels
        if self.is_depthwise:
            taps, positions = module.kernel_size[0] * module.kernel_size[1], gradient.shape[2] * gradient.shape[3]
            if taps > _TAPS:
                by = self._by_positions if 2 * positions <= taps else self._by_convolution
                return by(chosen, kept).flatten()
            like = module.weight.new_empty(len(channels), 1, *module.kernel_size)
            return self._backward(chosen, kept, like, len(channels), 1).flatten()
        inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
        parts, place, by_input = [], 0, self.plan.axis == "in"
        for group in range(module.groups):
            extent = inputs if by_input else outputs
            count = sum(group * extent <= c < (group + 1) * extent for c in channels)
            if not count:
                continue
            own = slice(place, place + count)
            place += count
            if by_input:
                g, x = gradient[:, group * outputs : (group + 1) * outputs], kept[:, own]
            else:
                g, x = chosen[:, own], kept[:, group * inputs : (group + 1) * inputs]
            like = module.weight.new_empty(g.shape[1], x.shape[1], *module.kernel_size)
            parts.append(self._backward(g, x, like, 1, 1).flatten())
        return torch.cat(parts)

    def _by_positions(self, gradient: Tensor, x: Tensor) -> Tensor:
        """A depthwise ``grad_weight`` position by position of the output: faster than torch's where those are few,
        as in the last blocks. Shape (channels, kernel_h, kernel_w).
        """
        (kernel_h, kernel_w), (stride_h, stride_w) = self.module.kernel_size, self.module.stride
        pad_h, pad_w = self._padding
        padded = nn.functional.pad(x.permute(0, 2, 3, 1), (0, 0, pad_w, pad_w, pad_h, pad_h))
        gradient = gradient.permute(0, 2, 3, 1)
        images, out_h, out_w, channels = gradient.shape
        sums = padded.new_zeros(images, kernel_h, kernel_w, channels)
        for row in range(out_h):
            for column in range(out_w):
                top, left = row * stride_h, column * stride_w
                window = padded[:, top : top + kernel_h, left : left + kernel_w]
                sums.addcmul_(window, gradient[:, row : row + 1, column : column + 1])
        return sums.sum(0).permute(2, 0, 1)

    def _by_convolution(self, gradient: Tensor, x: Tensor) -> Tensor:
        """A depthwise ``grad_weight`` as a convolution of each image's channel with its gradient, which torch is
        several times faster at for large kernels. Shape (channels, kernel_h, kernel_w).
        """
        (kernel_h, kernel_w), (pad_h, pad_w) = self.module.kernel_size, self._padding
        images, channels, out_h, out_w = gradient.shape
        padded = nn.functional.pad(x, (pad_w, pad_w, pad_h, pad_h))
        found = torch.conv2d(
            padded.reshape(1, images * channels, *padded.shape[2:]),
            gradient.reshape(images * channels, 1, out_h, out_w),
            dilation=self.module.stride,
            groups=images * channels,
        )
        # A stride that does not reach the last rows leaves more than the kernel's taps.
        return found.view(images, channels, *found.shape[2:])[:, :, :kernel_h, :kernel_w].sum(0)

    def _backward(self, gradient: Tensor, x: Tensor, weight: Tensor, groups: int, which: int) -> Tensor:
        m = self.module
        mask = [which == 0, which == 1, False]
        settings = (m.stride, self._padding, m.dilation, False, (0, 0), groups)
        return _BACKWARD(gradient, x, weight, None, *settings, mask)[which]


def _rows(x: Tensor) -> Tensor:
    """Vectors, or the channels of a map at every position of every image, as rows."""
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@dataclass(eq=False)
class SparseNorm(Training):
    """A GroupNorm under a plan, its scale and shift made of the chosen entries and the others; by torch's autograd.

    Attributes:
        module, plan: As of :class:`SparseLayer`.
    """

    module: nn.GroupNorm
    plan: LayerPlan | None

    def forward(self, x: Tensor) -> Tensor:
        module, values = self.module, []
        for own, chosen in ((module.weight, self.weight), (module.bias, self.bias)):
            if chosen is None:
                values.append(own.detach())
                continue
            positions = list(self.plan.channels or range(len(own)))
            # The chosen entries with their current values and the gradient of ``chosen``.
            current = own.detach()[positions] + (chosen - chosen.detach())
            values.append(own.detach().index_put((torch.tensor(positions),), current))
        # Contiguous: in channels-last form torch 2.13 crashes where the input needs no gradient.
        return nn.functional.group_norm(x.contiguous(), module.num_groups, *values, module.eps)

    def run(self, x: Tensor) -> tuple[Tensor, tuple]:
        return _record(self.forward, (x,))

    def back(self, kept: tuple, gradient: Tensor, wanted: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor]]:
        return _play_back(kept, gradient, wanted, self.parameters)


@dataclass(frozen=True, eq=False)
class ClampAlone:
    """A clamp behind something else than a layer; a byte an element is kept."""

    clamp: Clamp
    parameters: Sequence[Tensor] = ()

    def forward(self, x: Tensor) -> Tensor:
        return self.clamp.apply_(x.clone())

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.forward(x)
        return y, self.clamp.passes(y)

    def back(self, kept: Tensor, gradient: Tensor, wanted: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor]]:
        return [self.clamp.back(gradient, kept)], []


@dataclass(frozen=True, eq=False)
class Addition:
    """The sum of two maps of one shape."""

    parameters: Sequence[Tensor] = ()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def run(self, a: Tensor, b: Tensor) -> tuple[Tensor, None]:
        return a + b, None

    def back(self, kept: None, gradient: Tensor, wanted: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor]]:
        return [gradient if w else None for w in wanted], []


@dataclass(frozen=True, eq=False)
class Other:
    """Whatever else a network does, by torch's autograd."""

    function: Callable[..., Tensor]
    parameters: Sequence[Tensor] = ()

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)

    def run(self, *inputs: Tensor) -> tuple[Tensor, tuple]:
        return _record(self.function, inputs)

    def back(self, kept: tuple, gradient: Tensor, wanted: Sequence[bool]) -> tuple[list[Tensor | None], list[Tensor]]:
        return _play_back(kept, gradient, wanted, ())


class _Start(torch.autograd.Function):
    """The input itself, with a node of autograd in front of it that holds no tensor."""

    @staticmethod
    def forward(ctx, anchor: Tensor, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None]:
        return None, None


def _record(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, tuple]:
    """The output, and the edges of autograd's graph behind it and in front of its inputs."""
    with torch.enable_grad():
        anchor = torch.zeros((), requires_grad=True)
        starts = [_Start.apply(anchor, x) for x in inputs]
        y = function(*starts)
    return y.detach(), (get_gradient_edge(y), [get_gradient_edge(x) for x in starts])


def _play_back(
    kept: tuple, gradient: Tensor, wanted: Sequence[bool], parameters: Sequence[Tensor]
) -> tuple[list[Tensor | None], list[Tensor]]:
    end, starts = kept
    asked = [start for start, w in zip(starts, wanted, strict=True) if w]
    found = iter(torch.autograd.grad([end], [*asked, *parameters], [gradient]))
    return [next(found) if w else None for w in wanted], list(found)
