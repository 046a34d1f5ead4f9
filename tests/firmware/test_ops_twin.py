"""firmware/kernels/op.h and profiler/ops.py say the same about every op."""

from __future__ import annotations

import ctypes
import dataclasses
import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import KINDS_AND_PASSES, VARIANTS, random_op

from profiler import kernels, ops
from profiler.ops import Access, Op, Pass

EVERY_KIND_AND_PASS = [*KINDS_AND_PASSES, ("empty", Pass.FORWARD)]
ACCESS = {Access.READ: 1, Access.WRITE: 2, Access.READ_WRITE: 3}


def random_ops(kind: str, pass_: Pass, count: int = 150) -> list[Op]:
    rng = np.random.default_rng(zlib.crc32(f"twin {kind} {pass_}".encode()))
    return [random_op(kind, pass_, rng, VARIANTS[i % 2]) for i in range(count)]


def test_every_kind_and_pass_has_a_blocked_and_a_reference_kernel() -> None:
    wanted = {(kind, str(pass_), "f32", variant) for kind, pass_ in EVERY_KIND_AND_PASS for variant in VARIANTS}
    assert {kernel for kernel in kernels.supported() if kernel[2] == "f32"} == wanted


@pytest.mark.parametrize(("kind", "pass_"), EVERY_KIND_AND_PASS)
def test_buffers_have_the_same_sizes_and_access_on_both_sides(kind: str, pass_: Pass) -> None:
    for op in random_ops(kind, pass_):
        there = [(spec.bytes, spec.access) for spec in kernels.c_buffers(op)]
        assert there == [(spec.byte_count, ACCESS[spec.access]) for spec in op.buffers()], op.key


@pytest.mark.parametrize(("kind", "pass_"), EVERY_KIND_AND_PASS)
def test_in_place_names_a_read_buffer_of_the_same_size(kind: str, pass_: Pass) -> None:
    for op in random_ops(kind, pass_, 5):
        specs = op.buffers()
        for written, read in kernels.in_place(op).items():
            assert specs[written].access is Access.WRITE
            assert specs[read].access is Access.READ
            assert specs[written].byte_count == specs[read].byte_count


@pytest.mark.parametrize(("kind", "pass_"), EVERY_KIND_AND_PASS)
def test_scratch_comes_in_whole_words(kind: str, pass_: Pass) -> None:
    assert all(kernels.scratch_bytes(op) % 4 == 0 for op in random_ops(kind, pass_, 20))


# ---- validity


def c_valid(
    kind: str, values: tuple[int, ...], pass_: int = 0, trained: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> bool:
    """op_valid() of an op that Python might not even make."""
    made = kernels.COp(kind=ops.GEOMETRIES[kind].code, pass_=pass_)
    made.trained.channel_count, made.trained.axis, made.trained.bias, made.trained.optimizer = trained
    lib = kernels.library()
    if not lib.op_set_geometry(made, (ctypes.c_uint32 * len(values))(*values), len(values)):
        return False
    return lib.op_valid(made)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_the_firmware_takes_a_geometry_where_python_does(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(ops.GEOMETRIES)))
    fields = [field.name for field in dataclasses.fields(ops.GEOMETRIES[kind])]
    values = tuple(data.draw(st.integers(0, 1 if name.startswith("has_") else 6), label=name) for name in fields)
    try:
        ops.GEOMETRIES[kind](*values)
        taken = True
    except ValueError:
        taken = False
    assert c_valid(kind, values) == taken


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_the_firmware_takes_trained_channels_where_python_does(data: st.DataObject) -> None:
    geometry = data.draw(
        st.sampled_from(
            [
                ops.Conv2d(4, 4, 6, 4, 3, 3, 1, 1, 1, 1, 2, 1),
                ops.Conv2d(4, 4, 3, 5, 1, 1, has_bias=0),
                ops.Depthwise(4, 4, 5, 3, 3),
                ops.Linear(5, 3, 0),
                ops.Linear(3, 5),
                ops.Add(9),
                ops.GroupNorm(3, 4, 6, 2),
                ops.GroupNorm(3, 4, 5, 1, 0),
            ]
        )
    )
    pass_ = data.draw(st.sampled_from(list(Pass)))
    k, bias = data.draw(st.integers(0, 7)), data.draw(st.booleans())
    axis = data.draw(st.sampled_from(["out", "in"])) if k else "out"  # without channels an op has no axis
    try:
        Op(geometry, pass_, trained_channels=k, trained_axis=axis, trains_bias=bias)
        taken = True
    except ValueError:
        taken = False
    trained = (k, ops.AXIS_CODES[axis], int(bias), 0)
    assert c_valid(geometry.kind, geometry.values(), ops.PASS_CODES[pass_], trained) == taken


def test_geometries_of_the_wrong_length_or_with_large_fields_are_refused() -> None:
    good = ops.Conv2d(4, 4, 2, 2, 3, 3).values()
    assert c_valid("conv2d", good)
    assert not c_valid("conv2d", good[:-1])
    assert not c_valid("conv2d", (*good, 1))
    assert not c_valid("conv2d", (65536, *good[1:]))
    assert c_valid("add", (70000,))  # the one field that is wider


def test_tensors_above_256_mib_are_refused_however_they_multiply() -> None:
    limit = 2**28 // 4
    assert c_valid("add", (limit,))
    assert not c_valid("add", (limit + 1,))
    assert not c_valid("linear", (65535, 65535, 0))
    assert not c_valid("conv2d", (65535, 65535, 65535, 65535, 1, 1, 1, 1, 0, 0, 1, 0))
    assert not c_valid("conv2d", (1, 1, 1, 65535, 65535, 65535, 1, 1, 65535, 65535, 1, 0))
    # The input is small and the pass does not touch the output, but kernels compute positions in it.
    assert not c_valid(
        "conv2d", (1, 1, 1, 65535, 1, 1, 1, 1, 65535, 65535, 1, 0), ops.PASS_CODES[Pass.UPDATE], (1, 0, 0, 0)
    )
    assert not c_valid("global_avg_pool", (65535, 65535, 65535))
    assert not c_valid("group_norm", (65535, 65535, 65535, 1, 0), ops.PASS_CODES[Pass.UPDATE], (1, 0, 0, 0))
    assert c_valid("upsample_bilinear2d", (4096, 4096, 1))
    assert not c_valid("upsample_bilinear2d", (4096, 4097, 1))


def test_strangers_are_refused() -> None:
    lib = kernels.library()
    for op in (kernels.COp(kind=0), kernels.COp(kind=20), kernels.COp(kind=255), kernels.COp(kind=12, pass_=4),
               kernels.COp(kind=12, dtype=2), kernels.COp(kind=12, variant=3)):  # fmt: skip
        assert not lib.op_valid(op)
    assert lib.op_valid(kernels.COp(kind=12))
    assert not lib.kernel_find(8, 0, 1, 0)
    assert not lib.kernel_at(lib.kernel_count())
    with pytest.raises(ValueError, match="relu forward has no dtype s8"):
        Op(ops.Relu(4), Pass.FORWARD, dtype="s8")
    with pytest.raises(ValueError, match="no kernel for linear forward f32 in_place"):
        kernels.work(Op(ops.Linear(4, 2), Pass.FORWARD, variant="in_place"))
    with pytest.raises(ValueError, match="extents are at most 65535"):
        kernels.work(Op(ops.Linear(65536, 2), Pass.FORWARD))


# ---- work counts


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("kind", "pass_"), EVERY_KIND_AND_PASS)
def test_work_counts_calls_and_bytes(kind: str, pass_: Pass, variant: str) -> None:
    for drawn in random_ops(kind, pass_, 40):
        op = dataclasses.replace(drawn, variant=variant)
        work = kernels.work(op)
        assert tuple(work) == kernels.work_terms(op)
        assert next(iter(work)) == "calls"
        assert work["calls"] == 1
        assert len(work) <= kernels.WORK_MAX_TERMS
        if kind != "empty":
            specs = op.buffers()
            assert work["bytes_read"] == sum(s.byte_count for s in specs if s.access is not Access.WRITE)
            assert work["bytes_written"] == sum(s.byte_count for s in specs if s.access is not Access.READ)


def meetings(g: ops.Conv2d | ops.Depthwise) -> int:
    """(output position, tap) pairs that read inside the input, by trying all."""
    pairs = 1
    for size, out, kernel, stride, pad in (
        (g.in_h, g.out_h, g.kernel_h, g.stride_h, g.pad_h),
        (g.in_w, g.out_w, g.kernel_w, g.stride_w, g.pad_w),
    ):
        pairs *= sum(0 <= o * stride - pad + k < size for o in range(out) for k in range(kernel))
    return pairs


def up_to_four(n: int) -> int:
    return -(-n // 4) * 4


def whole_blocks(n: int) -> int:
    """Channels that blocks of four compute: those that four leaves over in a block of their own, unless all are few."""
    return up_to_four(n) if n >= 4 else n


def in_quads(w: dict[str, int]) -> int:
    return 16 * (4 * w["quad_iterations"] + w["quad_tails"])


def in_singles(w: dict[str, int]) -> int:
    return 4 * (4 * w["single_iterations"] + w["single_tails"])


def in_rows(w: dict[str, int]) -> int:
    return 4 * (4 * w["iterations"] + w["tails"])


def computed_again(op: Op, w: dict[str, int]) -> int:
    """MACs of depthwise blocks that begin before what is left, and of columns outside the map: by trying all rows."""
    g = op.geometry
    if g.in_channels < 4:
        return 0
    back = op.pass_ is Pass.GRAD_INPUT
    rows = sum(0 <= o * g.stride_h - g.pad_h + k < g.in_h for o in range(g.out_h) for k in range(g.kernel_h))
    again = 0
    for phase in range(g.stride_w if back else 1):
        if back:  # the taps that each position of the phase meets
            met = [
                [
                    0 <= i + g.pad_w - k < g.out_w * g.stride_w
                    for k in range((i + g.pad_w) % g.stride_w, g.kernel_w, g.stride_w)
                ]
                for i in range(phase, g.in_w, g.stride_w)
            ]
        else:
            met = [[0 <= o * g.stride_w - g.pad_w + k < g.in_w for k in range(g.kernel_w)] for o in range(g.out_w)]
        slides = g.kernel_w == 3 and g.stride_w == 1
        fit = [bool(m) and (m[1] and sum(m) >= 2 if slides else all(m)) for m in met]
        if sum(fit) < 4:
            continue
        left = sum(fit) % 4
        taken = [m for m, f in zip(met, fit, strict=True) if f]
        extra = taken[-4:-left] if left > 1 else []
        again += sum(sum(m) for m in extra)
        if slides:
            in_fours = taken[: len(taken) - (left == 1)]
            again += sum(3 - sum(m) for m in in_fours + extra)
    return again * rows * whole_blocks(g.in_channels)


def macs_done(op: Op, w: dict[str, int]) -> tuple[int, int]:
    """MACs that the work counts say are done, and that there are to do."""
    g = op.geometry
    match op.kind, op.pass_:
        case "conv2d", Pass.FORWARD:
            todo = meetings(g) * g.in_channels * up_to_four(g.out_channels // g.groups)
            return in_quads(w) + in_singles(w), todo
        case "conv2d", Pass.GRAD_INPUT:
            done = in_quads(w) + in_singles(w) + w["narrow_iterations"]
            return done, meetings(g) * whole_blocks(g.in_channels // g.groups) * g.out_channels
        case "conv2d", Pass.GRAD_WEIGHT:
            done = 16 * (4 * w["iterations_4x4"] + w["tails_4x4"]) + 4 * (4 * w["iterations_1x4"] + w["tails_1x4"])
            partners = (g.in_channels if op.trained_axis == "out" else g.out_channels) // g.groups
            return done, meetings(g) * op.trained_channels * up_to_four(partners)
        case "depthwise", Pass.FORWARD | Pass.GRAD_INPUT:
            done = 48 * w["slide_rows"] + 16 * w["quad_taps"] + 4 * w["single_taps"] + w["narrow_taps"]
            return done - computed_again(op, w), meetings(g) * whole_blocks(g.in_channels)
        case "depthwise", Pass.GRAD_WEIGHT:
            # Three taps at a time, nine in a pass; columns outside the map are zeros, rows outside are left out.
            taps = sum(3 * -(-min(9, g.kernel_w - kx) // 3) for kx in range(0, g.kernel_w, 9))
            rows = sum(0 <= o * g.stride_h - g.pad_h + k < g.in_h for o in range(g.out_h) for k in range(g.kernel_h))
            positions = 3 * w["iterations"] + w["tails"] + w["leaps"]
            return 12 * positions, rows * g.out_w * taps * up_to_four(op.trained_channels)
        case "linear", Pass.FORWARD:
            return in_rows(w), g.in_features * up_to_four(g.out_features)
        case "linear", Pass.GRAD_INPUT:
            return in_rows(w) + w["single_iterations"], whole_blocks(g.in_features) * g.out_features
        case "linear", Pass.GRAD_WEIGHT:
            pairs = 8 * w["pair_eights"] + 4 * w["pair_fours"] + w["pair_ones"]
            return 2 * pairs + 8 * w["single_eights"] + 4 * w["single_fours"] + w["single_ones"], op.macs
    raise AssertionError(op)


@pytest.mark.parametrize("pass_", [Pass.FORWARD, Pass.GRAD_INPUT, Pass.GRAD_WEIGHT])
@pytest.mark.parametrize("kind", ["conv2d", "depthwise", "linear"])
def test_inner_iterations_come_to_exactly_the_macs_inside_the_input(kind: str, pass_: Pass) -> None:
    for drawn in random_ops(kind, pass_):
        op = dataclasses.replace(drawn, variant="blocked")
        done, todo = macs_done(op, kernels.work(op))
        assert done == todo, op.key


@pytest.mark.parametrize("pass_", [Pass.FORWARD, Pass.GRAD_INPUT])
@pytest.mark.parametrize("kind", ["conv2d", "depthwise"])
def test_every_position_is_in_a_four_or_single_or_blank(kind: str, pass_: Pass) -> None:
    for drawn in random_ops(kind, pass_):
        op = dataclasses.replace(drawn, variant="blocked")
        work, g = kernels.work(op), op.geometry
        positions = g.out_h * g.out_w if pass_ is Pass.FORWARD else g.in_h * g.in_w
        done, todo = 4 * work["quads"] + work["singles"] + work["blanks"], positions * getattr(g, "groups", 1)
        if kind == "conv2d":
            assert done == todo, op.key
        else:  # a four may begin earlier to take two or three that are left of a row, and of a phase
            assert todo <= done <= todo + 2 * work["phases"], op.key


@pytest.mark.parametrize("pass_", [Pass.FORWARD, Pass.GRAD_INPUT])
def test_normalisation_and_up_sampling_count_every_element_once(pass_: Pass) -> None:
    for op in random_ops("group_norm", pass_):
        w, elements = kernels.work(op), math.prod(op.geometry.input_shape)
        assert 4 * w["iterations"] + w["single_iterations"] == elements, op.key
        assert w["iterations"] == w["rows"] * op.geometry.in_w and w["rows"] == w["blocks"] * op.geometry.in_h
    for op in random_ops("upsample_bilinear2d", pass_):
        w, elements = kernels.work(op), math.prod(op.geometry.output_shape)
        assert 4 * w["quad_iterations"] + 2 * w["pair_iterations"] + w["single_iterations"] == elements, op.key


def test_a_normalisation_s_weight_gradient_counts_its_trained_channels_in_blocks_of_four() -> None:
    for op in random_ops("group_norm", Pass.GRAD_WEIGHT):
        w, positions = kernels.work(op), op.geometry.in_h * op.geometry.in_w
        assert 4 * w["iterations"] == up_to_four(op.trained_channels) * positions, op.key
        assert 4 * w["bias_iterations"] == up_to_four(op.trained_biases) * positions, op.key


def test_work_follows_the_trained_channels_and_not_which_they_are() -> None:
    g = ops.Conv2d(9, 9, 16, 24, 3, 3, 1, 1, 1, 1)
    work = [kernels.work(Op(g, Pass.GRAD_WEIGHT, trained_channels=k)) for k in (4, 8, 24)]
    assert [w["iterations_4x4"] / work[0]["iterations_4x4"] for w in work] == [1, 2, 6]
    op = Op(g, Pass.GRAD_WEIGHT, trained_channels=5)
    counts = []
    for channels in (None, np.array([0, 3, 9, 20, 23], np.uint16)):
        found = (ctypes.c_uint64 * kernels.WORK_MAX_TERMS)()
        kernels.library().kernel_find(1, 2, 0, 0).contents.work(kernels.c_op(op, channels), found)
        counts.append(list(found))
    assert counts[0] == counts[1]
