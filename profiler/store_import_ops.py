"""Ops of the rows of somebody else's table: columns as ``profile export`` names them, with what they may leave out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from profiler.geometry import Geometry, Window
from profiler.ops import GEOMETRIES, Depthwise, Op, Pass
from profiler.store_import_files import BadRowError, bad_cell

#: What others call our data types.
DTYPES = {"float32": "f32", "fp32": "f32", "float": "f32", "int8": "s8", "i8": "s8"}
#: Columns that may stand beside a geometry's own: what follows from it, and what it cannot have.
_DERIVED = ("out_h", "out_w", "out_channels")
_DILATIONS = ("dilation", "dilation_h", "dilation_w")
#: Every column that :func:`op_of` looks at.
READ_COLUMNS = frozenset(
    {field.name for cls in GEOMETRIES.values() for field in dataclasses.fields(cls)}
    | {"op_key", "kind", "pass", "dtype", "variant", "trained_channels", "trained_axis", "trains_bias", "optimizer"}
    | {*_DERIVED, *_DILATIONS}
)

#: The largest size that the kernels' work counts know.
MOST_SIZE = 2**31 - 1

_YES_AND_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def whole(column: str, text: str, least: int = 0) -> int:
    """A cell as a whole number of at least ``least``; ``8.0`` is one.

    Raises:
        BadRowError: it is none.
    """
    try:
        number = float(text) if not text.lstrip("-").isdecimal() else int(text)
        value = int(number)
    except (ValueError, OverflowError):
        value, number = 0, 0.5
    if value != number:
        raise bad_cell(column, text, "missing" if text == "" else "it is no whole number")
    if value < least:
        raise bad_cell(column, text, f"it is less than {least}")
    if value >= 2**63:
        raise bad_cell(column, text, "it is too large")
    return value


def op_of(cells: Mapping[str, str]) -> Op:
    """The op that a row was measured of.

    Left out may be: ``pass`` (forward), ``dtype`` (f32), ``variant`` (blocked), strides and groups (1), ``has_bias``
    (1), and padding where the output's size is there. Of ``grad_weight`` and ``update`` all output channels train,
    and the bias with them where the layer has one, unless the row says otherwise; the optimiser is ``sgd``. ``same``
    and ``valid`` are padding too. Columns that the kind has not are passed over.

    Raises:
        BadRowError: it is no valid op, or its columns contradict each other.
    """
    kind = cells.get("kind", "")
    if kind not in GEOMETRIES:
        raise bad_cell("kind", kind, "missing" if kind == "" else "no kind of op is called so here")
    geometry = _geometry(GEOMETRIES[kind], cells)
    _check_derived(geometry, cells)
    pass_ = cells.get("pass", "") or Pass.FORWARD
    if pass_ not in set(Pass):
        raise bad_cell("pass", pass_, f"there are {', '.join(Pass)}")
    dtype = cells.get("dtype", "")
    trained = _trained(geometry, Pass(pass_), cells)
    try:
        op = Op(
            geometry,
            Pass(pass_),
            dtype=DTYPES.get(dtype.lower(), dtype) or "f32",
            variant=cells.get("variant", "") or "blocked",
            optimizer=cells.get("optimizer", "") or "sgd",  # type: ignore[arg-type]
            **trained,
        )
    except ValueError as error:
        raise BadRowError(str(error)) from None
    if cells.get("op_key", op.key) not in ("", op.key):
        raise bad_cell("op_key", cells["op_key"], f"the other columns are {op.key}")
    return op


def _geometry(cls: type[Geometry], cells: Mapping[str, str]) -> Geometry:
    for name in _DILATIONS:
        if cells.get(name, "") and whole(name, cells[name], 1) != 1:
            raise bad_cell(name, cells[name], "windows are dilated by 1 here")
    values: dict[str, int] = {}
    for field in dataclasses.fields(cls):
        name, text = field.name, cells.get(field.name, "")
        if name.startswith("pad_"):
            continue
        if name.startswith("has_") and text.lower() in _YES_AND_NO:
            values[name] = int(_YES_AND_NO[text.lower()])
        elif text:
            values[name] = whole(name, text)
            if values[name] > MOST_SIZE:
                raise bad_cell(name, text, f"no op is larger than {MOST_SIZE:,}")
        elif field.default is dataclasses.MISSING or _other_axis(name, cells):
            raise bad_cell(name, "", "missing")
    if issubclass(cls, Window):
        for axis in "hw":
            values[f"pad_{axis}"] = _padding(axis, values, cells)
    try:
        return cls(**values)
    except ValueError as error:
        raise BadRowError(str(error)) from None


def _other_axis(name: str, cells: Mapping[str, str]) -> bool:
    """Whether the same is said of the other axis: a stride of 2 by nothing is not one of 2 by 1."""
    other = {"h": "w", "w": "h"}.get(name[-1]) if name[-2:-1] == "_" else None
    return other is not None and cells.get(name[:-1] + other, "") != ""


def _padding(axis: str, values: Mapping[str, int], cells: Mapping[str, str]) -> int:
    """Zeros on each side, stated or from the output's size."""
    name, out_name = f"pad_{axis}", f"out_{axis}"
    text, out_text = cells.get(name, "").lower(), cells.get(out_name, "")
    if text == "valid":
        return 0
    if text and text != "same":
        return whole(name, text)
    size, kernel, stride = values[f"in_{axis}"], values[f"kernel_{axis}"], values.get(f"stride_{axis}", 1)
    if stride < 1:
        raise bad_cell(f"stride_{axis}", str(stride), "it is less than 1")
    if text == "same":
        out = -(-size // stride)
    elif out_text:
        out = whole(out_name, out_text, 1)
    else:
        raise BadRowError(f"{name} is missing, and so is {out_name}, which it could be derived from")
    pad = max(0, -(-((out - 1) * stride + kernel - size) // 2))
    if (size + 2 * pad - kernel) // stride + 1 != out:
        raise bad_cell(
            out_name if out_text else name,
            out_text or text,
            f"no padding that is alike on both sides makes {out} of {size} with a kernel of {kernel} and a stride of "
            f"{stride}",
        )
    return pad


def _check_derived(geometry: Geometry, cells: Mapping[str, str]) -> None:
    """Raise BadRowError where a row says other output sizes than follow from its geometry."""
    if not hasattr(geometry, "in_h"):
        return
    shape = geometry.output_shape
    sizes = dict(zip(_DERIVED, shape if len(shape) == 3 else (1, 1, *shape), strict=True))
    for name, size in sizes.items():
        text = cells.get(name, "")
        if text and whole(name, text) != size:
            raise bad_cell(name, text, f"{size} follows from the other columns")
    groups = cells.get("groups", "")
    if isinstance(geometry, Depthwise) and groups and whole("groups", groups) not in (1, geometry.in_channels):
        raise bad_cell("groups", groups, f"a depthwise convolution of {geometry.in_channels} channels has as many")


def _trained(geometry: Geometry, pass_: Pass, cells: Mapping[str, str]) -> dict[str, int | str | bool]:
    channels, axis, bias = (cells.get(name, "") for name in ("trained_channels", "trained_axis", "trains_bias"))
    axis = axis or "out"
    if axis not in ("out", "in"):
        raise bad_cell("trained_axis", axis, "it is out or in")
    if bias and bias.lower() not in _YES_AND_NO:
        raise bad_cell("trains_bias", bias, "it is true or false")
    trained: dict[str, int | str | bool] = {"trained_axis": axis}
    if channels:
        trained["trained_channels"] = whole("trained_channels", channels)
    if bias:
        trained["trains_bias"] = _YES_AND_NO[bias.lower()]
    if geometry.trainable and pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE):
        trained.setdefault("trained_channels", geometry.channels(axis))  # type: ignore[attr-defined]
        trained.setdefault("trains_bias", bool(geometry.bias_elements))  # type: ignore[attr-defined]
    return trained
