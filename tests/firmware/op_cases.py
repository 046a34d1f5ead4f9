"""Random ops with their inputs and what PyTorch makes of them, for whatever runs ops: this machine, boards, the agent.

A :class:`Case` is an op with every buffer's contents before it runs; :func:`expected` gives the written ones after it,
by torch.autograd in float64. An executor is anything with ``execute(case) -> list of all buffers after the op``.
"""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from profiler import ops
from profiler.geometry_s8 import S8_ONLY
from profiler.kernels import StepConstants
from profiler.ops import Access, Op, Pass

KERNEL_SIZES = (1, 1, 2, 3, 3, 4, 5, 7)
VARIANTS = ("blocked", "reference")
#: Random cases of every kind and pass.
CASES = 220
#: Largest relative error against float64.
TOLERANCE = 1e-5
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
                values = _statistics(op.geometry, torch.from_numpy(buffers[0])).numpy().astype(np.float32)
        buffers.append(values)
    step = int(rng.integers(1, 50))
    constants = StepConstants(float(rng.choice((1e-1, 1e-2))), float(1 / rng.integers(1, 26)), 1 - 0.9**step,
                              1 - 0.999**step)  # fmt: skip
    return Case(op, tuple(buffers), constants, channels)


# ---- what should come out


def _in_groups(g: ops.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """As (positions, groups, channels of a group)."""
    return x.reshape(-1, g.groups, g.in_channels // g.groups)


def _statistics(g: ops.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """Mean and reciprocal standard deviation of each group."""
    x = _in_groups(g, x.double())
    return torch.stack((x.mean((0, 2)), (x.var((0, 2), correction=0) + 1e-5).rsqrt()), dim=1)


def group_norm(g: ops.GroupNorm, b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Forward by the definition."""
    statistics = _statistics(g, b["input"])
    normal = (_in_groups(g, b["input"]) - statistics[:, :1]) * statistics[:, 1:]
    output = normal.reshape(g.output_shape) * b["weight"] + b.get("bias", 0)
    return {"output": output, "statistics": statistics}


def group_norm_gradients(g: ops.GroupNorm, b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradients of input and scale from the statistics that are given, right or not: devices make up theirs.

    That this is autograd's where they are right is a test of its own.
    """
    mean, r = b["statistics"][:, :1], b["statistics"][:, 1:]
    normal, gradient = (_in_groups(g, b["input"]) - mean) * r, _in_groups(g, b["grad_output"])
    scaled = gradient * _in_groups(g, b.get("weight", torch.ones(g.in_channels, dtype=torch.float64)))
    along, level = (scaled * normal).mean((0, 2), keepdim=True), scaled.mean((0, 2), keepdim=True)
    return {
        "grad_input": (r * (scaled - level - normal * along)).reshape(g.input_shape),
        "weight_gradient": (gradient * normal).sum(0).reshape(-1),
    }


# Everything goes to torch contiguous: with grouped convolutions its weight gradient is wrong for float64 tensors whose
# strides look like channels-last (torch 2.13.0 on x86).


def _nchw(values: torch.Tensor) -> torch.Tensor:
    return values.permute(2, 0, 1).unsqueeze(0).contiguous()


def _hwc(values: torch.Tensor) -> torch.Tensor:
    return values.squeeze(0).permute(1, 2, 0)


def forward(g: ops.Geometry, x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """The layer in torch on the device's layouts; for a cosine head ``weight`` holds the prototypes."""
    match g:
        case ops.Conv2d():
            return _hwc(F.conv2d(_nchw(x), weight.permute(0, 3, 1, 2).contiguous(), bias, (g.stride_h, g.stride_w),
                                 (g.pad_h, g.pad_w), groups=g.groups))  # fmt: skip
        case ops.Depthwise():
            filters = weight.permute(2, 0, 1).unsqueeze(1).contiguous()
            return _hwc(F.conv2d(_nchw(x), filters, bias, (g.stride_h, g.stride_w), (g.pad_h, g.pad_w),
                                 groups=g.in_channels))  # fmt: skip
        case ops.Linear():
            return F.linear(x, weight, bias)
        case ops.GlobalAvgPool():
            return x.mean((0, 1))
        case ops.AvgPool2d():
            return _hwc(F.avg_pool2d(_nchw(x), (g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w), (g.pad_h, g.pad_w)))
        case ops.MaxPool2d():
            return _hwc(F.max_pool2d(_nchw(x), (g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w), (g.pad_h, g.pad_w)))
        case ops.UpsampleBilinear2d():
            return _hwc(F.interpolate(_nchw(x), scale_factor=2, mode="bilinear", align_corners=False))
        case ops.Relu():
            return x.clamp(0, g.maximum) if g.maximum else x.relu()
        case ops.L2Normalize():
            return F.normalize(x, dim=0)
        case ops.CosineHead():
            return g.scale * weight @ x
    raise AssertionError(g)


def _compact(op: Op, gradient: torch.Tensor, trained: np.ndarray) -> torch.Tensor:
    """The trained channels of a whole weight gradient, in the compact layout."""
    g = op.geometry
    if op.trained_axis == "out":
        return gradient[..., trained] if isinstance(g, ops.Depthwise) else gradient[trained]
    if isinstance(g, ops.Linear) or g.groups == 1:
        return gradient[..., trained]
    group_in, group_out = g.in_channels // g.groups, g.out_channels // g.groups
    columns = [gradient[c // group_in * group_out :][:group_out, ..., c % group_in] for c in trained]
    return torch.stack(columns, dim=-1)


def _scatter(op: Op, whole: torch.Tensor, change: torch.Tensor, trained: np.ndarray) -> torch.Tensor:
    """whole + change, where change is compact: the transpose of :func:`_compact`, which is linear."""
    probe = torch.zeros_like(whole, requires_grad=True)
    (spread,) = torch.autograd.grad(_compact(op, probe, trained), probe, change)
    return whole + spread


def expected(case: Case) -> dict[str, np.ndarray]:
    """The buffers that the op writes, by role, after it ran: float64."""
    op, g = case.op, case.op.geometry
    before = {
        spec.role: torch.from_numpy(values.astype(np.int64 if spec.role == "label" else np.float64))
        for spec, values in zip(op.buffers(), case.buffers, strict=True)
    }
    after = _expected(case, before, g)
    return {role: values.detach().numpy() for role, values in after.items()}


def _expected(case: Case, b: dict[str, torch.Tensor], g: ops.Geometry) -> dict[str, torch.Tensor]:
    op = case.op
    if isinstance(g, ops.Add):
        return {"output": b["a"] + b["b"]}
    if isinstance(g, ops.SoftmaxCrossEntropy):
        if op.pass_ is Pass.FORWARD:
            loss = F.cross_entropy(b["input"].unsqueeze(0), b["label"])
            return {"probabilities": b["input"].softmax(0), "loss": b["loss"] + loss}
        return {"grad_input": b["probabilities"] - F.one_hot(b["label"], g.classes)[0]}
    if isinstance(g, ops.GroupNorm) and op.pass_ is Pass.FORWARD:
        return group_norm(g, b)
    if isinstance(g, ops.GroupNorm) and op.pass_ is Pass.GRAD_INPUT:
        return {"grad_input": group_norm_gradients(g, b)["grad_input"]}
    weight = b.get("weight", b.get("prototypes"))
    if op.pass_ is Pass.FORWARD:
        return {"output": forward(g, b["input"], weight, b.get("bias"))}
    if op.pass_ is Pass.GRAD_INPUT:
        # ReLU is given its output; relu(output) = output, so the gradient at the output is the gradient at the input.
        x = b.get("input", b.get("output", torch.zeros(g.input_shape, dtype=torch.float64))).requires_grad_()
        y = forward(g, x, weight, None)
        (grad_input,) = torch.autograd.grad(y, x, b["grad_output"])
        if isinstance(g, ops.Relu) and g.maximum:  # torch's clamp lets the gradient pass at the limits; the op does not
            grad_input = torch.where((x > 0) & (x < g.maximum), grad_input, 0.0)
        return {"grad_input": grad_input}
    if op.pass_ is Pass.GRAD_WEIGHT:
        return _expected_grad_weight(case, b, g)
    return _expected_update(case, b)


def _expected_grad_weight(case: Case, b: dict[str, torch.Tensor], g: ops.Geometry) -> dict[str, torch.Tensor]:
    op, after = case.op, {}
    if isinstance(g, ops.GroupNorm):
        if op.trained_channels:
            after["weight_gradient"] = (
                b["weight_gradient"] + group_norm_gradients(g, b)["weight_gradient"][case.trained]
            )
        if op.trains_bias:
            sums = b["grad_output"].sum((0, 1))
            after["bias_gradient"] = b["bias_gradient"] + (sums[case.trained] if op.trained_channels else sums)
        return after
    x = b.get("input", torch.zeros(g.input_shape, dtype=torch.float64))
    weight = torch.zeros(g.weight_shape, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(g.bias_elements, dtype=torch.float64, requires_grad=True) if op.trains_bias else None
    wanted = (weight, bias) if op.trains_bias else (weight,)
    gradients = torch.autograd.grad(forward(g, x, weight, bias), wanted, b["grad_output"])
    if op.trained_channels:
        after["weight_gradient"] = b["weight_gradient"] + _compact(op, gradients[0], case.trained)
    if op.trains_bias:
        some = op.trained_channels and op.trained_axis == "out"
        after["bias_gradient"] = b["bias_gradient"] + (gradients[1][case.trained] if some else gradients[1])
    return after


def _expected_update(case: Case, b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """torch.optim's own first step on the trained weights, its state set to the moments.

    torch counts steps and makes Adam's bias corrections of that; others are had through its rate and epsilon:
    ``rate * moment1 / bias1 / (sqrt(moment2 / bias2) + epsilon)``, multiplied out, is the same.
    """
    op, constants, after = case.op, case.constants, {}
    for name in ("weight", "bias"):
        if name not in b:
            continue
        gradient = b[f"{name}_gradient"] * constants.gradient_scale
        delta = torch.nn.Parameter(torch.zeros_like(gradient))
        delta.grad = gradient
        if op.optimizer == "adam":
            root = (constants.bias_correction2 / (1 - 0.999)) ** 0.5
            rate = constants.learning_rate * (1 - 0.9) / constants.bias_correction1 * root
            optimizer = torch.optim.Adam([delta], lr=rate, eps=1e-8 * root)
            first, second = b[f"{name}_moment1"].clone(), b[f"{name}_moment2"].clone()
            optimizer.state[delta] = {"step": torch.tensor(0.0), "exp_avg": first, "exp_avg_sq": second}
            optimizer.step()
            after |= {f"{name}_moment1": first, f"{name}_moment2": second}
        else:
            torch.optim.SGD([delta], lr=constants.learning_rate).step()
        if name == "weight":
            after[name] = _scatter(op, b[name], delta.detach(), case.trained)
        elif op.trained_channels and op.trained_axis == "out":
            after[name] = b[name].index_add(0, torch.from_numpy(case.trained), delta.detach())
        else:
            after[name] = b[name] + delta.detach()
        after[f"{name}_gradient"] = torch.zeros_like(gradient)
    return after


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    """``‖values - reference‖ / ‖reference‖``; 0 for two zeros."""
    error, norm = np.linalg.norm(values.astype(np.float64) - reference), np.linalg.norm(reference)
    return float(error / norm) if error or norm else 0.0


def assert_right(case: Case, role: str, error: float, reference: np.ndarray) -> None:
    """Hold one written buffer's relative error against the tolerance."""
    tolerance = TOLERANCE
    if error >= TOLERANCE and _cancels(case, role, reference):
        tolerance *= 10
    assert error < tolerance, f"{case.op.key} {role}, channels {case.channels}: {error:.1e}"


def check_all(case: Case, after: list[np.ndarray], reference: dict[str, np.ndarray]) -> None:
    """Hold every buffer after the op against what it should be; those that are only read have not changed."""
    for spec, before, values in zip(case.op.buffers(), case.buffers, after, strict=True):
        if spec.access is Access.READ:
            assert np.array_equal(before, values), f"{case.op.key} changed {spec.role}"
        else:
            assert_right(case, spec.role, relative_error(values, reference[spec.role]), reference[spec.role])
    assert {spec.role for spec in case.op.outputs} == set(reference)


def _cancels(case: Case, role: str, reference: np.ndarray) -> bool:
    """Whether a sum's terms cancel to less than a hundredth of what they were.

    Such a result (nearly always a single number) has lost two digits before any rounding of the kernel's own.
    """
    absolute = tuple(np.abs(values) for values in case.buffers)
    magnitude = expected(dataclasses.replace(case, buffers=absolute))[role]
    return np.linalg.norm(reference) < 0.01 * np.linalg.norm(magnitude)
