"""Backward passes of single layers that compute and keep what a plan needs, and nothing else.

:class:`SparseLayer` is a convolution, linear layer or GroupNorm, with the clamp behind it where there is one. Torch's
own convolution keeps its input and computes the gradient of its whole weight once any of it is wanted, and ReLU6 keeps
its input in floats; here

- the input is kept only where weights train, and of it only the channels that their gradient reads,
- of the clamp one byte an element is kept,
- ``grad_input`` is computed only where something before the layer trains,
- ``grad_weight`` only for the chosen output or input channels, into a tensor of that size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from profiler.workloads.plan import LayerPlan

_BACKWARD = torch.ops.aten.convolution_backward


@dataclass(frozen=True, eq=False)
class Clamp:
    """ReLU (0 to infinity) or ReLU6 (0 to 6)."""

    low: float
    high: float

    def apply_(self, y: Tensor) -> Tensor:
        return y.clamp_(self.low, self.high) if self.high < float("inf") else y.clamp_(min=self.low)

    def passes(self, y: Tensor) -> Tensor:
        """Where the gradient goes through, as bool; ``y`` is clamped already."""
        return (y > self.low) & (y < self.high) if self.high < float("inf") else y > self.low


@dataclass(eq=False)
class SparseLayer:
    """One layer under a plan.

    Attributes:
        module: Convolution, linear layer or GroupNorm with its weights, which are read at every pass.
        plan: What trains in it; None for nothing.
        clamp: Behind it, or None.
        weight: Stands for the chosen weights in autograd: gradients are of its shape, its values are not read. None
            where no weight trains.
        bias: The same for biases.
    """

    module: nn.Conv2d | nn.Linear | nn.GroupNorm
    plan: LayerPlan | None
    clamp: Clamp | None
    weight: Tensor | None = None
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output with autograd behind it."""
        if isinstance(self.module, nn.GroupNorm):
            y = self._norm(x)
            return y if self.clamp is None else _ClampOnly.apply(y, self.clamp)
        return _Sparse.apply(x, self.weight, self.bias, self)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output and nothing kept."""
        if isinstance(self.module, nn.GroupNorm):
            y = self.module(x)
        elif isinstance(self.module, nn.Linear):
            y = nn.functional.linear(x, self.module.weight, self.module.bias)
        else:
            y = self.module._conv_forward(x, self.module.weight, self.module.bias)
        return y if self.clamp is None else self.clamp.apply_(y)

    def kept_input(self, x: Tensor) -> Tensor | None:
        """What ``grad_weight`` will read of the input."""
        if self.weight is None:
            return None
        if self.is_depthwise or (self.plan.axis == "in" and not isinstance(self.module, nn.Linear)):
            return _channels(x, self.plan.channels)
        return x

    def gradients(
        self, gradient: Tensor, kept: Tensor | None, shape: torch.Size, wanted: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of the input, of the chosen weights (flat) and of the chosen biases.

        Args:
            gradient: Of the output in front of the clamp.
            kept: What :meth:`kept_input` gave.
            shape: Of the input.
            wanted: Which of the three.
        """
        whole = self.plan is None or self.plan.axis == "in" or not self.plan.channels
        chosen = gradient if whole else _channels(gradient, self.plan.channels)
        return (
            self._input_gradient(gradient, shape) if wanted[0] else None,
            self._weight_gradient(gradient, chosen, kept) if wanted[1] else None,
            chosen.sum(dim=[d for d in range(chosen.dim()) if d != 1]) if wanted[2] else None,
        )

    @property
    def is_depthwise(self) -> bool:
        module = self.module
        return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels

    @property
    def _is_matrix(self) -> bool:
        """Whether the convolution is a matrix product at every position."""
        m = self.module
        return (m.kernel_size, m.stride, m.padding, m.groups) == ((1, 1), (1, 1), (0, 0), 1)

    def _input_gradient(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        weight = self.module.weight
        if isinstance(self.module, nn.Linear):
            return gradient @ weight
        if self._is_matrix:
            rows = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1]) @ weight.flatten(1)
            return rows.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)
        # The values of the input are not read for its own gradient, only its shape and memory format.
        like = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last)
        return self._backward(gradient, like, weight, self.module.groups, 0)

    def _weight_gradient(self, gradient: Tensor, chosen: Tensor, kept: Tensor) -> Tensor:
        module, channels = self.module, list(self.plan.channels)
        by_input = self.plan.axis == "in"
        if isinstance(module, nn.Linear):
            return (gradient.T @ kept[:, channels] if by_input else chosen.T @ kept).flatten()
        if self.is_depthwise:
            if gradient.shape[2] * gradient.shape[3] < module.kernel_size[0] * module.kernel_size[1]:
                return self._by_positions(chosen, kept).flatten()
            return self._backward(chosen, kept, module.weight[channels], len(channels), 1).flatten()
        if self._is_matrix:
            rows = chosen.permute(0, 2, 3, 1).reshape(-1, chosen.shape[1])
            return (rows.T @ kept.permute(0, 2, 3, 1).reshape(-1, kept.shape[1])).flatten()
        inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
        parts, place = [], 0
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
        """A depthwise ``grad_weight`` position by position of the output: faster than torch's where those are fewer
        than the kernel's taps, as in the last blocks. Shape (channels, kernel_h, kernel_w).
        """
        (kernel_h, kernel_w), (stride_h, stride_w) = self.module.kernel_size, self.module.stride
        pad_h, pad_w = self.module.padding
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

    def _backward(self, gradient: Tensor, x: Tensor, weight: Tensor, groups: int, which: int) -> Tensor:
        m = self.module
        mask = [which == 0, which == 1, False]
        return _BACKWARD(gradient, x, weight, None, m.stride, m.padding, m.dilation, False, (0, 0), groups, mask)[which]

    def _norm(self, x: Tensor) -> Tensor:
        """GroupNorm by torch's own autograd, its scale and shift made of the chosen entries and the others."""
        module = self.module
        values = []
        for own, chosen in ((module.weight, self.weight), (module.bias, self.bias)):
            if chosen is None:
                values.append(own.detach())
                continue
            positions = self.plan.channels or range(len(own))
            values.append(own.detach().index_put((torch.tensor(list(positions)),), _value_of(own, chosen, positions)))
        # Contiguous: in channels-last form torch 2.13 crashes where the input needs no gradient.
        return nn.functional.group_norm(x.contiguous(), module.num_groups, *values, module.eps)


def _channels(x: Tensor, channels: Sequence[int]) -> Tensor:
    """These channels of a map or of vectors, in the memory format that convolutions are fast in."""
    if len(channels) == x.shape[1]:
        return x
    index = torch.tensor(channels)
    if x.dim() == 2:
        return x.index_select(1, index)
    return x.permute(0, 2, 3, 1).index_select(3, index).permute(0, 3, 1, 2)


def _value_of(own: Tensor, chosen: Tensor, positions: object) -> Tensor:
    """The chosen entries with their current values and the gradient of ``chosen``."""
    return own.detach()[list(positions)] + (chosen - chosen.detach())


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, layer: SparseLayer) -> Tensor:
        y = layer.forward(x)
        ctx.layer, ctx.shape = layer, x.shape
        passes = None if layer.clamp is None else layer.clamp.passes(y)
        ctx.save_for_backward(layer.kept_input(x), passes)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor):
        kept, passes = ctx.saved_tensors
        if passes is not None:
            gradient = gradient * passes
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2])
        return (*ctx.layer.gradients(gradient, kept, ctx.shape, wanted), None)


class _ClampOnly(torch.autograd.Function):
    """A clamp that keeps a byte an element."""

    @staticmethod
    def forward(ctx, x: Tensor, clamp: Clamp) -> Tensor:
        y = clamp.apply_(x.clone())
        ctx.save_for_backward(clamp.passes(y))
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.saved_tensors[0], None


def clamped(x: Tensor, clamp: Clamp) -> Tensor:
    """A clamp that stands alone, with autograd behind it."""
    return _ClampOnly.apply(x, clamp)
