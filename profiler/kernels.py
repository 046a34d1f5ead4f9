"""The firmware's kernels on the host: what an op works, wants and computes, asked of the C code itself.

The library is the firmware's own source compiled for this machine (``firmware/kernels``, preset ``linux-native``), so
that the arena planner, the cost model's features and the devices share one truth. It is built on first use.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from profiler.buffers import ELEMENT_TYPES
from profiler.devices import build as firmware_build
from profiler.errors import UserError
from profiler.ops import (
    AXIS_CODES,
    DTYPE_CODES,
    GEOMETRIES,
    OPTIMIZER_CODES,
    PASS_CODES,
    VARIANT_CODES,
    Access,
    BufferSpec,
    Op,
    Quantization,
)

#: As in ``firmware/kernels/kernel.h`` and ``op.h``.
WORK_MAX_TERMS = 28
OP_MAX_BUFFERS = 10
OP_MAX_GEOMETRY = 12

_CACHED_OPS = 1 << 16


class StepConstants(NamedTuple):
    """Constants of an optimiser step.

    Attributes:
        learning_rate: Step size.
        gradient_scale: What gradients are multiplied with first: 1 / images of the batch.
        bias_correction1: Adam's ``1 - 0.9**t``.
        bias_correction2: Adam's ``1 - 0.999**t``.
    """

    learning_rate: float = 1e-2
    gradient_scale: float = 1.0
    bias_correction1: float = 0.1
    bias_correction2: float = 0.001


class _GeometryUnion(ctypes.Union):
    _fields_ = (("narrow", ctypes.c_uint16 * OP_MAX_GEOMETRY), ("wide", ctypes.c_uint32 * 2))


class _Trained(ctypes.Structure):
    _fields_ = (
        ("channel_count", ctypes.c_uint16),
        ("axis", ctypes.c_uint8),
        ("bias", ctypes.c_uint8),
        ("optimizer", ctypes.c_uint8),
        ("channels", ctypes.POINTER(ctypes.c_uint16)),
    )


class CQuantization(ctypes.Structure):
    """``quantization_t``."""

    _fields_ = tuple((field.name, ctypes.c_int8) for field in dataclasses.fields(Quantization))


class COp(ctypes.Structure):
    """``op_t``."""

    _fields_ = (
        ("kind", ctypes.c_uint8),
        ("pass_", ctypes.c_uint8),
        ("dtype", ctypes.c_uint8),
        ("variant", ctypes.c_uint8),
        ("geometry", _GeometryUnion),
        ("trained", _Trained),
        ("quantization", CQuantization),
    )


class CBufferSpec(ctypes.Structure):
    """``buffer_spec_t``."""

    _fields_ = (
        ("bytes", ctypes.c_uint32),
        ("access", ctypes.c_uint8),
        ("in_place", ctypes.c_int8),
        ("ahead_bytes", ctypes.c_uint32),
    )


class CStepConstants(ctypes.Structure):
    """``step_constants_t``."""

    _fields_ = tuple((name, ctypes.c_float) for name in StepConstants._fields)


_COUNTS = ctypes.c_uint64 * WORK_MAX_TERMS
_SPECS = CBufferSpec * OP_MAX_BUFFERS
_OP = ctypes.POINTER(COp)


class CKernel(ctypes.Structure):
    """``kernel_t``."""

    _fields_ = (
        ("kind", ctypes.c_uint8),
        ("pass_", ctypes.c_uint8),
        ("dtype", ctypes.c_uint8),
        ("variant", ctypes.c_uint8),
        ("run", ctypes.CFUNCTYPE(None, _OP, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(CStepConstants))),
        ("scratch_bytes", ctypes.CFUNCTYPE(ctypes.c_uint32, _OP)),
        ("work", ctypes.CFUNCTYPE(None, _OP, ctypes.POINTER(ctypes.c_uint64))),
        ("work_terms", ctypes.POINTER(ctypes.c_char_p)),
        ("trip_instructions", ctypes.c_uint8),
    )


@cache
def library() -> ctypes.CDLL:
    """``libkernels.so`` of the preset ``linux-native``, built first where it is missing or older than its sources.

    Raises:
        UserError: a build tool is missing or the sources do not compile.
    """
    loaded = ctypes.CDLL(str(firmware_build.build("linux-native") / "libkernels.so"))
    loaded.kernel_find.restype = ctypes.POINTER(CKernel)
    loaded.kernel_find.argtypes = (ctypes.c_uint8,) * 4
    loaded.kernel_count.restype = ctypes.c_size_t
    loaded.kernel_at.restype = ctypes.POINTER(CKernel)
    loaded.kernel_at.argtypes = (ctypes.c_size_t,)
    loaded.op_valid.restype = ctypes.c_bool
    loaded.op_valid.argtypes = (_OP,)
    loaded.op_set_geometry.restype = ctypes.c_bool
    loaded.op_set_geometry.argtypes = (_OP, ctypes.POINTER(ctypes.c_uint32), ctypes.c_size_t)
    loaded.op_buffers.restype = ctypes.c_size_t
    loaded.op_buffers.argtypes = (_OP, ctypes.POINTER(CBufferSpec))
    return loaded


class ExtentError(UserError, ValueError):
    """An op of a user's network that the firmware has no room for."""


def c_op(op: Op, channels: np.ndarray | None = None, quantization: Quantization | None = None) -> COp:
    """The op as the firmware has it.

    Args:
        op: Any op.
        channels: uint16 array of shape ``(op.trained_channels,)``, ascending: which channels train; the first ones
            where it is None. The result points into it.
        quantization: For dtype ``s8``; its defaults where it is None.

    Raises:
        ExtentError: a geometry value that the firmware has no room for.
        ValueError: channels that are no such array.
    """
    made = COp(
        kind=op.geometry.code,
        pass_=PASS_CODES[op.pass_],
        dtype=DTYPE_CODES[op.dtype],
        variant=VARIANT_CODES[op.variant],
    )
    made.trained.channel_count = op.trained_channels
    made.trained.axis = AXIS_CODES[op.trained_axis]
    made.trained.bias = op.trains_bias
    made.trained.optimizer = OPTIMIZER_CODES[op.optimizer]
    if op.dtype == "s8":
        made.quantization = CQuantization(*(quantization or Quantization()).values())
    values = op.geometry.values()
    if max(values, default=0) >= 1 << 32 or not library().op_set_geometry(
        made, (ctypes.c_uint32 * len(values))(*values), len(values)
    ):
        raise ExtentError(
            f"the firmware has no room for {op.key}: extents are at most 65535",
            hint="take a smaller input or a narrower network",
        )
    if channels is not None:
        if channels.dtype != np.uint16 or channels.shape != (op.trained_channels,) or not channels.flags.c_contiguous:
            raise ValueError(
                f"channels must be a contiguous uint16 array of shape ({op.trained_channels},), "
                f"got {channels.dtype} of shape {channels.shape}"
            )
        made.trained.channels = channels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint16))
    return made


def _valid_op(op: Op, channels: np.ndarray | None = None, quantization: Quantization | None = None) -> COp:
    made = c_op(op, channels, quantization)
    if not library().op_valid(made):
        raise ValueError(f"the firmware takes no such op: {op.key}")
    return made


def _kernel(op: Op) -> CKernel:
    found = library().kernel_find(
        op.geometry.code, PASS_CODES[op.pass_], DTYPE_CODES[op.dtype], VARIANT_CODES[op.variant]
    )
    if not found:
        raise ValueError(f"no kernel for {op.kind} {op.pass_} {op.dtype} {op.variant}")
    return found.contents


@lru_cache(maxsize=1)
def supported() -> frozenset[tuple[str, str, str, str]]:
    """Every (kind, pass, dtype, variant) that has a kernel."""
    kinds = {cls.code: kind for kind, cls in GEOMETRIES.items()}
    passes = {code: str(pass_) for pass_, code in PASS_CODES.items()}
    dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
    variants = {code: variant for variant, code in VARIANT_CODES.items()}
    entries = (library().kernel_at(i).contents for i in range(library().kernel_count()))
    return frozenset((kinds[k.kind], passes[k.pass_], dtypes[k.dtype], variants[k.variant]) for k in entries)


@lru_cache(maxsize=_CACHED_OPS)
def scratch_bytes(op: Op) -> int:
    """Bytes of scratch that the op's kernel wants.

    Raises:
        ValueError: the firmware has no such kernel or takes no such op.
    """
    return int(_kernel(op).scratch_bytes(_valid_op(op)))


@cache
def _term_names(kind: int, pass_: int, dtype: int, variant: int) -> tuple[str, ...]:
    terms = library().kernel_find(kind, pass_, dtype, variant).contents.work_terms
    names: list[str] = []
    while (name := terms[len(names)]) is not None:
        names.append(name.decode())
    return tuple(names)


def work_terms(op: Op) -> tuple[str, ...]:
    """Names of the counts that :func:`work` gives for ops of this kind, pass, dtype and variant, in order."""
    kernel = _kernel(op)
    return _term_names(kernel.kind, kernel.pass_, kernel.dtype, kernel.variant)


@lru_cache(maxsize=_CACHED_OPS)
def work(op: Op) -> MappingProxyType[str, int]:
    """How much work the op's kernel does, counted by its own loops; ``calls`` (1) first.

    The number of instructions of the kernel is very nearly a linear function of these with non-negative coefficients.

    Returns:
        Counts by name, in the kernel's order. Read-only, since it is remembered.

    Raises:
        ValueError: the firmware has no such kernel or takes no such op.
    """
    kernel, counts = _kernel(op), _COUNTS()
    kernel.work(_valid_op(op), counts)
    return MappingProxyType(dict(zip(work_terms(op), counts, strict=False)))


def buffer_specs(op: Op) -> tuple[BufferSpec, ...]:
    """The op's buffers with roles, shapes and access, in the order in which its kernel takes them, scratch left out."""
    return op.buffers()


def c_buffers(op: Op) -> tuple[CBufferSpec, ...]:
    """What the firmware says about the op's buffers: bytes, access and in-place rule of each."""
    specs = _SPECS()
    count = library().op_buffers(_valid_op(op), specs)
    return tuple(specs[:count])


@lru_cache(maxsize=_CACHED_OPS)
def in_place(op: Op) -> dict[int, int]:
    """Written buffer to the read buffer whose memory it may share from the same byte on, by index."""
    shared = {index: spec for index, spec in enumerate(c_buffers(op)) if spec.in_place >= 0}
    return {index: spec.in_place for index, spec in shared.items() if not spec.ahead_bytes}


@lru_cache(maxsize=_CACHED_OPS)
def trailing(op: Op) -> dict[int, tuple[int, int]]:
    """Written buffer to the read buffer that it may reach into, by index, and how many bytes before it it must begin
    at least."""
    shared = {index: spec for index, spec in enumerate(c_buffers(op)) if spec.in_place >= 0}
    return {index: (spec.in_place, spec.ahead_bytes) for index, spec in shared.items() if spec.ahead_bytes}


def prepared(
    op: Op,
    buffers: Sequence[np.ndarray],
    constants: StepConstants | None = None,
    channels: np.ndarray | None = None,
    quantization: Quantization | None = None,
) -> Callable[[], None]:
    """What runs the op's kernel on this machine's CPU, on arrays in place, each time it is called.

    Args:
        op: Any op that has a kernel.
        buffers: One C-contiguous array a buffer, of the sizes of :func:`buffer_specs` in any shape, and of their
            elements' types. Arrays may share memory only as :func:`in_place` allows.
        constants: For ``update``; anything with these four attributes.
        channels: See :func:`c_op`.
        quantization: See :func:`c_op`.

    Raises:
        ValueError: a buffer of the wrong number, size, type or layout, or an op that the firmware does not take.
    """
    specs = op.buffers()
    if len(buffers) != len(specs):
        raise ValueError(f"{op.key} takes {len(specs)} buffers, got {len(buffers)}")
    for spec, buffer in zip(specs, buffers, strict=True):
        wanted = ELEMENT_TYPES[spec.element]
        if buffer.dtype != wanted or buffer.size != spec.elements:
            raise ValueError(
                f"{op.key}: {spec.role} must be {np.dtype(wanted).name} of shape {spec.shape}, "
                f"got {buffer.dtype} of shape {buffer.shape}"
            )
        if not buffer.flags.c_contiguous:
            raise ValueError(f"{op.key}: {spec.role} must be C-contiguous")
        if spec.access is not Access.READ and not buffer.flags.writeable:
            raise ValueError(f"{op.key}: {spec.role} must be writeable")
    kernel = _kernel(op)
    made = _valid_op(op, channels, quantization)
    scratch = np.empty(scratch_bytes(op), dtype=np.uint8)
    pointers = [buffer.ctypes.data for buffer in buffers] + ([scratch.ctypes.data] if scratch.size else [])
    c = constants or StepConstants()
    step = CStepConstants(c.learning_rate, c.gradient_scale, c.bias_correction1, c.bias_correction2)
    function, addresses = kernel.run, (ctypes.c_void_p * max(1, len(pointers)))(*pointers)
    kept = (tuple(buffers), channels, scratch)  # alive as long as their addresses are in use

    def call() -> None:
        _ = kept
        function(made, addresses, step)

    return call


def run(
    op: Op,
    buffers: Sequence[np.ndarray],
    constants: StepConstants | None = None,
    channels: np.ndarray | None = None,
    quantization: Quantization | None = None,
) -> None:
    """Run the op's kernel once; arguments and errors as of :func:`prepared`."""
    prepared(op, buffers, constants, channels, quantization)()
