"""What one float32 op should give: in PyTorch, in float64. Layouts are those of :mod:`profiler.ops`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.geometry_norm import GROUP_NORM_EPSILON
from profiler.ops import (
    Add,
    AvgPool2d,
    Axis,
    Conv2d,
    CosineHead,
    Depthwise,
    Geometry,
    GlobalAvgPool,
    GroupNorm,
    L2Normalize,
    Linear,
    MaxPool2d,
    Op,
    Pass,
    Relu,
    SoftmaxCrossEntropy,
    UpsampleBilinear2d,
)
from profiler.workloads.entries import StepConstants
from profiler.workloads.traits import buffers_of

#: Features shorter than this are divided by it instead of by their length.
NORMALIZE_EPSILON = 1e-12
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def op_reference(
    op: Op,
    inputs: Mapping[str, np.ndarray],
    *,
    channels: Sequence[int] | None = None,
    constants: StepConstants | None = None,
) -> dict[str, np.ndarray]:
    """What one op writes.

    Args:
        op: The op.
        inputs: Role to values for every buffer that the op reads, of the buffer's shape, any number type.
        channels: Numbers of the channels that train; None for the first ``op.trained_channels``.
        constants: Of the optimiser; needed for ``update``.

    Returns:
        Role to float64 array for every buffer that the op writes, of the buffer's shape.
    """
    values = {role: np.asarray(array, dtype=np.float64) for role, array in inputs.items()}
    g = op.geometry
    if op.pass_ is Pass.UPDATE:
        assert constants is not None
        return _update(op, values, channels, constants)
    if op.pass_ is Pass.GRAD_WEIGHT:
        return _grad_weight(op, values, channels)
    torch_values = {role: torch.from_numpy(np.ascontiguousarray(v)) for role, v in values.items()}
    with torch.enable_grad():
        if op.pass_ is Pass.FORWARD:
            results = _forward_results(g, torch_values)
        else:
            results = {_grad_role(g): _grad_input(g, torch_values)}
    shapes = {spec.role: spec.shape for spec in buffers_of(op)}
    return {role: value.detach().numpy().reshape(shapes[role]) for role, value in results.items()}


def trained_indices(g: Geometry, axis: Axis, channels: Sequence[int]) -> np.ndarray:
    """Where the trained weights lie: flat indices into the whole weight tensor, in the shape of the compact gradient.

    Args:
        g: A convolution's, depthwise convolution's or linear layer's geometry.
        axis: Whether ``channels`` are output or input channels.
        channels: Their numbers, ascending.
    """
    index = np.arange(int(np.prod(g.weight_shape))).reshape(g.weight_shape)  # type: ignore[attr-defined]
    picked = list(channels)
    if isinstance(g, Depthwise):
        return index[..., picked]
    if axis == "out":
        return index[picked]
    if isinstance(g, Linear):
        return index[:, picked]
    assert isinstance(g, Conv2d)
    ins, outs = g.in_channels // g.groups, g.out_channels // g.groups
    # An input channel feeds the outputs of its own group only.
    if not picked:
        return np.zeros(g.weight_gradient_shape(0, axis), dtype=index.dtype)
    columns = [index[c // ins * outs : (c // ins + 1) * outs, :, :, c % ins] for c in picked]
    return np.stack(columns, axis=-1)


def _channels(op: Op, channels: Sequence[int] | None) -> Sequence[int]:
    return range(op.trained_channels) if channels is None else channels


def _biases(op: Op, channels: Sequence[int] | None) -> list[int]:
    if op.trained_channels and op.trained_axis == "out":
        return list(_channels(op, channels))
    return list(range(op.trained_biases))


def _to_nchw(x: Tensor) -> Tensor:
    return x.permute(2, 0, 1).unsqueeze(0)


def _from_nchw(x: Tensor) -> Tensor:
    return x.squeeze(0).permute(1, 2, 0)


def _apply(g: Geometry, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Forward pass of every kind with one input, in the device's layouts."""
    if isinstance(g, Conv2d):
        # Contiguous, since torch 2.13 gets the weight gradient of grouped convolutions wrong in float64 where the
        # tensors' strides are those of NHWC.
        weight = values["weight"].permute(0, 3, 1, 2).contiguous()
        stride, pad = (g.stride_h, g.stride_w), (g.pad_h, g.pad_w)
        y = F.conv2d(_to_nchw(x).contiguous(), weight, values.get("bias"), stride, pad, groups=g.groups)
        return _from_nchw(y)
    if isinstance(g, Depthwise):
        return _depthwise(g, x, values["weight"], values.get("bias"))
    if isinstance(g, Linear):
        return F.linear(x, values["weight"], values.get("bias"))
    if isinstance(g, GlobalAvgPool):
        return x.mean((0, 1))
    if isinstance(g, AvgPool2d | MaxPool2d):
        pool = F.avg_pool2d if isinstance(g, AvgPool2d) else F.max_pool2d
        window = ((g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w), (g.pad_h, g.pad_w))
        return _from_nchw(pool(_to_nchw(x), *window))
    if isinstance(g, UpsampleBilinear2d):
        return _from_nchw(F.interpolate(_to_nchw(x), scale_factor=2, mode="bilinear"))
    if isinstance(g, Relu):
        return x.clamp(0, g.maximum) if g.maximum else x.clamp(min=0)
    if isinstance(g, L2Normalize):
        return F.normalize(x, dim=0, eps=NORMALIZE_EPSILON)
    if isinstance(g, CosineHead):
        return g.scale * (values["prototypes"] @ x)
    raise NotImplementedError(g.kind)


def _depthwise(g: Depthwise, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Tap by tap: torch's own grouped convolution takes tens of times longer in float64."""
    padded = F.pad(x, (0, 0, g.pad_w, g.pad_w, g.pad_h, g.pad_h))
    rows, columns = (g.out_h - 1) * g.stride_h + 1, (g.out_w - 1) * g.stride_w + 1
    y = torch.zeros(g.output_shape, dtype=x.dtype) if bias is None else bias.expand(g.output_shape)
    for i in range(g.kernel_h):
        for j in range(g.kernel_w):
            y = y + padded[i : i + rows : g.stride_h, j : j + columns : g.stride_w] * weight[i, j]
    return y


def _forward_results(g: Geometry, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if g.kind == "empty":
        return {}
    if isinstance(g, Add):
        return {"output": values["a"] + values["b"]}
    if isinstance(g, GroupNorm):
        x = _to_nchw(values["input"]).contiguous()
        extents = (1, g.in_channels, g.in_h * g.in_w, g.groups)
        y, *statistics = torch.native_group_norm(x, values["weight"], values.get("bias"), *extents, GROUP_NORM_EPSILON)
        return {"output": _from_nchw(y), "statistics": torch.cat(statistics).T}
    if isinstance(g, SoftmaxCrossEntropy):
        logits, label = values["input"].unsqueeze(0), values["label"].long()
        return {
            "probabilities": logits.softmax(1),
            "loss": values["loss"] + F.cross_entropy(logits, label),
        }
    return {"output": _apply(g, values["input"], values)}


def _group_norm_backward(g: GroupNorm, values: Mapping[str, Tensor], weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input and of the weight, from the statistics that are given, whatever they are."""
    x, grad_output = (_to_nchw(values[role]).contiguous() for role in ("input", "grad_output"))
    mean, r = (s.reshape(1, -1).contiguous() for s in values["statistics"].unbind(1))
    extents = (1, g.in_channels, g.in_h * g.in_w, g.groups)
    grad_input, grad_weight, _ = torch.ops.aten.native_group_norm_backward(
        grad_output, x, mean, r, weight, *extents, [True, True, False]
    )
    return _from_nchw(grad_input), grad_weight


def _grad_role(g: Geometry) -> str:
    return "output" if isinstance(g, Add) else "grad_input"


def _grad_input(g: Geometry, values: Mapping[str, Tensor]) -> Tensor:
    if isinstance(g, Add):
        return values["a"] + values["b"]
    if isinstance(g, SoftmaxCrossEntropy):
        label = F.one_hot(values["label"].long(), g.classes).reshape(-1)
        return values["probabilities"] - label
    if isinstance(g, Relu):
        # From the saved output, the only thing that is kept: the gradient passes where it was not clamped.
        y = values["output"]
        passes = (y > 0) & (y < g.maximum) if g.maximum else y > 0
        return values["grad_output"] * passes
    if isinstance(g, GroupNorm):
        return _group_norm_backward(g, values, values["weight"])[0]
    # The remaining kinds are linear in their input, so any point does, or their input is kept.
    x = values["input"] if "input" in values else torch.zeros(g.input_shape, dtype=torch.float64)
    x = x.clone().requires_grad_()
    without_bias = {role: value for role, value in values.items() if role != "bias"}
    y = _apply(g, x, without_bias)
    return torch.autograd.grad(y, x, values["grad_output"].reshape(y.shape))[0]


def _grad_weight(op: Op, values: Mapping[str, np.ndarray], channels: Sequence[int] | None) -> dict[str, np.ndarray]:
    g, results = op.geometry, {}
    grad_output = values["grad_output"]
    if op.trained_channels and isinstance(g, GroupNorm):
        tensors = {role: torch.from_numpy(np.ascontiguousarray(v)) for role, v in values.items()}
        full = _group_norm_backward(g, tensors, torch.ones(g.weight_shape, dtype=torch.float64))[1]
        results["weight_gradient"] = values["weight_gradient"] + full.numpy()[list(_channels(op, channels))]
    elif op.trained_channels:
        weight = torch.zeros(g.weight_shape, dtype=torch.float64, requires_grad=True)  # type: ignore[attr-defined]
        with torch.enable_grad():
            y = _apply(g, torch.from_numpy(np.ascontiguousarray(values["input"])), {"weight": weight})
        full = torch.autograd.grad(y, weight, torch.from_numpy(np.ascontiguousarray(grad_output)).reshape(y.shape))[0]
        index = trained_indices(g, op.trained_axis, _channels(op, channels))
        results["weight_gradient"] = values["weight_gradient"] + full.numpy().reshape(-1)[index]
    if op.trains_bias:
        sums = grad_output.reshape(-1, grad_output.shape[-1]).sum(0)
        results["bias_gradient"] = values["bias_gradient"] + sums[_biases(op, channels)]
    return results


def _update(
    op: Op, values: Mapping[str, np.ndarray], channels: Sequence[int] | None, constants: StepConstants
) -> dict[str, np.ndarray]:
    results: dict[str, np.ndarray] = {}
    parts: list[tuple[str, np.ndarray]] = []
    if op.trained_channels:
        parts.append(("weight", trained_indices(op.geometry, op.trained_axis, _channels(op, channels))))
    if op.trains_bias:
        parts.append(("bias", np.asarray(_biases(op, channels))))
    for name, index in parts:
        whole = values[name].copy()
        gradient = values[f"{name}_gradient"] * constants.gradient_scale
        if op.optimizer == "adam":
            # Kingma and Ba 2015, algorithm 1.
            moment1 = _BETA1 * values[f"{name}_moment1"] + (1 - _BETA1) * gradient
            moment2 = _BETA2 * values[f"{name}_moment2"] + (1 - _BETA2) * gradient**2
            root = np.sqrt(moment2 / constants.bias_correction2)
            change = constants.learning_rate * (moment1 / constants.bias_correction1) / (root + _EPSILON)
            results |= {f"{name}_moment1": moment1, f"{name}_moment2": moment2}
        else:
            change = constants.learning_rate * gradient
        whole.reshape(-1)[index] -= change
        results |= {name: whole, f"{name}_gradient": np.zeros_like(values[f"{name}_gradient"])}
    return results
