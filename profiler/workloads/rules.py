"""Which torch modules, functions and methods become which layer, or vanish, or are refused and why.

A rule is called with (fx node, module or None, shapes of its tensor arguments, shape of its result) and returns a
geometry, or None where the device has nothing to do. It raises :class:`Unsupported` with the reason otherwise.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import fx, nn

from profiler.geometry_norm import GROUP_NORM_EPSILON
from profiler.ops import (
    Add,
    AvgPool2d,
    Conv2d,
    Depthwise,
    Geometry,
    GlobalAvgPool,
    GroupNorm,
    Linear,
    MaxPool2d,
    Relu,
    UpsampleBilinear2d,
)

Shape = tuple[int, ...]
Rule = Callable[[fx.Node, nn.Module | None, Sequence[Shape], Shape], Geometry | None]

#: What a refusal offers instead.
SUPPORTED = (
    "Conv2d, BatchNorm folded into the layer before it, Linear, ReLU, ReLU6, add, AdaptiveAvgPool2d(1) or the mean "
    "over both axes of a map, AvgPool2d, MaxPool2d, GroupNorm, bilinear up-sampling by 2, flatten, Identity, Dropout"
)


class Unsupported(Exception):  # noqa: N818 - control flow inside the lowering, never seen outside
    """No kernel computes this; the text says why, or is empty where nothing like it is known."""


def is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)


def _argument(node: fx.Node, position: int, name: str, default: object = None) -> object:
    """An argument of a function by position or name (position 0 is the tensor)."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, default)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, Sequence) and len(value) == 1:
        return int(value[0]), int(value[0])
    if isinstance(value, Sequence) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise Unsupported(f"{value!r} where one or two numbers are expected")


def _map(shape: Shape) -> tuple[int, int, int]:
    """Height, width and channels of torch's (1, C, H, W)."""
    if len(shape) != 4:
        raise Unsupported(f"its input is not a map but has shape {'x'.join(map(str, shape))}")
    return shape[2], shape[3], shape[1]


def _conv(_: fx.Node, module: nn.Conv2d, shapes: Sequence[Shape], __: Shape) -> Geometry:
    in_h, in_w, in_channels = _map(shapes[0])
    if any(d != 1 for d in module.dilation):
        raise Unsupported(f"dilation {module.dilation}, there is 1")
    if module.padding_mode != "zeros":
        raise Unsupported(f"padding mode {module.padding_mode}, there is zeros")
    kernel = module.kernel_size
    if module.padding == "valid":
        pad = (0, 0)
    elif module.padding == "same":
        if any(k % 2 == 0 for k in kernel):
            raise Unsupported(f"padding 'same' with the even kernel {kernel} is not alike on both sides")
        pad = tuple(k // 2 for k in kernel)
    else:
        pad = _pair(module.padding)
    window = (*kernel, *module.stride, *pad)
    bias = int(module.bias is not None)
    if module.groups > 1 and module.groups == in_channels == module.out_channels:
        return Depthwise(in_h, in_w, in_channels, *window, bias)
    return Conv2d(in_h, in_w, in_channels, module.out_channels, *window, module.groups, bias)


def _linear(_: fx.Node, module: nn.Linear, shapes: Sequence[Shape], __: Shape) -> Geometry:
    if math.prod(shapes[0]) != module.in_features:
        raise Unsupported(f"applied to every row of a tensor of shape {'x'.join(map(str, shapes[0]))}")
    return Linear(module.in_features, module.out_features, int(module.bias is not None))


def _relu_clamped(shape: Shape, maximum: object) -> Geometry:
    whole = isinstance(maximum, int | float) and not math.isinf(maximum) and maximum == int(maximum) and maximum > 0
    if not whole:
        raise Unsupported(f"clamped at {maximum}, there are positive whole numbers")
    return Relu(math.prod(shape), int(maximum))  # type: ignore[call-overload]


def _relu(_: fx.Node, __: nn.Module | None, ___: Sequence[Shape], result: Shape) -> Geometry:
    return Relu(math.prod(result))


def _relu6(_: fx.Node, __: nn.Module | None, ___: Sequence[Shape], result: Shape) -> Geometry:
    return Relu(math.prod(result), 6)


def _hardtanh_module(_: fx.Node, module: nn.Hardtanh, __: Sequence[Shape], result: Shape) -> Geometry:
    if module.min_val != 0:
        raise Unsupported(f"clamped from {module.min_val}, there is 0")
    return _relu_clamped(result, module.max_val)


def _hardtanh(node: fx.Node, _: nn.Module | None, __: Sequence[Shape], result: Shape) -> Geometry:
    if _argument(node, 1, "min_val", -1.0) != 0:
        raise Unsupported("clamped from below 0")
    return _relu_clamped(result, _argument(node, 2, "max_val", 1.0))


def _clamp(node: fx.Node, _: nn.Module | None, __: Sequence[Shape], result: Shape) -> Geometry:
    if _argument(node, 1, "min") != 0:
        raise Unsupported("clamped from another value than 0")
    maximum = _argument(node, 2, "max")
    return Relu(math.prod(result)) if maximum is None else _relu_clamped(result, maximum)


def _add(node: fx.Node, _: nn.Module | None, shapes: Sequence[Shape], result: Shape) -> Geometry:
    if len(shapes) != 2:
        raise Unsupported("of a tensor and a number")
    if node.kwargs.get("alpha", 1) != 1:
        raise Unsupported(f"with alpha {node.kwargs['alpha']}")
    if shapes[0] != shapes[1]:
        raise Unsupported(f"of shapes {'x'.join(map(str, shapes[0]))} and {'x'.join(map(str, shapes[1]))}")
    return Add(math.prod(result))


def _global_pool(shape: Shape) -> Geometry:
    return GlobalAvgPool(*_map(shape))


def _adaptive(output_size: object, shape: Shape) -> Geometry | None:
    if output_size is not None and _pair(output_size) == (1, 1):
        return _global_pool(shape)
    raise Unsupported(f"to {output_size}, there is 1")


def _adaptive_module(_: fx.Node, module: nn.AdaptiveAvgPool2d, shapes: Sequence[Shape], __: Shape) -> Geometry | None:
    return _adaptive(module.output_size, shapes[0])


def _adaptive_function(node: fx.Node, _: nn.Module | None, shapes: Sequence[Shape], __: Shape) -> Geometry | None:
    return _adaptive(_argument(node, 1, "output_size"), shapes[0])


def _axes(node: fx.Node) -> tuple[int, ...] | None:
    dim = _argument(node, 1, "dim")
    if dim is None or (_argument(node, 3, "dtype") is not None):
        return None
    dims = dim if isinstance(dim, Sequence) else [dim]
    return tuple(int(d) for d in dims)


def _mean(node: fx.Node, _: nn.Module | None, shapes: Sequence[Shape], __: Shape) -> Geometry | None:
    axes = _axes(node)
    rank = len(shapes[0])
    if axes is not None and rank == 4:
        positive = sorted(d % 4 for d in axes)
        if positive == [2, 3]:
            return _global_pool(shapes[0])
        if len(positive) == 1 and positive[0] in (2, 3) and _second_half(node, positive[0]):
            return None  # the second of the two means computes both
    if axes is not None and len(axes) == 1 and isinstance(node.args[0], fx.Node):
        before = node.args[0].meta["tensor_meta"].shape
        first = node.args[0]
        if first.target in (torch.mean, "mean") and _first_half(first) and axes[0] % len(before) in (2, 3):
            return _global_pool(tuple(first.args[0].meta["tensor_meta"].shape))
    raise Unsupported(f"over {axes}, there is the mean over both axes of a map")


def _first_half(node: fx.Node) -> bool:
    axes = _axes(node)
    source = node.args[0]
    return (
        axes is not None
        and len(axes) == 1
        and isinstance(source, fx.Node)
        and len(source.meta["tensor_meta"].shape) == 4
        and axes[0] % 4 in (2, 3)
        and _second_half(node, axes[0] % 4)
    )


def _second_half(node: fx.Node, axis: int) -> bool:
    """Whether the mean of ``node`` over ``axis`` of a map is read only by the mean over the map's other axis."""
    users = list(node.users)
    if len(users) != 1 or users[0].target not in (torch.mean, "mean"):
        return False
    axes = _axes(users[0])
    rank = len(node.meta["tensor_meta"].shape)
    if axes is None or len(axes) != 1:
        return False
    other = axes[0] % rank
    # Without keepdim the axes after the first mean's have moved down by one.
    if rank == 3 and axis == 2 and other == 2:
        other = 3
    return other != axis and other in (2, 3)


def _pool(
    cls: type[AvgPool2d] | type[MaxPool2d], shape: Shape, kernel: object, stride: object, padding: object
) -> Geometry:
    kernel_size = _pair(kernel)
    # torch takes an empty or missing stride for the kernel's extent.
    stride_size = _pair(stride) if stride not in (None, [], ()) else kernel_size
    return cls(*_map(shape), *kernel_size, *stride_size, *_pair(padding))


def _check_average(ceil_mode: object, count_include_pad: object, divisor: object, padding: object) -> None:
    if ceil_mode:
        raise Unsupported("with ceil_mode")
    if not count_include_pad and _pair(padding) != (0, 0):
        raise Unsupported("with padding that does not count")
    if divisor is not None:
        raise Unsupported("with divisor_override")


def _avg_module(_: fx.Node, m: nn.AvgPool2d, shapes: Sequence[Shape], __: Shape) -> Geometry:
    _check_average(m.ceil_mode, m.count_include_pad, m.divisor_override, m.padding)
    return _pool(AvgPool2d, shapes[0], m.kernel_size, m.stride, m.padding)


def _avg_function(node: fx.Node, _: nn.Module | None, shapes: Sequence[Shape], __: Shape) -> Geometry:
    padding = _argument(node, 3, "padding", 0)
    _check_average(
        _argument(node, 4, "ceil_mode", False),
        _argument(node, 5, "count_include_pad", True),
        _argument(node, 6, "divisor_override"),
        padding,
    )
    return _pool(AvgPool2d, shapes[0], _argument(node, 1, "kernel_size"), _argument(node, 2, "stride"), padding)


def _check_maximum(dilation: object, ceil_mode: object, return_indices: object) -> None:
    if _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        raise Unsupported("with dilation, ceil_mode or indices")


def _max_module(_: fx.Node, m: nn.MaxPool2d, shapes: Sequence[Shape], __: Shape) -> Geometry:
    _check_maximum(m.dilation, m.ceil_mode, m.return_indices)
    return _pool(MaxPool2d, shapes[0], m.kernel_size, m.stride, m.padding)


def _max_function(node: fx.Node, _: nn.Module | None, shapes: Sequence[Shape], __: Shape) -> Geometry:
    _check_maximum(
        _argument(node, 4, "dilation", 1), _argument(node, 5, "ceil_mode", False), node.kwargs.get("return_indices")
    )
    return _pool(
        MaxPool2d,
        shapes[0],
        _argument(node, 1, "kernel_size"),
        _argument(node, 2, "stride"),
        _argument(node, 3, "padding", 0),
    )


def _group_norm(_: fx.Node, module: nn.GroupNorm, shapes: Sequence[Shape], __: Shape) -> Geometry:
    if not module.affine:
        raise Unsupported("without scale and shift")
    if module.eps != GROUP_NORM_EPSILON:
        raise Unsupported(f"with eps {module.eps}, there is {GROUP_NORM_EPSILON}")
    return GroupNorm(*_map(shapes[0]), module.num_groups, int(module.bias is not None))


def _upsample(mode: object, align_corners: object, antialias: object, shape: Shape, result: Shape) -> Geometry:
    in_h, in_w, channels = _map(shape)
    if mode != "bilinear" or align_corners or antialias:
        extras = [name for name, value in (("aligned corners", align_corners), ("antialias", antialias)) if value]
        raise Unsupported(f"{' with '.join([str(mode), *extras])}, there is bilinear")
    if tuple(result[2:]) != (2 * in_h, 2 * in_w):
        raise Unsupported(f"from {in_h}x{in_w} to {result[2]}x{result[3]}, there is twice height and width")
    return UpsampleBilinear2d(in_h, in_w, channels)


def _upsample_module(_: fx.Node, module: nn.Upsample, shapes: Sequence[Shape], result: Shape) -> Geometry:
    return _upsample(module.mode, module.align_corners, False, shapes[0], result)


def _interpolate(node: fx.Node, _: nn.Module | None, shapes: Sequence[Shape], result: Shape) -> Geometry:
    return _upsample(
        _argument(node, 3, "mode", "nearest"),
        _argument(node, 4, "align_corners"),
        _argument(node, 6, "antialias", False),
        shapes[0],
        result,
    )


def _nothing(_: fx.Node, __: nn.Module | None, ___: Sequence[Shape], ____: Shape) -> None:
    return None


def _reshape(_: fx.Node, __: nn.Module | None, shapes: Sequence[Shape], result: Shape) -> None:
    """Flattening and squeezing to a vector only renames memory; any other reshape would move channels."""
    to_vector = max(result, default=1) == math.prod(result)
    if not (to_vector or result == shapes[0]):
        raise Unsupported(f"to {'x'.join(map(str, result))}, there is flattening to a vector")


MODULE_RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.ReLU: _relu,
    nn.ReLU6: _relu6,
    nn.Hardtanh: _hardtanh_module,
    nn.AdaptiveAvgPool2d: _adaptive_module,
    nn.AvgPool2d: _avg_module,
    nn.MaxPool2d: _max_module,
    nn.GroupNorm: _group_norm,
    nn.Upsample: _upsample_module,
    nn.UpsamplingBilinear2d: _upsample_module,
    nn.Flatten: _reshape,
    nn.Unflatten: _reshape,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Dropout1d: _nothing,
    nn.Dropout2d: _nothing,
}

FUNCTION_RULES: dict[object, Rule] = {
    F.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu,
    F.relu_: _relu,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    torch.clamp: _clamp,
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    torch.mean: _mean,
    F.adaptive_avg_pool2d: _adaptive_function,
    F.avg_pool2d: _avg_function,
    torch.flatten: _reshape,
    torch.reshape: _reshape,
    torch.squeeze: _reshape,
    F.max_pool2d: _max_function,
    torch.max_pool2d: _max_function,
    F.interpolate: _interpolate,
    F.dropout: _nothing,
}

METHOD_RULES: dict[str, Rule] = {
    "relu": _relu,
    "relu_": _relu,
    "clamp": _clamp,
    "clamp_": _clamp,
    "add": _add,
    "add_": _add,
    "mean": _mean,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    "squeeze": _reshape,
    "contiguous": _nothing,
}
