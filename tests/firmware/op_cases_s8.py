"""Random ops of dtype s8 with their inputs, and what the integer reference makes of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from op_cases import _window, random_geometry

from profiler import kernels, ops
from profiler.buffers import ELEMENT_TYPES
from profiler.geometry_s8 import GEOMETRIES, S8_ONLY, has_dtype
from profiler.kernels import StepConstants
from profiler.ops import Access, Op, Pass, Quantization
from profiler.reference_s8 import op_reference_s8

KINDS_AND_PASSES_S8 = [
    (kind, pass_)
    for kind, cls in GEOMETRIES.items()
    for pass_ in cls.passes
    if cls in S8_ONLY or kind in ("conv2d", "depthwise", "linear") or
    (pass_ is Pass.FORWARD and kind in ("global_avg_pool", "avg_pool2d", "max_pool2d", "add"))
]  # fmt: skip
#: Relative error of float32 results. The integers are exact.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class CaseS8:
    """An op and what its buffers hold before it runs, in their elements' types."""

    op: Op
    buffers: tuple[np.ndarray, ...]
    quantization: Quantization
    constants: StepConstants


def random_op_s8(kind: str, pass_: Pass, rng: np.random.Generator, variant: str = "blocked") -> Op:
    """A random op; weights in one or two segments, trained channels of either axis, with and without bias."""
    n = lambda high: int(rng.integers(1, high + 1))  # noqa: E731
    flag = lambda: int(rng.random() < 0.7)  # noqa: E731
    match kind:
        case "fused_conv2d":
            base = random_geometry("conv2d", rng)
            g = ops.FusedConv2d(*dataclasses.replace(base, groups=1, has_bias=flag()).values())
        case "pointwise_depthwise":
            window = _window(rng, lambda kernel: kernel + 1)
            g = ops.PointwiseDepthwise(**window, in_channels=n(12), mid_channels=n(14), has_bias=flag(),
                                       has_depthwise_bias=flag())  # fmt: skip
        case "requantize":
            g = ops.Requantize(n(30), n(13), int(rng.integers(3)))
        case "saturation_mask" | "dequantize":
            g = GEOMETRIES[kind](n(300))
        case _:
            g = random_geometry(kind, rng)
    assert has_dtype(g, pass_, "s8")
    if not isinstance(g, ops.Conv2d | ops.Depthwise | ops.Linear):
        return Op(g, pass_, "s8", variant=variant)
    axis = "out" if kind == "depthwise" or rng.random() < 0.5 else "in"
    channels = 0 if getattr(g, "groups", 1) > 1 else g.channels(axis)
    k = int(rng.choice([0, channels, int(rng.integers(0, channels + 1))]))
    bias = pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE) and bool(g.bias_elements) and bool(rng.random() < 0.6)
    if pass_ in (Pass.GRAD_WEIGHT, Pass.UPDATE) and not k and not bias:
        if not channels:
            return random_op_s8(kind, pass_, rng, variant)
        k = channels
    optimizer = "adam" if pass_ is Pass.UPDATE and kind != "fused_conv2d" and rng.random() < 0.5 else "sgd"
    return Op(g, pass_, "s8", k, axis, bias, optimizer, variant)


def _pairs(op: Op, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Multipliers and shifts with which outputs spread over int8, and some that are extreme."""
    pairs = np.empty(shape, np.int32)
    pairs[:, 0] = rng.integers(1 << 30, 1 << 31, shape[0])
    fan_in = getattr(op.geometry, "fan_in", 16)
    usual = -round(6.3 + np.log2(fan_in) / 2)
    pairs[:, 1] = rng.integers(usual - 1, usual + 2, shape[0]).clip(-31, 0)
    if op.kind == "add":
        pairs[:, 1] = [0, -1, -19] if rng.random() < 0.8 else rng.integers(-31, 1, 3)
    if rng.random() < 0.1:
        pairs[:, 1] = rng.integers(-31, 1, shape[0])
        pairs[:, 0] = rng.choice([0, 1, (1 << 31) - 1, 1 << 30], shape[0])
    return pairs


def random_case_s8(op: Op, rng: np.random.Generator) -> CaseS8:
    """Contents of every type over its whole range; what is only written holds a pattern."""
    zero = lambda: int(rng.integers(-128, 128))  # noqa: E731
    limits = sorted(rng.choice(np.arange(-128, 128), 2, replace=False))
    if rng.random() < 0.5:
        limits = [-128, 127]
    second = sorted(rng.choice(np.arange(-128, 128), 2, replace=False))
    q = Quantization(zero(), zero(), *map(int, limits), zero(), *map(int, second))
    buffers = []
    for spec in op.buffers():
        kind = ELEMENT_TYPES[spec.element]
        if spec.access is Access.WRITE:
            values = np.full(spec.shape, 85, kind)
        elif spec.element == "s8":
            values = rng.integers(-128, 128, spec.shape).astype(kind)
            if op.pass_ is Pass.UPDATE:
                values = values.clip(-127, 127)
        elif spec.element == "u8":
            values = rng.integers(0, 256, spec.shape).astype(kind)
        elif spec.role.endswith("requantization"):
            values = _pairs(op, spec.shape, rng)
        elif spec.element == "s32":
            values = rng.integers(-(1 << 14), 1 << 14, spec.shape).astype(kind)
        elif spec.role in ("scale", "scales"):
            values = rng.uniform(0.05, 0.2, spec.shape).astype(kind)
        else:
            values = rng.standard_normal(spec.shape).astype(kind)
            if spec.role.endswith("moment2"):
                values = values**2 + np.float32(0.01)
        buffers.append(values)
    step = int(rng.integers(1, 50))
    constants = StepConstants(float(rng.choice((1e-1, 1e-2))), float(1 / rng.integers(1, 26)), 1 - 0.9**step,
                              1 - 0.999**step)  # fmt: skip
    return CaseS8(op, tuple(buffers), q, constants)


def expected_s8(case: CaseS8) -> dict[str, np.ndarray]:
    """The buffers that the op writes, by role, after it ran."""
    inputs = {
        spec.role: values.astype(np.float64)
        for spec, values in zip(case.op.buffers(), case.buffers, strict=True)
        if spec.access is not Access.WRITE
    }
    return op_reference_s8(case.op, inputs, case.quantization, case.constants)


def check_s8(case: CaseS8, after: list[np.ndarray], reference: dict[str, np.ndarray]) -> None:
    """Integers exactly; but where a float32 gradient decides them (fused ops, Adam), one apart at a half is right."""
    decided = case.op.pass_ is Pass.UPDATE and (case.op.kind == "fused_conv2d" or case.op.optimizer == "adam")
    for spec, values in zip(case.op.buffers(), after, strict=True):
        if spec.access is Access.READ:
            continue
        wanted = reference[spec.role]
        if spec.element == "f32":
            error = np.linalg.norm(values - wanted)
            assert error <= TOLERANCE * max(np.linalg.norm(wanted), 1e-30), (case.op.key, spec.role, error)
        elif decided:
            apart = np.abs(values - wanted)
            assert apart.max(initial=0) <= 1, (case.op.key, spec.role)
            assert np.count_nonzero(apart) <= max(1, 0.02 * apart.size), (case.op.key, spec.role)
        else:
            assert np.array_equal(values, wanted), (case.op.key, spec.role)


def run_on_host(case: CaseS8) -> list[np.ndarray]:
    """All buffers after this machine's kernel ran, each between guards that it must leave alone."""
    guard = 64
    storage, views = [], []
    for values in case.buffers:
        raw = np.full(values.nbytes + 2 * guard, 0xA5, np.uint8)
        view = raw[guard : guard + values.nbytes].view(values.dtype).reshape(values.shape)
        view[...] = values
        storage.append(raw)
        views.append(view)
    kernels.run(case.op, views, case.constants, quantization=case.quantization)
    for raw, before, spec in zip(storage, case.buffers, case.op.buffers(), strict=True):
        assert np.all(raw[:guard] == 0xA5), (case.op.key, spec.role)
        assert np.all(raw[guard + before.nbytes :] == 0xA5), (case.op.key, spec.role)
        if spec.access is Access.READ:
            assert np.array_equal(raw[guard : guard + before.nbytes], before.reshape(-1).view(np.uint8)), spec.role
    return [view.copy() for view in views]
