"""Every int8 kernel, pass and variant on this machine against the integer reference, and that against literal loops."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import CASES, VARIANTS, seeded
from op_cases_s8 import KINDS_AND_PASSES_S8, check_s8, expected_s8, random_case_s8, random_op_s8, run_on_host

from profiler import kernels, ops
from profiler.ops import Access, Op, Pass, Quantization
from profiler.reference_s8 import op_reference_s8, rescale

ACCESS = {Access.READ: 1, Access.WRITE: 2, Access.READ_WRITE: 3}


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES_S8)
def test_both_variants_agree_with_the_reference_on_random_geometries(kind: str, pass_: Pass) -> None:
    rng = seeded("s8", kind, pass_)
    for _ in range(CASES):
        case = random_case_s8(random_op_s8(kind, pass_, rng), rng)
        reference = expected_s8(case)
        for variant in VARIANTS:
            case = dataclasses.replace(case, op=dataclasses.replace(case.op, variant=variant))
            check_s8(case, run_on_host(case), reference)


@pytest.mark.parametrize(("kind", "pass_"), KINDS_AND_PASSES_S8)
def test_buffers_and_work_are_the_same_on_both_sides(kind: str, pass_: Pass) -> None:
    rng = seeded("s8 twin", kind, pass_)
    for i in range(150):
        op = random_op_s8(kind, pass_, rng, VARIANTS[i % 2])
        specs = op.buffers()
        there = [(spec.bytes, spec.access) for spec in kernels.c_buffers(op)]
        assert there == [(spec.byte_count, ACCESS[spec.access]) for spec in specs], op.key
        work = kernels.work(op)
        assert tuple(work) == kernels.work_terms(op)
        assert work["calls"] == 1
        assert work["bytes_read"] == sum(s.byte_count for s in specs if s.access is not Access.WRITE)
        assert work["bytes_written"] == sum(s.byte_count for s in specs if s.access is not Access.READ)


@settings(max_examples=600, deadline=None)
@given(
    value=st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-300, 300)),
    multiplier=st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2**30, 2**31 - 1])),
    shift=st.integers(-31, 0),
)
def test_rescaling_rounds_twice_as_the_rules_say(value: int, multiplier: int, shift: int) -> None:
    """The rules in words: the doubled product's high word, ties up; then a power of two, ties away from zero."""
    doubled = Fraction(value * multiplier, 2**31)
    high = (doubled + Fraction(1, 2)).__floor__()
    exact = Fraction(high, 2**-shift)
    magnitude = (abs(exact) + Fraction(1, 2)).__floor__()
    wanted = magnitude if exact >= 0 else -magnitude
    assert int(rescale(np.array([value]), np.array([multiplier]), np.array([shift]))[0]) == wanted


def test_the_reference_is_what_literal_loops_compute() -> None:
    rng = seeded("literal")
    g = ops.Conv2d(5, 4, 3, 2, 3, 2, 2, 1, 1, 1)
    q = Quantization(-9, 11, -100, 90)
    b = {
        "input": rng.integers(-128, 128, g.input_shape),
        "weight": rng.integers(-128, 128, g.weight_shape),
        "bias": rng.integers(-5000, 5000, 2),
        "requantization": np.array([[1518500250, -8], [2040109466, -9]]),
    }
    found = op_reference_s8(Op(g, Pass.FORWARD, "s8"), b, q)["output"]
    for y in range(g.out_h):
        for x in range(g.out_w):
            for o in range(2):
                total = int(b["bias"][o])
                for ky in range(3):
                    for kx in range(2):
                        iy, ix = 2 * y - 1 + ky, x - 1 + kx
                        if 0 <= iy < 5 and 0 <= ix < 4:
                            total += int(((b["input"][iy, ix] + 9) * b["weight"][o, ky, kx]).sum())
                pair = b["requantization"][o]
                value = int(rescale(np.array([total]), pair[:1], pair[1:])[0]) + 11
                assert found[y, x, o] == min(90, max(-100, value))


def test_segments_hold_the_same_layer() -> None:
    """Frozen and trained weights apart give what they give together, for either axis."""
    rng = seeded("segments")
    for axis, k in (("out", 3), ("in", 4)):
        g = ops.Conv2d(6, 5, 9, 7, 3, 3, 1, 1, 1, 1)
        whole = random_case_s8(Op(g, Pass.FORWARD, "s8"), rng)
        x, w, *rest = whole.buffers
        parts = (w[k:], w[:k]) if axis == "out" else (w[..., k:], w[..., :k])
        split = dataclasses.replace(
            whole,
            op=Op(g, Pass.FORWARD, "s8", k, axis),
            buffers=(x, *(np.ascontiguousarray(part) for part in parts), *rest),
        )
        assert np.array_equal(run_on_host(whole)[-1], run_on_host(split)[-1])


def test_a_step_in_integers_is_the_step_in_real_values() -> None:
    """Quantisation-aware scaling: a large step of int8 weights moves the real weights as SGD would."""
    rng = seeded("scaling")
    g = ops.Linear(40, 6, 0)
    op = Op(g, Pass.UPDATE, "s8", 6, trains_bias=False)
    case = random_case_s8(op, rng)
    w, gradient, scales = case.buffers
    after = run_on_host(dataclasses.replace(case, constants=kernels.StepConstants(0.1, 1.0)))[0]
    scale = scales[1:, None]
    real = w * scale - 0.1 * (gradient / scale)  # dL/dW = dL/dw / scale
    inside = np.abs(real / scale) < 127
    assert inside.mean() > 0.8
    assert np.abs(after * scale - real)[inside].max() <= 0.5001 * scale.max()


@pytest.mark.parametrize("kind", ["add", "requantize", "dequantize"])
def test_in_place_gives_the_same_bits(kind: str) -> None:
    pass_ = Pass.FORWARD if kind == "add" else Pass.GRAD_INPUT
    rng = seeded("s8 in place", kind)
    for _ in range(20):
        case = random_case_s8(random_op_s8(kind, pass_, rng), rng)
        ((written, read),) = kernels.in_place(case.op).items()
        apart = run_on_host(case)[written]
        buffers = [values.copy() for values in case.buffers]
        buffers[written] = buffers[read].reshape(buffers[written].shape)
        kernels.run(case.op, buffers, case.constants, quantization=case.quantization)
        assert np.array_equal(apart, buffers[written])


def test_every_kind_and_pass_has_a_blocked_and_a_reference_kernel() -> None:
    wanted = {(kind, str(pass_), "s8", variant) for kind, pass_ in KINDS_AND_PASSES_S8 for variant in VARIANTS}
    found = {kernel for kernel in kernels.supported() if kernel[2] == "s8"}
    assert found == wanted | {("depthwise", "forward", "s8", "in_place")}
