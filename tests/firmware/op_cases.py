"""Random ops with their inputs, for whatever runs ops: this machine, boards, the agent.

A :class:`Case` is an op with every buffer's contents before it runs; ``op_references`` has what they hold after it.
An executor is anything with ``execute(case) -> list of all buffers after the op``.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from op_references import group_statistics

from profiler import ops
from profiler.geometry_s8 import S8_ONLY
from profiler.kernels import StepConstants
from profiler.ops import Access, Op, Pass

KERNEL_SIZES = (1, 1, 2, 3, 3, 4, 5, 7)
VARIANTS = ("blocked", "reference")
#: Random cases of every kind and pass.
CASES = 220
#: Every kind and pass that is an op of dtype f32.
KINDS_AND_PASSES = [
    (kind, pass_)
    for kind, cls in ops.GEOMETRIES.items()
    for pass_ in cls.passes
    if kind != "empty" and not issubclass(cls, S8_ONLY)
]


@dataclass(frozen=True)
class Case:
    """An op and what its buffers hold before it runs.

    Attributes:
        op: The op.
        buffers: One array a buffer, in the op's order, shaped as the op says; NaN where the op only writes.
        constants: Of the optimiser's step.
        channels: uint16 numbers of the trained channels; None: the first ones.
    """

    op: Op
    buffers: tuple[np.ndarray, ...]
    constants: StepConstants
    channels: np.ndarray | None

    @property
    def trained(self) -> np.ndarray:
        return np.arange(self.op.trained_channels) if self.channels is None else self.channels.astype(int)


class Executor(Protocol):
    def execute(self, case: Case) -> list[np.ndarray]:
        """Run the op and return all its buffers' contents."""


def seeded(*names: object) -> np.random.Generator:
    """The same numbers for the same names, in every process."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, names)).encode()))


# ---- what to run


def _window(rng: np.random.Generator, largest_pad_of) -> dict[str, int]:
    kernel_h, kernel_w = (int(rng.choice(KERNEL_SIZES)) for _ in range(2))
    if rng.random() < 0.6:
        kernel_w = kernel_h
    pad_h, pad_w = (int(rng.integers(0, largest_pad_of(k) + 1)) for k in (kernel_h, kernel_w))
    if rng.random() < 0.5:  # as networks have it
        pad_h, pad_w = kernel_h // 2, kernel_w // 2
    stride_h = int(rng.choice((1, 1, 2, 2, 3)))
    stride_w = stride_h if rng.random() < 0.8 else int(rng.integers(1, 5))
    return {
        "in_h": int(rng.integers(max(1, kernel_h - 2 * pad_h), kernel_h + 9)),
        "in_w": int(rng.integers(max(1, kernel_w - 2 * pad_w), kernel_w + 11)),
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "pad_h": pad_h,
        "pad_w": pad_w,
    }


def random_geometry(kind: str, rng: np.random.Generator) -> ops.Geometry:
    """A small geometry of any kind; odd sizes and channel counts that four does not divide are common."""
    n = lambda high: int(rng.integers(1, high + 1))  # noqa: E731
    has_bias = int(rng.random() < 0.7)
    match kind:
        case "conv2d":
            groups = int(rng.choice((1, 1, 1, 1, 2, 3, 4)))
            if rng.random() < 0.15:  # pointwise, which the kernels treat as one long row
                w = {"in_h": n(7), "in_w": n(7), "kernel_h": 1, "kernel_w": 1}
            else:
                w = _window(rng, lambda kernel: kernel + 1)
            return ops.Conv2d(**w, in_channels=groups * n(10), out_channels=groups * n(11), groups=groups,
                              has_bias=has_bias)  # fmt: skip
        case "depthwise":
            return ops.Depthwise(**_window(rng, lambda kernel: kernel + 1), in_channels=n(13), has_bias=has_bias)
        case "linear":
            return ops.Linear(n(70), n(40), has_bias)
        case "global_avg_pool":
            return ops.GlobalAvgPool(n(12), n(12), n(13))
        case "avg_pool2d":
            return ops.AvgPool2d(**_window(rng, lambda kernel: kernel // 2), in_channels=n(9))
        case "max_pool2d":
            return ops.MaxPool2d(**_window(rng, lambda kernel: kernel // 2), in_channels=n(9))
        case "add":
            return ops.Add(n(300))
        case "relu":
            return ops.Relu(n(300), int(rng.choice((0, 6, 1))))
        case "softmax_cross_entropy":
            return ops.SoftmaxCrossEntropy(n(40))
        case "l2_normalize":
            return ops.L2Normalize(1 + n(200))
        case "cosine_head":
            return ops.CosineHead(n(70), n(20), int(rng.choice((1, 10, 16))))
        case "group_norm":
            # Of fewer than eight values next to nothing is left of a gradient but rounding.
            groups, extents = n(4), (1, 1, 1)
            while np.prod(extents) < 8:
                extents = n(9), n(9), n(10)
            return ops.GroupNorm(*extents[:2], groups * extents[2], groups, has_bias)
        case "upsample_bilinear2d":
            return ops.UpsampleBilinear2d(n(7), n(7), n(9))
    return ops.Empty()


def random_op(kind: str, pass_: Pass, rng: np.random.Generator, variant: str = "blocked") -> Op:
    """A random op; for ``grad_weight`` and ``update`` of k channels of either axis, with and without bias."""
    geometry = random_geometry(kind, rng)
    if pass_ not in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        return Op(geometry, pass_, variant=variant)
    assert geometry.trainable
    axis = "out" if kind in ("depthwise", "group_norm") or rng.random() < 0.5 else "in"
    channels = geometry.channels(axis)
    trains_bias = bool(geometry.bias_elements) and rng.random() < 0.6
    k = channels if rng.random() < 0.2 else int(rng.integers(0 if trains_bias else 1, channels + 1))
    optimizer = "adam" if rng.random() < 0.5 else "sgd"
    return Op(geometry, pass_, trained_channels=k, trained_axis=axis, trains_bias=trains_bias, optimizer=optimizer,
              variant=variant)  # fmt: skip


def random_case(op: Op, rng: np.random.Generator) -> Case:
    """Normally distributed buffers; gradients and moments hold something already; channels a random set, or None."""
    channels = None
    if op.trained_channels and rng.random() < 0.7:
        everything = op.geometry.channels(op.trained_axis)
        channels = np.sort(rng.choice(everything, op.trained_channels, replace=False)).astype(np.uint16)
    buffers = []
    for spec in op.buffers():
        if spec.role == "label":
            values = rng.integers(0, op.geometry.input_shape[0], spec.shape).astype(np.int32)
        elif spec.access is Access.WRITE:
            values = np.full(spec.shape, np.nan, np.float32)
        else:
            values = rng.standard_normal(spec.shape).astype(np.float32)
            if spec.role.endswith("moment2"):  # a mean of squares; not so small that float32 rounds the step away
                values = values**2 + np.float32(0.01)
            elif op.pass_ is Pass.UPDATE and spec.role in ("weight", "bias"):
                values *= np.float32(0.01)  # so that the step is as large as the weights
            elif op.kind == "max_pool2d" and spec.role == "input" and rng.random() < 0.5:
                values = np.round(values)  # ties
            elif op.kind == "relu" and spec.role == "output":
                values = np.clip(4 * values, 0, op.geometry.maximum or None)
            elif op.kind == "softmax_cross_entropy":
                values *= np.float32(rng.choice((1, 5, 30)))
                if spec.role == "probabilities":
                    values = np.exp(values - values.max())
                    values /= values.sum()
            elif op.kind == "group_norm" and spec.role == "input":
                values = (values * rng.choice((0.1, 1, 10)) + rng.choice((0, 3, -20))).astype(np.float32)
            elif spec.role == "statistics":
                values = group_statistics(op.geometry, torch.from_numpy(buffers[0])).numpy().astype(np.float32)
        buffers.append(values)
    step = int(rng.integers(1, 50))
    constants = StepConstants(float(rng.choice((1e-1, 1e-2))), float(1 / rng.integers(1, 26)), 1 - 0.9**step,
                              1 - 0.999**step)  # fmt: skip
    return Case(op, tuple(buffers), constants, channels)
