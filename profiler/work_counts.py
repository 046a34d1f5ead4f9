"""Work counts of many ops of one kernel: what :func:`profiler.kernels.work` gives, without an object for each op."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter

import numpy as np

from profiler.kernels import WORK_MAX_TERMS, COp, library, work, work_terms
from profiler.ops import AXIS_CODES, DTYPE_CODES, OPTIMIZER_CODES, PASS_CODES, VARIANT_CODES, Op, Quantization

_TRAINED: type[ctypes.Structure] = dict(COp._fields_)["trained"]  # type: ignore[assignment]


def _record() -> np.dtype:
    """``op_t`` without its geometry, which the firmware fills in, and its channels: the first so many train."""
    at = COp.trained.offset
    places = {
        "kind": ("u1", COp.kind.offset),
        "pass": ("u1", COp.pass_.offset),
        "dtype": ("u1", COp.dtype.offset),
        "variant": ("u1", COp.variant.offset),
        "channel_count": ("u2", at + _TRAINED.channel_count.offset),
        "axis": ("u1", at + _TRAINED.axis.offset),
        "bias": ("u1", at + _TRAINED.bias.offset),
        "optimizer": ("u1", at + _TRAINED.optimizer.offset),
        "quantization": (("i1", len(fields(Quantization))), COp.quantization.offset),
    }
    formats, offsets = zip(*places.values(), strict=True)
    return np.dtype(
        {"names": list(places), "formats": formats, "offsets": offsets, "itemsize": ctypes.sizeof(COp)}  # type: ignore[call-overload]
    )


_RECORD = _record()
# Addresses instead of objects: three calls an op are most of what is left to do.
_SET_GEOMETRY = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_VALID = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


def work_counts(ops: Sequence[Op]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the counts of one kernel, in its order, and the counts of each op.

    Args:
        ops: At least one, all of one kind, pass, dtype and variant.

    Returns:
        The names and a float64 array of shape (n_ops, n_counts).

    Raises:
        ValueError: the firmware has no such kernel or takes no such op, or the ops have different kernels.
    """
    first = ops[0]
    names = work_terms(first)
    kernels = {(op.kind, op.pass_, op.dtype, op.variant) for op in ops}
    if len(kernels) > 1:
        raise ValueError(f"the ops have different kernels: {sorted(map(str, kernels))}")
    records, values = _records(ops), _geometry_values(ops)
    counts = np.zeros((len(ops), WORK_MAX_TERMS), dtype=np.uint64)
    loaded = library()
    kernel = loaded.kernel_find(*(int(records[name][0]) for name in ("kind", "pass", "dtype", "variant"))).contents
    set_geometry, valid = _SET_GEOMETRY(("op_set_geometry", loaded)), _VALID(("op_valid", loaded))
    count = _WORK(ctypes.cast(kernel.work, ctypes.c_void_p).value)
    record, of_op, result = (array.ctypes.data for array in (records, values, counts))
    for op in ops:
        if not (set_geometry(record, of_op, values.shape[1]) and valid(record)):
            work(op)  # says what is wrong with it
        count(record, result)
        record, of_op, result = record + records.strides[0], of_op + values.strides[0], result + counts.strides[0]
    return names, counts[:, : len(names)].astype(np.float64)


def _records(ops: Sequence[Op]) -> np.ndarray:
    first = ops[0]
    records = np.zeros(len(ops), _RECORD)
    records["kind"] = first.geometry.code
    records["pass"] = PASS_CODES[first.pass_]
    records["dtype"] = DTYPE_CODES[first.dtype]
    records["variant"] = VARIANT_CODES[first.variant]
    records["channel_count"] = [op.trained_channels for op in ops]
    records["axis"] = [AXIS_CODES[op.trained_axis] for op in ops]
    records["bias"] = [op.trains_bias for op in ops]
    records["optimizer"] = [OPTIMIZER_CODES[op.optimizer] for op in ops]
    if first.dtype == "s8":
        records["quantization"] = Quantization().values()
    return records


def _geometry_values(ops: Sequence[Op]) -> np.ndarray:
    """uint32 of shape (n_ops, n_fields).

    Raises:
        ValueError: an extent that the firmware has no room for.
    """
    names = [field.name for field in fields(ops[0].geometry)]
    columns = attrgetter(*names) if names else lambda geometry: ()
    values = np.array([columns(op.geometry) for op in ops], dtype=np.int64).reshape(len(ops), len(names))
    for row in np.flatnonzero((values >= 1 << 32).any(axis=1)):
        work(ops[row])  # says so
    return values.astype(np.uint32)
