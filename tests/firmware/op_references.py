"""What PyTorch makes of a random op of dtype f32, and how near a kernel has to come.

:func:`expected` gives the buffers that an op writes, by torch.autograd in float64.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from profiler import ops
from profiler.ops import Access, Op, Pass

if TYPE_CHECKING:
    from op_cases import Case

#: Largest relative error against float64.
TOLERANCE = 1e-5


def _in_groups(g: ops.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """As (positions, groups, channels of a group)."""
    return x.reshape(-1, g.groups, g.in_channels // g.groups)


def group_statistics(g: ops.GroupNorm, x: torch.Tensor) -> torch.Tensor:
    """Mean and reciprocal standard deviation of each group."""
    x = _in_groups(g, x.double())
    return torch.stack((x.mean((0, 2)), (x.var((0, 2), correction=0) + 1e-5).rsqrt()), dim=1)


def group_norm(g: ops.GroupNorm, b: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Forward by the definition."""
    statistics = group_statistics(g, b["input"])
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
