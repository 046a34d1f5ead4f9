"""What ops of dtype ``s8`` write: integers by TensorFlow Lite's rules, exactly, and float32 gradients in float64.

The rules stand in ``firmware/kernels/kernels.h``. Sums of int8 products are exact in float64, so torch computes them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from profiler.geometry_s8 import MaskSource
from profiler.ops import (
    Add,
    AvgPool2d,
    Conv2d,
    Depthwise,
    Dequantize,
    FusedConv2d,
    Geometry,
    GlobalAvgPool,
    Linear,
    MaxPool2d,
    Op,
    Pass,
    PointwiseDepthwise,
    Quantization,
    Requantize,
    SaturationMask,
)
from profiler.workloads.entries import StepConstants

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
#: A change of a parameter is limited to this many integers.
_LARGEST_CHANGE = float(1 << 22)
#: Bits of fraction that the terms of a sum get.
_ADD_FRACTION_BITS = 20

Arrays = Mapping[str, np.ndarray]
Results = dict[str, np.ndarray]


def rescale(values: np.ndarray, multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """``values * multiplier * 2^(shift - 31)``, rounded twice as TensorFlow Lite does (MultiplyByQuantizedMultiplier).

    Args:
        values: int32 accumulators of any shape, in any integer-valued type.
        multiplier: 0 to 2^31 - 1, of a shape that broadcasts.
        shift: -31 to 0, likewise.

    Returns:
        int64 array.
    """
    values, multiplier, right = values.astype(np.int64), multiplier.astype(np.int64), -shift.astype(np.int64)
    high = (values * multiplier + (1 << 30)) >> 31
    mask = (np.int64(1) << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def requantized(accumulators: np.ndarray, pairs: np.ndarray, q: Quantization) -> np.ndarray:
    """Accumulators of shape (..., channels) to outputs.

    Args:
        pairs: Multiplier and shift of every channel, of shape (channels, 2).
    """
    values = rescale(accumulators, pairs[:, 0], pairs[:, 1]) + q.output_zero_point
    return values.clip(q.activation_min, q.activation_max)


def op_reference_s8(
    op: Op, inputs: Arrays, quantization: Quantization, constants: StepConstants | None = None
) -> Results:
    """What one op writes.

    Args:
        op: An op of dtype ``s8``.
        inputs: Role to values for every buffer that the op reads, of the buffer's shape.
        quantization: The op's scalars.
        constants: Of the optimiser; needed for ``update``.

    Returns:
        Role to float64 array for every buffer that the op writes, of the buffer's shape; integers are exact.
    """
    results = _results(op, inputs, quantization, constants)
    shapes = {spec.role: spec.shape for spec in op.buffers()}
    return {role: np.asarray(values, np.float64).reshape(shapes[role]) for role, values in results.items()}


def _results(op: Op, b: Arrays, q: Quantization, constants: StepConstants | None) -> Results:
    g = op.geometry
    if isinstance(g, FusedConv2d):
        assert constants is not None
        return _fused(op, b, q, constants)
    if isinstance(g, Conv2d | Depthwise | Linear):
        if op.pass_ is Pass.FORWARD:
            sums = _linear_map(g, b["input"] - q.input_zero_point, whole_weight(op, b)) + b.get("bias", 0)
            return {"output": requantized(sums, b["requantization"], q)}
        if op.pass_ is Pass.GRAD_INPUT:
            return {"grad_input": _gradients(g, np.zeros(g.input_shape), whole_weight(op, b), b["grad_output"])[0]}
        if op.pass_ is Pass.GRAD_WEIGHT:
            return _accumulated(op, b, q)
        assert constants is not None
        return _update(op, b, constants)
    if isinstance(g, PointwiseDepthwise):
        return {"output": _pointwise_depthwise(g, b, q)}
    if isinstance(g, Add):
        return {"output": _add(b, q)}
    if isinstance(g, Requantize):
        kept = _mask(g, b, q)
        return {"grad_input": b["grad_output"] * b["scale"] * kept}
    if isinstance(g, SaturationMask):
        inside = (b["input"] > q.activation_min) & (b["input"] < q.activation_max)
        return {"mask": np.packbits(inside, bitorder="little")}
    if isinstance(g, Dequantize):
        if op.pass_ is Pass.FORWARD:
            return {"output": b["scale"] * (b["input"] - q.input_zero_point)}
        return {"grad_input": b["grad_output"] * b["scale"]}
    return {"output": _pooled(g, b["input"]).clip(q.activation_min, q.activation_max)}


def whole_weight(op: Op, buffers: Arrays) -> np.ndarray:
    """The layer's weights, put together from their segments."""
    g = op.geometry
    segments = [buffers[role] for role in ("trained_weight", "weight") if role in buffers]
    axis = 0 if op.trained_axis == "out" else -1
    if isinstance(g, Depthwise):
        axis = -1
    return np.concatenate(segments, axis=axis) if len(segments) > 1 else segments[0]


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _apply(g: Geometry, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(g, Linear):
        return weight.reshape(g.weight_shape) @ x.reshape(-1)
    nchw = x.permute(2, 0, 1).unsqueeze(0).contiguous()
    window = {"stride": (g.stride_h, g.stride_w), "padding": (g.pad_h, g.pad_w)}  # type: ignore[attr-defined]
    if isinstance(g, Depthwise):
        filters = weight.permute(2, 0, 1).unsqueeze(1).contiguous()
        y = F.conv2d(nchw, filters, groups=g.in_channels, **window)
    else:
        assert isinstance(g, Conv2d)
        y = F.conv2d(nchw, weight.permute(0, 3, 1, 2).contiguous(), groups=g.groups, **window)
    return y.squeeze(0).permute(1, 2, 0)


def _linear_map(g: Geometry, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.rint(_apply(g, _tensor(x), _tensor(weight)).numpy())  # integers, whatever way torch computes them


def _gradients(g: Geometry, x: np.ndarray, weight: np.ndarray, grad_output: np.ndarray) -> list[np.ndarray]:
    """Towards input and weight."""
    with torch.enable_grad():
        leaves = [_tensor(x).requires_grad_(), _tensor(weight).requires_grad_()]
        y = _apply(g, *leaves)
    return [grad.numpy() for grad in torch.autograd.grad(y, leaves, _tensor(grad_output).reshape(y.shape))]


def _weight_gradient(op: Op, b: Arrays, q: Quantization) -> np.ndarray:
    """Of the trained weights, compact."""
    g, k = op.geometry, op.trained_channels
    shape = g.weight_shape  # type: ignore[attr-defined]
    whole = _gradients(g, b["input"] - q.input_zero_point, np.zeros(shape), b["grad_output"])[1]
    return whole[:k] if op.trained_axis == "out" and not isinstance(g, Depthwise) else whole[..., :k]


def _bias_gradient(op: Op, grad_output: np.ndarray) -> np.ndarray:
    return grad_output.reshape(-1, grad_output.shape[-1]).sum(0)[: op.trained_biases]


def _accumulated(op: Op, b: Arrays, q: Quantization) -> Results:
    results = {}
    if op.trained_channels:
        results["weight_gradient"] = b["weight_gradient"] + _weight_gradient(op, b, q)
    if op.trains_bias:
        results["bias_gradient"] = b["bias_gradient"] + _bias_gradient(op, b["grad_output"])
    return results


def _scale_of(op: Op, scales: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Every trained weight's scale, of the compact shape."""
    g = op.geometry
    channels = scales[1:][: shape[-1] if isinstance(g, Depthwise) else shape[0]]
    if isinstance(g, Depthwise):
        return np.broadcast_to(channels, shape)
    return np.broadcast_to(channels.reshape(-1, *[1] * (len(shape) - 1)), shape)


def _changed(op: Op, b: Arrays, name: str, scale: np.ndarray, c: StepConstants) -> tuple[np.ndarray, Results]:
    """Change of the integers of these scales, and the new moments.

    In float32 and in the firmware's order for sgd, since a change of half an integer goes one way or the other by its
    last bit.
    """
    gradient = b[f"{name}_gradient"]
    inverse = np.float32(1) / scale.astype(np.float32)
    if op.optimizer == "sgd":
        rate = np.float32(c.learning_rate) * np.float32(c.gradient_scale)
        change = rate * gradient.astype(np.float32) * inverse * inverse
        return change, {}
    real = gradient * c.gradient_scale * inverse
    moment1 = _BETA1 * b[f"{name}_moment1"] + (1 - _BETA1) * real
    moment2 = _BETA2 * b[f"{name}_moment2"] + (1 - _BETA2) * real**2
    root = np.sqrt(moment2 / c.bias_correction2) + _EPSILON
    change = c.learning_rate * (moment1 / c.bias_correction1) / root * inverse
    return change, {f"{name}_moment1": moment1, f"{name}_moment2": moment2}


def _rounded(change: np.ndarray) -> np.ndarray:
    return np.rint(change.clip(-_LARGEST_CHANGE, _LARGEST_CHANGE)).astype(np.float64)


def _new_weights(weights: np.ndarray, change: np.ndarray) -> np.ndarray:
    return (weights - _rounded(change)).clip(-127, 127)


def _update(op: Op, b: Arrays, c: StepConstants) -> Results:
    results: Results = {}
    scales = b["scales"].astype(np.float32)
    if op.trained_channels:
        weights, gradient = b["trained_weight"], b["weight_gradient"]
        change, moments = _changed(op, b, "weight", _scale_of(op, scales, weights.shape), c)
        results |= {"trained_weight": _new_weights(weights, change), "weight_gradient": 0 * gradient, **moments}
    if op.trains_bias:
        gradient = b["bias_gradient"]
        scale = scales[1 : 1 + gradient.size] * scales[0]
        change, moments = _changed(op, b, "bias", scale, c)
        bias = b["bias"].astype(np.float64)
        bias[: gradient.size] -= _rounded(change)
        results |= {"bias": bias, "bias_gradient": 0 * gradient, **moments}
    return results


def _fused(op: Op, b: Arrays, q: Quantization, c: StepConstants) -> Results:
    gradients = {}
    if op.trained_channels:
        gradients["weight_gradient"] = _weight_gradient(op, b, q)
    if op.trains_bias:
        gradients["bias_gradient"] = _bias_gradient(op, b["grad_output"])
    updated = _update(op, {**b, **gradients}, c)
    return {role: values for role, values in updated.items() if role not in gradients}


def _pointwise_depthwise(g: PointwiseDepthwise, b: Arrays, q: Quantization) -> np.ndarray:
    between = Quantization(q.input_zero_point, q.second_zero_point, q.second_min, q.second_max)
    sums = _linear_map(g.pointwise, b["input"] - q.input_zero_point, b["weight"]) + b.get("bias", 0)
    middle = requantized(sums, b["requantization"], between)
    sums = _linear_map(g.depthwise, middle - q.second_zero_point, b["depthwise_weight"]) + b.get("depthwise_bias", 0)
    return requantized(sums, b["depthwise_requantization"], q)


def _add(b: Arrays, q: Quantization) -> np.ndarray:
    pairs = b["requantization"]
    terms = (
        rescale((b[name] - zero).astype(np.int64) << _ADD_FRACTION_BITS, pairs[i, :1], pairs[i, 1:])
        for i, (name, zero) in enumerate((("a", q.input_zero_point), ("b", q.second_zero_point)))
    )
    values = rescale(sum(terms), pairs[2, :1], pairs[2, 1:]) + q.output_zero_point  # type: ignore[arg-type]
    return values.clip(q.activation_min, q.activation_max)


def _mask(g: Requantize, b: Arrays, q: Quantization) -> np.ndarray:
    if g.mask == MaskSource.NONE:
        return np.ones(g.output_shape)
    if g.mask == MaskSource.OUTPUT:
        return (b["output"] > q.activation_min) & (b["output"] < q.activation_max)
    bits = np.unpackbits(b["mask"].astype(np.uint8), bitorder="little")
    return bits[: g.positions * g.channels].reshape(g.output_shape)


def _pooled(g: Geometry, x: np.ndarray) -> np.ndarray:
    if isinstance(g, GlobalAvgPool):
        return _half_away(x.reshape(-1, x.shape[-1]).sum(0), x.shape[0] * x.shape[1])
    assert isinstance(g, AvgPool2d | MaxPool2d)
    nchw = _tensor(x).permute(2, 0, 1).unsqueeze(0)
    window = ((g.kernel_h, g.kernel_w), (g.stride_h, g.stride_w), (g.pad_h, g.pad_w))
    if isinstance(g, MaxPool2d):
        return F.max_pool2d(nchw, *window).squeeze(0).permute(1, 2, 0).numpy()
    area = g.kernel_h * g.kernel_w
    sums, counts = (np.rint(F.avg_pool2d(t, *window).numpy() * area) for t in (nchw, torch.ones_like(nchw)))
    return _half_away(sums[0].transpose(1, 2, 0), counts[0].transpose(1, 2, 0))


def _half_away(sums: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    return np.sign(sums) * ((np.abs(sums) + np.asarray(counts) // 2) // counts)
