"""Weights as float tensors by parameter name, from the published int8 files and from the embedded one.

The published file is a pickle: a dict of ``first_conv``, ``blocks`` and ``classifier``, each convolution with its
geometry and int8 weights. It is read by torch's restricted unpickler, which is told of numpy's own array types and of
nothing else, so that a file from a stranger cannot run code.

Dequantised: weight = int8 weight × ``w_scales`` of its output channel, bias = int32 bias × ``x_scale`` × ``w_scales``.
Batch normalisation is folded in already.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar
from torch import Tensor

from profiler.errors import UserError
from tinytrain import files
from tinytrain.backbones import GEOMETRIES, create

_SAFE_TYPES = [
    *[(f, f"{module}.{f.__name__}") for f in (_reconstruct, scalar) for module in
      ("numpy._core.multiarray", "numpy.core.multiarray")],  # the module's name before and after numpy 2
    np.ndarray,
    np.dtype,
    *[value for key, value in vars(np.dtypes).items() if key.endswith("DType")],
]  # fmt: skip


def read_pickle(path: Path, name: str) -> dict[str, Tensor]:
    """Read a published int8 weight file of backbone ``name``, classifier included.

    Returns:
        Float tensors by parameter name of :class:`tinytrain.backbones.Backbone`.

    Raises:
        UserError: no such file, not such a file, or one whose geometry is not the backbone's.
    """
    try:
        with torch.serialization.safe_globals(_SAFE_TYPES):
            record = torch.load(path, weights_only=True)
        found, tensors = _geometry(record), {}
        for layer, conv in _layers(record):
            tensors |= _dequantised(layer, conv)
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(
            f"cannot read the weights {path}: {error.strerror}", hint="give --data DIR with a folder weights/ in it"
        ) from None
    except Exception as error:  # a damaged pickle makes its reader raise anything
        raise UserError(
            f"{path} is no int8 weight file of mit-han-lab/tiny-training ({files.reason(error)})",
            hint="fetch the file again",
        ) from None
    wanted = _expected_geometry(name)
    for layer, shape in wanted.items():
        if found.get(layer) != shape:
            raise UserError(
                f"{path} does not hold {name}: {layer} should be (in, out, kernel, stride) {shape}, "
                f"found {found.get(layer, 'nothing')}",
                hint="give the weight file that belongs to this backbone",
            )
    if extra := set(found) - set(wanted):
        raise UserError(
            f"{path} does not hold {name}: it has a layer {sorted(extra)[0]} too many",
            hint="give the weight file that belongs to this backbone",
        )
    return tensors


def read_npz(path: Path) -> dict[str, Tensor]:
    """Read :func:`write_npz`'s or :func:`write_half`'s file as float32.

    Raises:
        UserError: no such file, or not such a file.
    """
    tensors = {}
    try:
        arrays = files.read_arrays(path)
        for key, array in arrays.items():
            value = array.astype(np.float32)
            scale = arrays.get(key.removesuffix("weight") + "scale") if key.endswith(".weight") else None
            if scale is not None:
                value = value * scale.reshape(-1, *[1] * (value.ndim - 1))
            if not key.endswith(".scale"):
                tensors[key] = torch.from_numpy(value)
        if not tensors:
            raise ValueError("it is empty")
    except OSError as error:
        raise UserError(f"cannot read the weights {path}: {error.strerror}", hint="look for the file") from None
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is no weight file ({files.reason(error)})", hint="give one that meta-train wrote"
        ) from None
    return tensors


def write_half(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write weights and biases as float16: two bytes each, about 1e-3 of each value off."""
    _write(path, {key: value.detach().numpy().astype(np.float16) for key, value in tensors.items()})


def write_npz(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write weights as int8 with one float32 scale an output channel, biases as float32: about a byte a weight."""
    arrays = {}
    for key, tensor in tensors.items():
        value = tensor.detach().numpy()
        if key.endswith(".weight"):
            peak = np.abs(value).reshape(len(value), -1).max(1)
            scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
            arrays[key] = np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1))).astype(np.int8)
            arrays[key.removesuffix("weight") + "scale"] = scale
        else:
            arrays[key] = value.astype(np.float32)
    _write(path, arrays)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    files.write_whole(path, content.getbuffer())


def _layers(record: dict) -> list[tuple[str, dict]]:
    layers = [("first_conv", record["first_conv"])]
    for index, block in enumerate(record["blocks"]):
        parts = ("pointwise1", "depthwise", "pointwise2")
        layers += [(f"blocks.{index}.{part}", block[part]) for part in parts if block[part]]
    return [*layers, ("classifier", record["classifier"])]


def _geometry(record: dict) -> dict[str, tuple[int, int, int, int]]:
    return {
        layer: (conv["in_channel"], conv["out_channel"], conv["kernel_size"][0], conv["stride"])
        for layer, conv in _layers(record)
        if layer != "classifier"
    }


def _expected_geometry(name: str) -> dict[str, tuple[int, int, int, int]]:
    if name not in GEOMETRIES:
        raise UserError(f"there is no backbone {name!r}", hint=f"take one of {', '.join(GEOMETRIES)}")
    return {
        layer: (conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0])
        for layer, conv in create(name).named_modules()
        if isinstance(conv, torch.nn.Conv2d)
    }


def _dequantised(layer: str, conv: dict) -> dict[str, Tensor]:
    params = conv["params"]
    scales = np.asarray(params["w_scales"], np.float64)
    weight = params["weight"] * scales.reshape(-1, 1, 1, 1)
    bias = params["bias"] * (float(params["x_scale"]) * scales)
    if layer == "classifier":  # a 1×1 convolution in the file
        weight = weight.reshape(len(scales), -1)
    return {
        f"{layer}.weight": torch.from_numpy(weight.astype(np.float32)),
        f"{layer}.bias": torch.from_numpy(bias.astype(np.float32)),
    }
